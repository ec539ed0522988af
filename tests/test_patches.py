"""The patch series is whole: files, headers, index, and every diff fits the pinned source exactly."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

PATCHES = Path(__file__).resolve().parent.parent / "patches"
sys.path.insert(0, str(PATCHES))

from backend.pin import read_pin  # noqa: E402
from backend.sdist import SDIST_VARIABLE, local_sdist  # noqa: E402
from backend.series import Patch, read_patch, read_series, series_names  # noqa: E402
from devel import lint  # noqa: E402
from devel.repository import canonical_bodies as bodies_of  # noqa: E402

NAMES = series_names(PATCHES)


@pytest.fixture(scope="session")
def canonical_bodies(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """Body of every patch as git writes it from the pinned source, which this machine must hold."""
    pin = read_pin(PATCHES / "pin")
    sdist = local_sdist(pin)
    if sdist is None:
        pytest.skip(
            f"{pin.sdist_name} is not on this machine: build once with pip install ./patches, or set {SDIST_VARIABLE}"
        )
    return bodies_of(PATCHES, pin, sdist, tmp_path_factory.mktemp("series"))


def test_series_and_files_agree() -> None:
    assert lint.check_files(PATCHES) == []


@pytest.mark.parametrize("name", NAMES)
def test_header_is_complete(name: str) -> None:
    assert lint.check_header(read_patch(PATCHES / name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_named_tests_exist(name: str) -> None:
    patch = read_patch(PATCHES / name)
    assert patch.tested_by
    assert lint.check_tests(patch, PATCHES.parent) == []


def test_each_own_source_belongs_to_a_patch() -> None:
    assert lint.check_own(PATCHES, read_series(PATCHES)) == []


def test_index_is_complete() -> None:
    assert lint.check_index(PATCHES, read_series(PATCHES)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_applies_exactly_and_regenerates_identically(name: str, canonical_bodies: Mapping[str, bytes]) -> None:
    assert canonical_bodies[name] == read_patch(PATCHES / name).body


def test_lint_reports_an_incomplete_header() -> None:
    patch = Patch("0001-x.patch", b"", {"Subject": "x", "Origin": "us", "Retire-When": "TODO"}, b"", ())
    assert lint.check_header(patch) == [
        "0001-x.patch has no Forwarded; write it into the header.",
        "0001-x.patch has no Retire-When; write it into the header.",
        "0001-x.patch has no Tested-By; write it into the header.",
    ]


def test_lint_reports_a_test_that_does_not_exist() -> None:
    here = "tests/test_patches.py"
    header = {"Tested-By": f"{here}::test_no_such, {here}::test_index_is_complete, {here}\ntests/nowhere.py::test_x"}
    problems = lint.check_tests(Patch("0001-x.patch", b"", header, b"", ()), PATCHES.parent)
    assert [problem.split(",")[0] for problem in problems] == [
        f"0001-x.patch is Tested-By {here}::test_no_such",
        "0001-x.patch is Tested-By tests/nowhere.py::test_x",
    ]


def test_lint_reports_a_stray_patch(tmp_path: Path) -> None:
    (tmp_path / "series").write_text("0002-b.patch\n")
    for name in ("0002-b.patch", "0003-c.patch"):
        (tmp_path / name).write_text("")
    assert lint.check_files(tmp_path) == [
        "0003-c.patch is not in patches/series; add it there or delete it.",
        "0002-b.patch is number 1 of patches/series; rename it to 0001-....",
    ]
