"""A short run of each fuzzer; `make fuzz` runs longer."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest

pytestmark = [pytest.mark.native, pytest.mark.process]


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_no_mutant_is_a_fault(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")
    ends = fuzz.fuzz(target, 40, 7, tmp_path)
    assert set(ends) <= {"read", "refused"}, ends
