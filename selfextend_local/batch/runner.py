"""What carries items out: the form that all runners share, and the reading, which goes ahead in processes of its own.

Must not know models nor the results file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from selfextend_local.batch.answering import Material
from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Limits
from selfextend_local.batch.outcome import Failure
from selfextend_local.documents import Document
from selfextend_local.generation.completion import ShouldStop
from selfextend_local.summarize import Summary

from .reading import Reading

READERS = 2
WINDOW = 16
"""Documents that are read ahead and then taken in order of their length."""


@dataclass(frozen=True)
class Finished:
    """An item that is done; `seconds` of work on it, reading included."""

    item: Item
    outcome: Summary | Failure
    title: str = ""
    seconds: float = 0.0


class Watcher:
    """Hears how the work goes on; this one ignores it."""

    def start(self, items: Sequence[Item], skipped: int) -> None:
        """What there is to do, and how much was done already."""

    def say(self, text: str) -> None:
        """Something that the user should know once."""

    def begin(self, item: Item, tokens: int) -> None:
        """The model turns to an item; `tokens` of prompt and answer, 0 if unknown."""

    def progress(self, done: int, total: int) -> None:
        """Tokens of the current item that the model has read."""


class Runner(Protocol):
    """Carries items out, in any order, each once."""

    @property
    def model_name(self) -> str:
        """As it stands in the results."""

    @property
    def fingerprint(self) -> str:
        """Identifies the model's weights."""

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        """Ends early when `should_stop` says so; what is under way then is dropped."""

    def close(self) -> None:
        """Free everything."""


@dataclass(frozen=True)
class Read:
    """An item with what it holds, or why that can't be had."""

    item: Item
    material: Material | Failure
    seconds: float

    @property
    def title(self) -> str:
        return self.material.title if isinstance(self.material, Document) else ""


class ReadAhead:
    """Reads items while others are answered; who is read first comes first, so that a slow one holds nobody up.

    Use as a context manager. At most `window` items are being read or wait to be taken.
    """

    def __init__(
        self, items: Sequence[Item], limits: Limits, should_stop: ShouldStop, *, readers: int = READERS, window: int = WINDOW
    ) -> None:
        self._rest = iter(items)
        self._caller_stops = should_stop
        self._closed = False
        self._window = window
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._waiting: list[Future[Read]] = []
        self._idle = [Reading(limits) for _ in range(readers)]

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        # Readers under way see this and end within a moment.
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for reader in self._idle:
            reader.close()

    def _should_stop(self) -> bool:
        return self._closed or self._caller_stops()

    def next(self, *, block: bool) -> Read | None:
        """An item that is read. None if none is ready; with `block`, None once all have been taken, or at a stop."""
        while len(self._waiting) < self._window and (item := next(self._rest, None)):
            self._waiting.append(self._pool.submit(self._read, item))
        if block and self._waiting:
            wait(self._waiting, return_when=FIRST_COMPLETED)
        ready = next((future for future in self._waiting if future.done()), None)
        if ready is None or self._should_stop():
            return None
        self._waiting.remove(ready)
        return ready.result()

    def _read(self, item: Item) -> Read:
        started = time.monotonic()
        found: Material | Failure = item.problem or item.body or {}
        if item.path is not None:
            reader = self._idle.pop()
            try:
                found = reader.read(item.path, self._should_stop)
            finally:
                self._idle.append(reader)
        return Read(item, found, time.monotonic() - started)
