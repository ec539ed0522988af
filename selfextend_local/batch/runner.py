"""What carries items out: the form that all runners share, and the one that uses this machine.

Reading goes ahead of the model, in processes of its own. Knows the order of the work. Must not know the results file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from selfextend_local.batch.engine import Engine, Material
from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job, Limits, fingerprint
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.reader import read
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


def read_ahead(
    items: Sequence[Item], limits: Limits, should_stop: ShouldStop, *, readers: int = READERS, window: int = _WINDOW
) -> Iterator[Read]:
    """The items in order, each with its document, of which up to `window` are read before they are asked for."""
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        waiting: deque[Future[Read]] = deque()
        rest = iter(items)
        try:
            while True:
                while len(waiting) < window and (item := next(rest, None)):
                    waiting.append(pool.submit(_read, item, limits, should_stop))
                if not waiting or should_stop():
                    return
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(item: Item, limits: Limits, should_stop: ShouldStop) -> Read:
    started = time.monotonic()
    found: Material | Failure = item.problem or item.body or {}
    if item.path is not None:
        found = read(item.path, limits, should_stop)
    return Read(item, found, time.monotonic() - started)


class LocalRunner:
    """One model on this machine, one item at a time.

    Raises what Engine raises.
    """

    def __init__(self, job: Job, *, readers: int = READERS) -> None:
        self._job = job
        self._readers = readers
        self._watcher = Watcher()
        self.fingerprint = fingerprint(job.model.path)
        self.engine = Engine(job, on_load=lambda plan: self._watcher.say(plan))
        self.model_name = self.engine.name

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        self._watcher = watcher
        if self.engine.warning:
            watcher.say(f"warning: {self.engine.warning}")
        # Short ones first: results come early, the context grows at most a few times, and similar lengths share a group size.
        ordered = sorted(items, key=lambda item: item.size)
        ahead = read_ahead(ordered, self._job.limits, should_stop, readers=self._readers, window=2 * _WINDOW)
        while window := list(islice(ahead, _WINDOW)):
            yield from self._window(window, watcher, should_stop)

    def _window(self, window: Sequence[Read], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        needs = []
        for got in window:
            if not isinstance(got.material, Failure):
                needs.append((self.engine.need(got.material), got.material, got))
            elif not should_stop():
                yield Finished(got.item, got.material, seconds=got.seconds)
        needs.sort(key=lambda entry: entry[0])
        if needs:
            self.engine.make_room(needs[-1][0])
        for tokens, material, got in needs:
            if should_stop():
                return
            watcher.begin(got.item, tokens)
            started = time.monotonic()
            try:
                outcome = self.engine.run(material, watcher.progress, should_stop)
            except Interrupted:
                return
            yield Finished(got.item, outcome, got.title, got.seconds + time.monotonic() - started)

    def close(self) -> None:
        self.engine.close()
