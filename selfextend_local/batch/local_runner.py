"""The runner that uses this machine: one model, short items side by side, the others one at a time.

Knows the order of the work. Must not know the results file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from selfextend_local.errors import Interrupted
from selfextend_local.generation.completion import ShouldStop

from .items import Item
from .job import Job, fingerprint
from .outcome import Failure
from .runner import READERS, WINDOW, Finished, Read, ReadAhead, Watcher
from .worker import ModelWorker


class LocalRunner:
    """One model on this machine.

    Raises what ModelWorker raises.
    """

    def __init__(self, job: Job, *, readers: int = READERS) -> None:
        self._job = job
        self._readers = readers
        self._watcher = Watcher()
        self._numbers = itertools.count()
        self._ready: list[tuple[int, int, Read]] = []
        self.fingerprint = fingerprint(job.model.path)
        self.worker = ModelWorker(job, on_load=lambda plan: self._watcher.say(plan))
        self.model_name = self.worker.name

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        self._watcher = watcher
        if self.worker.warning:
            watcher.say(f"warning: {self.worker.warning}")
        # A context for several isn't worth its memory for one.
        self.worker.slots = min(self.worker.slots, len(items))
        # Short ones first: results come early, the context grows at most a few times, and similar lengths share a group size.
        ordered = sorted(items, key=lambda item: item.size)
        with ReadAhead(ordered, self._job.limits, should_stop, readers=self._readers) as ahead:
            while not should_stop():
                yield from self._fetch(ahead)
                if not self._ready and not self.worker.side_by_side:
                    return
                try:
                    done = self._advance(should_stop)
                except Interrupted:
                    return
                yield from done

    def _fetch(self, ahead: ReadAhead) -> Iterator[Finished]:
        """What has been read by now; waits only when there is nothing else to do. Items that can't be read are done."""
        while len(self._ready) < WINDOW and (got := ahead.next(block=not self._ready and not self.worker.side_by_side)):
            if isinstance(got.material, Failure):
                yield Finished(got.item, got.material, seconds=got.seconds)
            else:
                # The number keeps the order of equals, and documents can't be compared.
                heappush(self._ready, (self.worker.need(got.material), next(self._numbers), got))

    def _advance(self, should_stop: ShouldStop) -> list[Finished]:
        """A piece of work: the next item if there is a place for it, else a token of those under way."""
        worker, watcher = self.worker, self._watcher
        if not worker.side_by_side:
            worker.make_room(max(self._ready)[0])
        joins = bool(self._ready) and worker.takes(self._ready[0][0])
        if worker.side_by_side and not joins:
            return worker.side_by_side.step()
        tokens, _, read = heappop(self._ready)
        watcher.begin(read.item, tokens)
        if joins and worker.side_by_side is not None:
            return worker.side_by_side.begin(read, watcher.progress, should_stop)
        started = time.monotonic()
        assert not isinstance(read.material, Failure)
        outcome = worker.run(read.material, watcher.progress, should_stop)
        return [Finished(read.item, outcome, read.title, read.seconds + time.monotonic() - started)]

    def close(self) -> None:
        self.worker.close()
