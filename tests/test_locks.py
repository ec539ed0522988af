"""The locks hold what pyproject.toml asks for, with hashes and without addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
INSTALLED = [path for path in LOCKS if path.name != "model.txt" and not path.name.startswith("build-")]
BUILDING = [path for path in LOCKS if path.name.startswith("build-")]
LINE = re.compile(r"[a-z0-9.-]+==[0-9][\w.+-]* --hash=sha256:[0-9a-f]{64}")
FROM_SOURCE = {"llama-cpp-python", "selfextend-local"}
ONLY_ELSEWHERE = {"tomli"}  # older Pythons


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_line_is_a_version_with_its_hash(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert lines and lines == sorted(lines)
    assert [line for line in lines if not LINE.fullmatch(line)] == []


@pytest.mark.parametrize("lock", INSTALLED, ids=lambda path: path.name)
def test_each_dependency_is_locked(lock: Path) -> None:
    """Else: make lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(line for name in ("dask", "eval", "plot", "sample", "serve", "dev") for line in extras[name])]
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in asked}  # type: ignore[index]
    locked = {line.partition("==")[0] for line in lock.read_text().splitlines()}
    assert names - FROM_SOURCE - ONLY_ELSEWHERE <= locked


@pytest.mark.parametrize("lock", BUILDING, ids=lambda path: path.name)
def test_what_builds_is_locked_too(lock: Path) -> None:
    sys.path.insert(0, str(ROOT / "locks"))
    from lock import build_requirements

    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in build_requirements()}  # type: ignore[index]
    locked = {line.partition("==")[0] for line in lock.read_text().splitlines()}
    assert {"setuptools", "scikit-build-core", "pip", "platformdirs", "cmake", "ninja"} <= names <= locked


def test_the_library_that_is_asked_for_is_the_pinned_one() -> None:
    package, version, _, revision = (ROOT / "patches" / "pin").read_text().split()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"{package}=={version}+{revision}" in asked
