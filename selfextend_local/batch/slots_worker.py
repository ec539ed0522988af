"""Items that one model answers side by side. What goes wrong with one is its own failure.

Must not know where items come from, nor where results go.
"""

from __future__ import annotations

import time

from selfextend_local.errors import Interrupted
from selfextend_local.generation.completion import Progress, ShouldStop
from selfextend_local.generation.slots import Slots
from selfextend_local.summarize import Summary

from .answering import Patience, late, whole_prompt, whole_summary
from .job import Job
from .outcome import Failure, failure
from .runner import Finished, Read


class SlotsWorker:
    """Items under way; each leaves when its answer is complete."""

    def __init__(self, job: Job, slots: Slots) -> None:
        self._job = job
        self._slots = slots
        self._under_way: dict[int, Read] = {}

    def __bool__(self) -> bool:
        """Whether any item is under way."""
        return bool(self._under_way)

    def takes(self, tokens: int) -> bool:
        """Whether an item of that many tokens may join."""
        return self._slots.takes(tokens)

    def begin(self, read: Read, progress: Progress, should_stop: ShouldStop) -> list[Finished]:
        """Read an item into the model, for later steps to answer; the item itself if that failed. Raises Interrupted."""
        assert not isinstance(read.material, Failure)
        patience = Patience(self._job.limits.answer_s, should_stop)
        started = time.monotonic()
        try:
            prompt, sampling = whole_prompt(self._job, read.material)
            slot = self._slots.begin(prompt, sampling, progress=progress, should_stop=patience)
        except Interrupted:
            if not patience.is_over:
                raise
            return [_finished(read, late(self._job.limits), time.monotonic() - started)]
        except Exception as error:  # One item's failure must not be the end of the others.
            return [_finished(read, failure(error), time.monotonic() - started)]
        self._under_way[slot] = read
        return []

    def step(self) -> list[Finished]:
        """Write a token of each answer; the items that are done with it."""
        try:
            complete = self._slots.step()
        except Exception as error:  # The failure of all under way must not be that of those to come.
            return [self._dropped(slot, failure(error)) for slot in list(self._under_way)]
        done = []
        for slot, answer in complete:
            read = self._under_way.pop(slot)
            assert not isinstance(read.material, Failure)
            done.append(_finished(read, whole_summary(answer, self._job, read.material), answer.prefill_s + answer.decode_s))
        return done + self._out_of_time()

    def _out_of_time(self) -> list[Finished]:
        limits = self._job.limits
        if limits.answer_s is None:
            return []
        # Time that went to others doesn't count.
        return [self._dropped(slot, late(limits)) for slot in list(self._under_way) if self._slots.spent(slot) > limits.answer_s]

    def _dropped(self, slot: int, why: Failure) -> Finished:
        spent = self._slots.spent(slot)
        self._slots.drop(slot)
        return _finished(self._under_way.pop(slot), why, spent)

    def close(self) -> None:
        """Free what it took; those under way are lost."""
        self._slots.close()


def _finished(read: Read, outcome: Summary | Failure, seconds: float) -> Finished:
    return Finished(read.item, outcome, read.title, read.seconds + seconds)
