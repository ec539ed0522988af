"""The house in order: who may import whom, what an import loads, and a row in docs/architecture.md for all that there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [path for folder in ("selfextend_local", "cli") for path in sorted((ROOT / folder).rglob("*.py")) if path.name != "__init__.py"]


def test_the_arrows_run_one_way() -> None:
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


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
