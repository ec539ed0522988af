"""The locks hold what pyproject.toml asks for, with hashes and without addresses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
LINE = re.compile(r"[a-z0-9.-]+==[0-9][\w.+-]* --hash=sha256:[0-9a-f]{64}")
FROM_SOURCE = {"llama-cpp-python", "selfextend-local"}
ONLY_ELSEWHERE = {"tomli"}  # older Pythons


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_line_is_a_version_with_its_hash(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert lines and lines == sorted(lines)
    assert [line for line in lines if not LINE.fullmatch(line)] == []


@pytest.mark.parametrize("lock", [path for path in LOCKS if path.name != "model.txt"], ids=lambda path: path.name)
def test_each_dependency_is_locked(lock: Path) -> None:
    """Else: make lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(line for name in ("dask", "eval", "plot", "sample", "serve", "dev") for line in extras[name])]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in asked}  # type: ignore[index]
    locked = {line.partition("==")[0] for line in lock.read_text().splitlines()}
    assert names - FROM_SOURCE - ONLY_ELSEWHERE <= locked
