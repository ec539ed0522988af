"""A library that doesn't come back is left by a second Ctrl-C, and by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from selfextend_cli.terminal import interrupts

pytestmark = pytest.mark.process

# The lock of a mutex that is locked: signals don't end it, and Python's handlers don't run.
STUCK = """
import ctypes, sys
from selfextend_cli.summarize.command import StopOnSignals

mutex = ctypes.create_string_buffer(256)
lock = ctypes.CDLL(None).pthread_mutex_lock
with StopOnSignals() as stop:
    lock(mutex)
    print("stuck", flush=True)
    lock(mutex)
"""

BUSY = """
import sys, time
from selfextend_cli.summarize.command import StopOnSignals

with StopOnSignals() as stop:
    print("busy", flush=True)
    while not stop():
        time.sleep(0.01)
    time.sleep(12)
print("done", flush=True)
"""


def started(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    return process


def wait_until_locked(process: subprocess.Popen[str]) -> None:
    """The main thread was heard of for the last time: it said that it is stuck, and sleeps."""
    state = Path(f"/proc/{process.pid}/stat")
    if not state.exists():
        time.sleep(5)
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)])
def test_a_library_that_hangs_is_left(signals: list[signal.Signals], code: int) -> None:
    process = started(STUCK)
    wait_until_locked(process)
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.5)
    assert process.wait(timeout=600) == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_stops_slowly_is_waited_for(number: signal.Signals) -> None:
    process = started(BUSY)
    os.kill(process.pid, number)
    assert process.wait(timeout=600) == 0
    assert process.stdout is not None and process.stdout.read() == "done\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_that_ran_before_the_watching_thread_saw_the_signal_was_heard(number: signal.Signals) -> None:
    last = interrupts._LastResort()
    last.listen()
    try:
        last.hear(number)
        last._sent[number] += 1
        came = time.monotonic()
        assert last._lives(came, number)
        last._sent[number] += 1
        assert not last._lives(came, number)
    finally:
        last.rest(-1)
