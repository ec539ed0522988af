"""A short run of each fuzzer over mutants that are always the same, and a minute of each over others every day.

`make fuzz` runs longer; SELFEXTEND_FUZZ_SECONDS=5 in the environment makes the minute shorter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the fuzzers fork", allow_module_level=True)

import fuzz

pytestmark = [pytest.mark.native, pytest.mark.process]


def run(target: str, *arguments: str) -> str:
    """What the fuzzer says. In a process of its own: the fuzzers fork, and a fork of a process with OpenMP's threads hangs."""
    command = [sys.executable, str(Path(fuzz.__file__)), target, "--jobs", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{' '.join(command)}"
    return done.stdout


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_no_mutant_is_a_fault(target: str) -> None:
    assert f"{target}: 40 mutants" in run(target, "--count", "40", "--seed", "7")


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_minute_finds_no_fault(target: str) -> None:
    seconds, seed = os.environ.get("SELFEXTEND_FUZZ_SECONDS", "60"), str(date.today().toordinal())
    said = run(target, "--count", "1000000", "--seconds", seconds, "--seed", seed)
    print(said, end="")
    assert f"{target}: 0 mutants" not in said
