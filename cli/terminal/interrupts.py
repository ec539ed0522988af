"""Ctrl-C: the first asks the work to stop, the second ends the program, also where a library doesn't come back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class _LastResort:
    """A thread that ends the program where the main one is in a library that doesn't come back: a grammar of somebody, say.

    Python runs its handlers between its own steps only; which signal came is written to a pipe at once.
    """

    SECONDS = {signal.SIGINT: 3.0, signal.SIGTERM: 10.0}
    """Between a second Ctrl-C, or a SIGTERM, and the end, if nothing is heard of the main thread."""

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._heard = 0.0
        self._sent: Counter[int] = Counter()
        self._handled: Counter[int] = Counter()
        self._depth = 0  # of works that are watched, one within the other

    def listen(self) -> int:
        """Watch from now on; what `rest` takes."""
        self._depth += 1
        if os.name != "posix":
            return -1
        if self._pipe is None:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            threading.Thread(target=self._watch, name="last-resort", daemon=True).start()
        self.hear()
        if self._depth == 1:
            self._sent.clear()
            self._handled.clear()
        return signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)

    def rest(self, before: int) -> None:
        """Watch no longer."""
        self._depth -= 1
        self.hear()
        if os.name == "posix":
            signal.set_wakeup_fd(before)

    def hear(self, number: int | None = None) -> None:
        """The main thread lives; it has handled signal `number`."""
        self._heard = time.monotonic()
        if number is not None:
            self._handled[number] += 1

    def _watch(self) -> None:
        assert self._pipe is not None
        interrupts, came = 0, 0.0
        while number := os.read(self._pipe[0], 1):
            if number[0] not in self.SECONDS:
                continue
            interrupts = 0 if self._lives(came, number[0]) else interrupts
            came = time.monotonic()
            self._sent[number[0]] += 1
            interrupts += number[0] == signal.SIGINT
            if number[0] == signal.SIGTERM or interrupts > 1:
                self._wait(came, signal.Signals(number[0]))

    def _lives(self, came: float, number: int) -> bool:
        """Whether the main thread was heard since the signal came. Its handler may have run before this thread saw the signal."""
        return self._heard > came or self._handled[number] >= self._sent[number]

    def _wait(self, came: float, number: signal.Signals) -> None:
        while self._depth and not self._lives(came, number):
            if time.monotonic() > came + self.SECONDS[number]:
                self._leave(128 + number)
            time.sleep(0.02)

    def _leave(self, code: int) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # the cursor, if a drawing hid it
        os._exit(code)


_last_resort = _LastResort()


class StopOnInterrupt:
    """While active, the first Ctrl-C asks the work to stop; a second one before it has stopped leaves with 130.

    Within another one it starts as that one stands: what was stopped before it began doesn't begin.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> StopOnInterrupt:
        self.requested = False
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        outer = getattr(self._previous, "__self__", None)
        self.requested |= isinstance(outer, StopOnInterrupt) and outer.requested
        self._watched = _last_resort.listen()
        return self

    def __exit__(self, *_: object) -> None:
        _last_resort.rest(self._watched)
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        _last_resort.hear(number)
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __call__(self) -> bool:
        _last_resort.hear()
        return self.requested


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt here, even in a program that a shell started in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
