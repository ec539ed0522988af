"""What a person sees: progress on stderr, the answer on stdout, and Ctrl-C.

Knows terminals. It knows no models and no documents. rich is imported only when a bar is drawn.
"""

from __future__ import annotations

import io
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

Update = Callable[[int, int], None]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_A_BAR = 0.5


def say(text: str) -> None:
    """A line on stderr."""
    click.echo(visible(text), err=True)


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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
        expand=False,
    )
    task: Any = None
    started = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal task
        elapsed = time.monotonic() - started
        if task is None:
            if done >= total:
                return
            task = bar.add_task(label, total=total, amount="")
            bar.start()
        speed = f" {done / elapsed:,.0f}/s" if done else ""
        bar.update(task, completed=done, total=total, amount=f"{done:,}/{total:,} {unit}{speed}")

    try:
        yield update
    finally:
        bar.stop()


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
