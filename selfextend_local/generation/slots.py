"""Several prompts answered side by side by one model: read one after the other, then written a token each at a time.

Each has a KV cache of its own, and every step computes all slots, taken or not: so kernels and cells are the same whatever
the others are, and an answer doesn't depend on the others. Only the plain model: group attention needs one cache for all.
Must not know documents, files or the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfextend_local import native
from selfextend_local.errors import Interrupted

from .completion import Completion, LocalModel, Progress, Prompt, ShouldStop, completed
from .sampling import Sampling
from .stream import Writing

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.engine.repeats import Repeats
    from selfextend_local.positions import GroupAttention


@dataclass
class _Slot:
    """A prompt that is read and its answer in the making; `token` is drawn and not yet evaluated."""

    writing: Writing
    sampler: Any
    repeats: Repeats
    group: GroupAttention
    n_prompt: int
    cached: int
    prefill_s: float
    decode_s: float = 0.0
    token: int = 0

    def take(self, token: int) -> None:
        self.token = token
        self.writing.take(token)

    def completion(self) -> Completion:
        return completed(self.writing, self.n_prompt, self.cached, self.prefill_s, self.decode_s, self.group)


class Slots:
    """A loaded model with `slots` for prompts of up to `capacity` tokens, answers included.

    Raises ModelError if there can't be such a context.
    """

    def __init__(self, llm: SelfExtendLlama, model: LocalModel, slots: int, capacity: int) -> None:
        self.capacity = capacity
        self._llm = llm
        self._model = model
        self._sequences = native.Sequences(llm._model.model, llm.context_params, slots, capacity)
        self._taken: dict[int, _Slot] = {}
        self._prefixes: list[list[int]] = [[] for _ in range(slots)]  # what each sequence begins with, and may keep
        self._lengths = [0] * slots

    def takes(self, tokens: int) -> bool:
        """Whether a slot is free, and right for a text of that many tokens, its answer included."""
        fits = tokens <= self.capacity and not self._llm.group_attention_for(tokens).enabled
        return fits and len(self._taken) < len(self._prefixes)

    def begin(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> int:
        """Read a prompt that `takes` has a slot for; the number of the slot. Raises ContextOverflow, Interrupted."""
        tokens = self._model.tokens(prompt)
        writing = self._model.writing(sampling, len(tokens), self.capacity)
        slot = next(i for i in range(len(self._prefixes)) if i not in self._taken)
        started = time.perf_counter()
        prefix = self._model.shared(prompt, tokens)
        cached = len(prefix) if self._has(slot, prefix) else 0
        # The prefix by itself, so that what follows is cut into the same micro-batches whether it was there or not.
        for start, end in ((0, len(prefix)), (len(prefix), len(tokens))):
            if start >= cached:
                self._read(slot, tokens[:end], start, len(tokens), progress, should_stop)
        self._prefixes[slot] = prefix
        self._llm.set_seed(sampling.seed)
        sampler, repeats = self._llm.sampler(**sampling.chain())
        group = self._llm.group_attention_for(len(tokens))
        taken = _Slot(writing, sampler, repeats, group, len(tokens), cached, time.perf_counter() - started)
        taken.take(self._drawn(taken, -1))
        self._taken[slot] = taken
        return slot

    def _has(self, slot: int, prefix: list[int]) -> bool:
        """Bring a sequence to exactly `prefix` if it or another one begins with it; else to nothing."""
        source = next((i for i in (slot, *range(len(self._prefixes))) if self._prefixes[i] == prefix), None)
        self._prefixes[slot] = []
        kept = bool(prefix) and source is not None and self._llm.can_roll_back and self._brought(source, slot)
        if kept and self._sequences.forget(slot, len(prefix)):
            self._lengths[slot] = len(prefix)
            return True
        self._sequences.forget(slot, 0)
        self._lengths[slot] = 0
        return False

    def _brought(self, source: int, slot: int) -> bool:
        if source == slot:
            return True
        self._sequences.forget(slot, 0)
        return self._sequences.copy(source, slot)

    def _read(
        self, slot: int, tokens: Sequence[int], start: int, total: int, progress: Progress | None, should_stop: ShouldStop | None
    ) -> None:
        with native.abort_when(self._sequences.context, should_stop or _never):
            for place in range(start, len(tokens), self._llm.n_batch):
                if progress:
                    progress(place, total)
                if should_stop and should_stop():
                    raise Interrupted("Stopped while reading; it is dropped.", place)
                chunk = tokens[place : place + self._llm.n_batch]
                status = self._sequences.read(slot, chunk, place)
                if status is native.DecodeStatus.ABORTED:
                    raise Interrupted("Stopped while reading; it is dropped.", place)
                if status is not native.DecodeStatus.OK:
                    raise native.decode_error(status, place, self.capacity)
                self._lengths[slot] = place + len(chunk)
        if progress:
            progress(len(tokens), total)

    def step(self) -> list[tuple[int, Completion]]:
        """Write a token of each answer under way; the answers that are complete, whose slots are free then.

        Raises ModelError: none of them can go on.
        """
        going = {slot: taken for slot, taken in self._taken.items() if not taken.writing.is_over}
        if going:
            self._write(going)
        complete = [(slot, taken.completion()) for slot, taken in self._taken.items() if taken.writing.is_over]
        for slot, _ in complete:
            self.drop(slot)
        return complete

    def _write(self, going: Mapping[int, _Slot]) -> None:
        started = time.perf_counter()
        tokens = [(slot, going[slot].token if slot in going else 0, length) for slot, length in enumerate(self._lengths)]
        status = self._sequences.step(tokens)
        if status is not native.DecodeStatus.OK:
            raise native.decode_error(status, max(self._lengths), self.capacity)
        for slot, taken in going.items():
            taken.take(self._drawn(taken, slot))
        for slot, length in enumerate(self._lengths):
            if slot in going:
                self._lengths[slot] += 1
            elif not self._sequences.forget(slot, length):
                self._has(slot, [])
        share = (time.perf_counter() - started) / len(going)
        for taken in going.values():
            taken.decode_s += share

    def _drawn(self, taken: _Slot, row: int) -> int:
        return taken.repeats.drawn(self._sequences.draw(taken.sampler.sampler, row, taken.repeats.costs()))

    def spent(self, slot: int) -> float:
        """Seconds of work on a slot: its prefill, and its share of the steps."""
        return self._taken[slot].prefill_s + self._taken[slot].decode_s

    def drop(self, slot: int) -> None:
        """Free a slot, whether its answer is complete or not."""
        self._taken.pop(slot).sampler.close()
        prefix = self._prefixes[slot]
        if self._has(slot, prefix):
            self._prefixes[slot] = prefix

    def close(self) -> None:
        """Free the context; the model stays."""
        for slot in list(self._taken):
            self.drop(slot)
        self._sequences.close()


def _never() -> bool:
    return False
