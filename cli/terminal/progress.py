"""How far a work is: a bar with speed and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .output import columns, drawing, is_dumb, say, visible

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

Update = Callable[[int, int], None]
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_A_BAR = 0.5
_SLOW_TOTAL = 1000
_SECONDS_BETWEEN_TICKS = 0.5
_INTERVALS_BEFORE_A_TREND = 5


def unseen(done: int, total: int) -> None:
    """An Update that shows nothing."""


@contextmanager
def progress(label: str, unit: str = "tokens", *, quiet: bool = False, deepens: bool = True) -> Iterator[Update]:
    """A bar with speed and time left on a terminal, a line every few seconds elsewhere; nothing for quick work.

    deepens: the work may get slower as it goes on, as reading one text does with its depth.
    """
    if quiet:
        yield unseen
    elif sys.stderr.isatty():
        with _bar(label, unit, deepens) as update:
            yield update
    else:
        yield _lines(label, unit, deepens)


@contextmanager
def _bar(label: str, unit: str, deepens: bool) -> Iterator[Update]:
    with keys_unseen():
        bar = Bar(label, unit, deepens=deepens)
        try:
            yield bar
        finally:
            _draw("")


class Pace:
    """Estimates the time left. Work that `deepens` may get slower as it goes on: the seconds of a unit are taken to grow evenly, by
    as much as a weighted least-squares line through those of all intervals says."""

    def __init__(self, *, deepens: bool = True) -> None:
        self._deepens = deepens
        self._start(0, 0.0)

    def _start(self, done: int, elapsed: float) -> None:
        self._from = (done, elapsed)
        self._done, self._elapsed, self._intervals = 0, 0.0, 0
        self._x = self._xx = self._xy = 0.0  # sums over the units: of the place, its square, place times seconds

    def report(self, done: int, elapsed: float) -> None:
        """`done` units took `elapsed` seconds. Fewer than before: something else has begun."""
        if done < self._from[0] + self._done:
            self._start(done, elapsed)
        done, elapsed = done - self._from[0], elapsed - self._from[1]
        units, seconds = done - self._done, elapsed - self._elapsed
        if units:
            middle = (self._done + done) / 2
            self._x += units * middle
            self._xx += units * middle**2
            self._xy += seconds * middle
            self._done, self._elapsed, self._intervals = done, elapsed, self._intervals + 1

    def left(self, total: int) -> float | None:
        """Seconds from the last report to the end of `total` units; None while nothing is done."""
        if not self._done:
            return None
        mean, place, end = self._elapsed / self._done, self._x / self._done, total - self._from[0]
        growth = 0.0
        if self._deepens and self._intervals >= _INTERVALS_BEFORE_A_TREND:
            spread = self._xx / self._done - place**2
            growth = min(max(0.0, (self._xy / self._done - mean * place) / spread), mean / place)
        return (end - self._done) * (mean + growth * ((end + self._done) / 2 - place))


class Bar:
    """A line that is drawn again at each report, and at each `tick` in between, so that slow work shows that it lives.

    Not rich's: a window that gets narrower wraps that one and leaves its remains, a narrow one squeezes all columns alike instead of
    dropping what matters least, and its time left knows no work that gets slower.
    """

    def __init__(self, label: str, unit: str, *, deepens: bool = True) -> None:
        self._label, self._unit = label, unit
        self._started = self._drawn = time.monotonic()
        self._pace = Pace(deepens=deepens)
        self._reported: tuple[int, int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        elapsed = time.monotonic() - self._started
        self._pace.report(done, elapsed)
        self._reported = (done, total, elapsed) if done < total else None
        if elapsed > _SECONDS_BEFORE_A_BAR or total > _SLOW_TOTAL:
            self._show()

    def tick(self) -> None:
        """Call this as often as you like."""
        if self._reported and time.monotonic() - self._drawn > _SECONDS_BETWEEN_TICKS:
            self._show()

    def clear(self) -> None:
        """Nothing of it is left on the screen, until the next report."""
        _draw("")

    def _show(self) -> None:
        self._drawn = time.monotonic()
        if self._reported:
            done, total, at = self._reported
            left, since = self._pace.left(total), self._drawn - self._started - at
            _draw(progress_line(self._label, self._unit, done, total, at, columns(), left=left, since=since))


def _draw(line: str) -> None:
    # The cursor stays at the line's beginning: a window that gets narrower then still erases all of it.
    terminal = drawing(sys.stderr)
    terminal.write(f"\r\x1b[J{visible(line)}\r" if not is_dumb() else f"\r{visible(line)}")
    terminal.flush()


def progress_line(
    label: str, unit: str, done: int, total: int, elapsed: float, columns: int, *, left: float | None, since: float = 0.0
) -> str:
    """As much of label, bar, percentage, amount, speed and time left as fits `columns`; the first to go is the bar, and
    the time left stays. `elapsed` seconds had passed at this report and `left` were left, if that is known; `since` have passed
    after it."""
    speed = f"{done / elapsed:,.0f}/s" if done and elapsed > 0 else ""
    rest = f"{_duration(elapsed + since)} so far" if left is None else f"{_duration(left - since)} left"
    percent, amount = f"{100 * done / total if total else 0:3.0f}%", f"{done:,}/{total:,} {unit}"
    drawn = round(20 * done / total) if total else 0
    bar = "█" * drawn + "░" * (20 - drawn)
    for parts in ([label, bar, percent, amount, speed, rest], [label, percent, amount, speed, rest], [label, percent, speed, rest]):
        line = " ".join(filter(None, parts))
        if len(line) < columns:
            return line
    return " ".join([percent, rest])[: columns - 1]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def keys_unseen() -> Iterator[None]:
    """Keys pressed meanwhile aren't echoed into what is being drawn; they wait for the next prompt. Ctrl-C works, and
    doesn't throw away what the terminal has yet to show."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = list(before)
    quiet[3] = quiet[3] & ~termios.ECHO | termios.NOFLSH
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _lines(label: str, unit: str, deepens: bool) -> Update:
    started = last = time.monotonic()
    pace = Pace(deepens=deepens)

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        pace.report(done, now - started)
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = pace.left(total)
            say(f"{label}: {done:,} of {total:,} {unit}" + (f", {left:,.0f} s left" if left is not None else ""))

    return update
