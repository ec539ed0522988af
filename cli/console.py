"""What a person sees: progress on stderr, the answer on stdout, and Ctrl-C.

Knows terminals. It knows no models and no documents.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

import click

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

Update = Callable[[int, int], None]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_A_BAR = 0.5
_SLOW_TOTAL = 1000


def say(text: str) -> None:
    """A line on stderr."""
    click.echo(visible(text), err=True)


def mutter(text: str) -> None:
    """A line on stderr that matters less: dim where that can be shown."""
    click.echo(f"\x1b[2m{visible(text)}\x1b[22m" if draws(sys.stderr) else visible(text), err=True)


def say_drawn(line: str) -> None:
    """A line on stderr that we have drawn ourselves, colours and all."""
    click.echo(line, err=True, color=True)


def columns() -> int:
    """Width of the terminal."""
    return shutil.get_terminal_size().columns


def draws(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes colours and cursor movements, and whose user wants them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") not in ("dumb", "")


@contextmanager
def progress(label: str, unit: str = "tokens", *, quiet: bool = False) -> Iterator[Update]:
    """A bar with speed and time left on a terminal, a line every few seconds elsewhere; nothing for quick work."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(label, unit) as update:
            yield update
    else:
        yield _lines(label, unit)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Update]:
    started = time.monotonic()

    def update(done: int, total: int) -> None:
        elapsed = time.monotonic() - started
        if done < total and (done or elapsed > _SECONDS_BEFORE_A_BAR or total > _SLOW_TOTAL):
            _draw(progress_line(label, unit, done, total, elapsed, columns()))

    with keys_unseen():
        try:
            yield update
        finally:
            _draw("")


def _draw(line: str) -> None:
    # The cursor stays at the line's beginning: a window that gets narrower then still erases all of it.
    sys.stderr.write(f"\r\x1b[J{line}\r" if os.environ.get("TERM") != "dumb" else f"\r{line}")
    sys.stderr.flush()


def progress_line(label: str, unit: str, done: int, total: int, elapsed: float, columns: int) -> str:
    """As much of label, bar, percentage, amount, speed and time left as fits `columns`; the first to go is the bar, and
    the time left stays."""
    speed = f"{done / elapsed:,.0f}/s" if done and elapsed > 0 else ""
    left = f"{_duration(elapsed * (total - done) / done)} left" if done else ""
    percent, amount = f"{100 * done / total if total else 0:3.0f}%", f"{done:,}/{total:,} {unit}"
    drawn = round(20 * done / total) if total else 0
    bar = "█" * drawn + "░" * (20 - drawn)
    for parts in ([label, bar, percent, amount, speed, left], [label, percent, amount, speed, left], [label, percent, speed, left]):
        line = " ".join(filter(None, parts))
        if len(line) < columns:
            return line
    return " ".join(filter(None, [percent, left]))[: columns - 1]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def keys_unseen() -> Iterator[None]:
    """Keys pressed meanwhile aren't echoed into what is being drawn; they wait for the next prompt. Ctrl-C works."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def _lines(label: str, unit: str) -> Update:
    started = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = (now - started) * (total - done) / max(1, done)
            say(f"{label}: {done:,} of {total:,} {unit}, {left:,.0f} s left")

    return update


_DIRECTION_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """`text` with what drives a terminal shown instead of obeyed: control characters, escape sequences, changes of the
    writing direction. Line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or not _drives(c) else c.encode("unicode_escape").decode() for c in text)


def _drives(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _DIRECTION_OVERRIDES


def harmless_streams() -> None:
    """Characters that stdout or stderr can't encode become question marks instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_answer(piece: str) -> None:
    """A piece of the answer on stdout, harmless to a terminal."""
    sys.stdout.write(visible(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


class StopOnInterrupt:
    """While active, the first Ctrl-C asks the work to stop; a second one before it has stopped leaves with 130."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> StopOnInterrupt:
        self.requested = False
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __call__(self) -> bool:
        return self.requested
