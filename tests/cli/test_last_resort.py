"""A library that doesn't come back is left by a second Ctrl-C, and by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

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


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)])
def test_a_library_that_hangs_is_left(signals: list[signal.Signals], code: int) -> None:
    process = started(STUCK)
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
