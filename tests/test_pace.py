"""The time left: of even work, of work that gets slower, in spite of noise, and of one thing after another."""

from __future__ import annotations

import random

import pytest
from selfextend_cli.terminal.progress import Pace

STEP, TOTAL = 512, 160 * 512


def seconds(units: int, slope: float) -> float:
    """Of the first `units`, each of which takes 1 ms at the beginning and (1 + slope) ms at TOTAL."""
    return (units + slope * units**2 / (2 * TOTAL)) / 1000


@pytest.mark.parametrize("slope", [0.0, 0.5, 20.0])
def test_work_that_gets_slower_evenly_is_foretold(slope: float) -> None:
    pace = Pace()
    for done in range(STEP, 8 * STEP + 1, STEP):
        pace.report(done, seconds(done, slope))
    assert pace.left(TOTAL) == pytest.approx(seconds(TOTAL, slope) - seconds(8 * STEP, slope))


def test_noise_is_averaged_out() -> None:
    noise, pace, elapsed = random.Random(1), Pace(), 0.0
    for done in range(STEP, TOTAL // 4 + 1, STEP):
        elapsed += (seconds(done, 10.0) - seconds(done - STEP, 10.0)) * noise.uniform(0.8, 1.2)
        pace.report(done, elapsed)
    assert pace.left(TOTAL) == pytest.approx(seconds(TOTAL, 10.0) - seconds(TOTAL // 4, 10.0), rel=0.15)


def test_work_that_gets_faster_is_taken_as_even() -> None:
    pace = Pace()
    for i in range(1, 11):
        pace.report(i, i**0.5)
    assert pace.left(20) == pytest.approx(10**0.5)


def test_many_texts_are_no_slower_at_their_end() -> None:
    """Each begins at depth 0 again, so what the first one's depth cost says nothing about the last."""
    pace = Pace(deepens=False)
    for done in range(STEP, 8 * STEP + 1, STEP):
        pace.report(done, seconds(done, 20.0))
    assert pace.left(16 * STEP) == pytest.approx(seconds(8 * STEP, 20.0))


def test_what_is_left_is_unknown_until_something_is_done() -> None:
    pace = Pace()
    pace.report(0, 3.0)
    assert pace.left(10) is None


def test_another_thing_begins_anew() -> None:
    pace = Pace()
    for i in range(1, 11):
        pace.report(100 * i, 10.0 * i)
    pace.report(0, 100.0)
    assert pace.left(10) is None
    pace.report(1, 101.0)
    assert pace.left(10) == pytest.approx(9.0)
