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
FIRST = re.compile(r"[a-z0-9.-]+==[0-9][\w.+-]*( ; [\w '.=<>()!*-]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
FROM_SOURCE = {"llama-cpp-python", "selfextend-local"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_package_has_a_version_and_hashes(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert lines and [line for line in lines if not FIRST.fullmatch(line) and not HASH.fullmatch(line)] == []
    assert not any(
        line.endswith("\\") and not following.startswith("    --hash") for line, following in zip(lines, [*lines[1:], ""], strict=True)
    )


def names_in(lock: str) -> set[str]:
    return {line.partition("==")[0] for line in (ROOT / "locks" / lock).read_text().splitlines() if not line.startswith(" ")}


def names_of(asked: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in asked}  # type: ignore[index]


def test_each_dependency_is_locked() -> None:
    """Else: make lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(line for name in ("dask", "eval", "plot", "sample", "serve", "dev") for line in extras[name])]
    assert names_of(asked) - FROM_SOURCE <= names_in("requirements.txt")
    for name in ("clients", "integrations", "docs"):
        assert names_of([*project["dependencies"], *extras[name]]) - FROM_SOURCE <= names_in(f"{name}.txt")


def test_what_builds_is_locked_too() -> None:
    sys.path.insert(0, str(ROOT / "locks"))
    from lock import build_requirements

    names = names_of(build_requirements())
    assert {"setuptools", "scikit-build-core", "pip", "platformdirs", "cmake", "ninja"} <= names <= names_in("build.txt")


def test_other_systems_and_pythons_are_locked() -> None:
    """Windows needs colorama, Python 3.10 tomli and another numpy than 3.13."""
    lines = (ROOT / "locks" / "requirements.txt").read_text().splitlines()
    markers = {line.partition("==")[0]: line.partition(" ; ")[2] for line in lines if not line.startswith(" ")}
    assert "win32" in markers["colorama"] and "3.11" in markers["tomli"]
    assert len([line for line in lines if line.startswith("numpy==")]) > 1


def test_the_library_that_is_asked_for_is_the_pinned_one() -> None:
    package, version, _, revision = (ROOT / "patches" / "pin").read_text().split()
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"{package}=={version}+{revision}" in asked
