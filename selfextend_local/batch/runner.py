"""What carries items out: the form that all runners share, and the one that uses this machine.

Reading goes ahead of the model, in processes of its own. Knows the order of the work. Must not know the results file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from selfextend_local.batch.engine import Engine, Material
from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job, Limits, fingerprint
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.reader import Reader
from selfextend_local.completion import ShouldStop
from selfextend_local.documents import Document
from selfextend_local.errors import Interrupted
from selfextend_local.summarize import Summary

READERS = 2
_WINDOW = 16
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
        self, items: Sequence[Item], limits: Limits, should_stop: ShouldStop, *, readers: int = READERS, window: int = _WINDOW
    ) -> None:
        self._rest = iter(items)
        self._caller_stops = should_stop
        self._closed = False
        self._window = window
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
        self._waiting: list[Future[Read]] = []
        self._idle = [Reader(limits) for _ in range(readers)]

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


class LocalRunner:
    """One model on this machine, one item at a time.

    Raises what Engine raises.
    """

    def __init__(self, job: Job, *, readers: int = READERS) -> None:
        self._job = job
        self._readers = readers
        self._watcher = Watcher()
        self._numbers = itertools.count()
        self.fingerprint = fingerprint(job.model.path)
        self.engine = Engine(job, on_load=lambda plan: self._watcher.say(plan))
        self.model_name = self.engine.name

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        self._watcher = watcher
        if self.engine.warning:
            watcher.say(f"warning: {self.engine.warning}")
        # Short ones first: results come early, the context grows at most a few times, and similar lengths share a group size.
        ordered = sorted(items, key=lambda item: item.size)
        ready: list[tuple[int, int, Material, Read]] = []
        with ReadAhead(ordered, self._job.limits, should_stop, readers=self._readers) as ahead:
            while not should_stop():
                while len(ready) < _WINDOW and (got := ahead.next(block=not ready)):
                    if isinstance(got.material, Failure):
                        yield Finished(got.item, got.material, seconds=got.seconds)
                    else:
                        # The number keeps the order of equals, and documents can't be compared.
                        heappush(ready, (self.engine.need(got.material), next(self._numbers), got.material, got))
                if not ready:
                    return
                self.engine.make_room(max(ready)[0])
                tokens, _, material, got = heappop(ready)
                watcher.begin(got.item, tokens)
                started = time.monotonic()
                try:
                    outcome = self.engine.run(material, watcher.progress, should_stop)
                except Interrupted:
                    return
                yield Finished(got.item, outcome, got.title, got.seconds + time.monotonic() - started)

    def close(self) -> None:
        self.engine.close()
