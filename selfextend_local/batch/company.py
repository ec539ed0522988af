"""Items that one model answers side by side. What goes wrong with one is its own failure.

Must not know where items come from, nor where results go.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from selfextend_local.batch.answering import Patience, late, whole_prompt, whole_summary
from selfextend_local.batch.job import Job
from selfextend_local.batch.outcome import Failure, failure
from selfextend_local.batch.runner import Finished, Read
from selfextend_local.completion import Progress, ShouldStop
from selfextend_local.errors import Interrupted
from selfextend_local.summarize import Summary
from selfextend_local.together import Together


@dataclass(frozen=True)
class _Guest:
    read: Read
    patience: Patience
    begun: float

    def finished(self, outcome: Summary | Failure) -> Finished:
        summary = outcome if isinstance(outcome, Summary) else None
        spent = summary.usage.prefill_s + summary.usage.decode_s if summary else time.monotonic() - self.begun
        return Finished(self.read.item, outcome, self.read.title, self.read.seconds + spent)


class Company:
    """Items under way; each leaves when its answer is complete."""

    def __init__(self, job: Job, together: Together) -> None:
        self._job = job
        self._together = together
        self._guests: dict[int, _Guest] = {}

    def __bool__(self) -> bool:
        """Whether any item is under way."""
        return bool(self._guests)

    def takes(self, tokens: int) -> bool:
        """Whether an item of that many tokens may join."""
        return self._together.takes(tokens)

    def join(self, read: Read, progress: Progress, should_stop: ShouldStop) -> list[Finished]:
        """Read an item into the model, for later steps to answer; the item itself if that failed. Raises Interrupted."""
        assert not isinstance(read.material, Failure)
        guest = _Guest(read, Patience(self._job.limits.answer_s, should_stop), time.monotonic())
        try:
            prompt, sampling = whole_prompt(self._job, read.material)
            seat = self._together.begin(prompt, sampling, progress=progress, should_stop=guest.patience)
        except Interrupted:
            if not guest.patience.is_over:
                raise
            return [guest.finished(late(self._job.limits))]
        except Exception as error:  # One item's failure must not be the end of the others.
            return [guest.finished(failure(error))]
        self._guests[seat] = guest
        return []

    def step(self) -> list[Finished]:
        """Write a token of each answer; the items that are done with it. Raises Interrupted."""
        done = self._out_of_patience()
        try:
            complete = self._together.step()
        except Exception as error:  # The failure of all under way must not be that of those to come.
            return done + [self._dropped(seat, failure(error)) for seat in list(self._guests)]
        for seat, answer in complete:
            guest = self._guests.pop(seat)
            assert not isinstance(guest.read.material, Failure)
            done.append(guest.finished(whole_summary(answer, self._job, guest.read.material)))
        return done

    def _out_of_patience(self) -> list[Finished]:
        done = []
        for seat, guest in list(self._guests.items()):
            if guest.patience():
                if not guest.patience.is_over:
                    raise Interrupted("Stopped while answers were written; they are dropped.", 0)
                done.append(self._dropped(seat, late(self._job.limits)))
        return done

    def _dropped(self, seat: int, why: Failure) -> Finished:
        self._together.drop(seat)
        return self._guests.pop(seat).finished(why)

    def close(self) -> None:
        """Free what it took; those under way are lost."""
        self._together.close()
