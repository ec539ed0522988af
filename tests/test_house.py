"""The house in order: who may import whom, what an import loads, and a row in docs/architecture.md for all that there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CODE = [path for folder in ("selfextend_local", "cli") for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "__init__.py"]


def _lint_imports(folder: Path) -> tuple[int, str]:
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_arrows_run_one_way() -> None:
    code, said = _lint_imports(ROOT)
    assert code == 0, said


@pytest.mark.slow
def test_each_contract_breaks_when_it_is_broken(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "selfextend_local", tmp_path / "selfextend_local", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "cli", tmp_path / "selfextend_cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, line in {
        "positions": "import selfextend_local.chat.workspace",
        "storage/disk": "from typing import TYPE_CHECKING\nif TYPE_CHECKING: import selfextend_local.storage.results",
        "storage/results": "import selfextend_local.storage.disk",
        "sessions/chats": "import selfextend_local.native",
        "engine/plan": "import ctypes",
        "chat/notes": "import llama_cpp",
        "documents/text": "import click",
    }.items():
        path = tmp_path / "selfextend_local" / f"{module}.py"
        path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    code, said = _lint_imports(tmp_path)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    assert code == 1
    assert [contract["name"] for contract in contracts if f"{contract['name']} BROKEN" not in said] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["engine.peek", "engine.plan", "chat.workspace", "chat.history", "batch.api", "sessions", "summarize", "documents"]
)
def test_an_import_loads_no_library(module: str) -> None:
    code = f"import sys, selfextend_local.{module}; print([m for m in ('llama_cpp', 'click', 'pypdfium2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_folders_of_the_machine_are_in_one_file() -> None:
    assert [path.name for path in CODE if "platformdirs" in path.read_text(encoding="utf-8")] == ["folders.py"]


def _rows() -> set[str]:
    """The paths in the trees of docs/architecture.md: two spaces a level, a folder ends in a slash, then what it is."""
    found: set[str] = set()
    parents: list[str] = []
    in_tree = False
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            in_tree = line == "```tree"
            continue
        if not in_tree or not line.strip():
            continue
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents[depth:] = [name]
        found.add("".join(parents))
        assert len(line.split()) > 1, f"no words for {name}"
    return found


def test_every_file_and_folder_has_its_row_and_no_row_is_left_over() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in CODE}
    folders = {f"{parent}/" for file in files for parent in map(str, Path(file).parents) if parent != "."}
    assert _rows() == files | folders
