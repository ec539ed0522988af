"""A short run of each fuzzer; `make fuzz` runs longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fuzz
import pytest

pytestmark = [pytest.mark.native, pytest.mark.process]


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_no_mutant_is_a_fault(target: str) -> None:
    # In a process of its own: the fuzzers fork, and a fork of a process with OpenMP's threads hangs.
    command = [sys.executable, str(Path(fuzz.__file__)), target, "--count", "40", "--seed", "7", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
