"""One model on one machine, loaded when it is first needed.

The context is as long as the longest text so far needs, and loaded anew, longer, when a text asks for it. Short items
have places in a second one, where they are answered side by side. Must not know where items come from nor where results go.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from selfextend_local.engine.plan import MEMORY_SHARE
from selfextend_local.errors import MemoryBudgetError, ModelError
from selfextend_local.generation.completion import LocalModel, Progress, Prompt, ShouldStop
from selfextend_local.generation.prompts import PeekVocabulary, Prompts, TokenMemo
from selfextend_local.summarize import Summary

from .answering import Material, carry_out, whole_prompt
from .job import Job
from .outcome import Failure
from .slots_worker import SlotsWorker

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

_SMALLEST_CONTEXT = 2048

SLOTS = 8
"""Items that are answered side by side on a GPU, unless the job says otherwise. On a CPU one at a time is as fast, or faster
where the slots aren't always taken. docs/batch.md has what was measured."""

SLOT_TOKENS = 2048
"""The longest of them, answer included. Of longer ones nearly all the time is prefill, which slots don't speed up."""


class ModelWorker:
    """The local model of a job.

    Args:
        on_load: called with the plan in one line, each time the model is loaded.

    Attributes:
        slots: the most items side by side.
        side_by_side: the slots, once they are open.

    Raises ModelNotFound, ModelError, LibraryError, GroupAttentionError, MemoryBudgetError.
    """

    def __init__(self, job: Job, on_load: Callable[[str], None] | None = None) -> None:
        from selfextend_local.engine.peek import ModelPeek

        self._job = job
        self._on_load = on_load
        self._peek = ModelPeek(job.model.path)
        self.largest = self._largest()
        self.name = self._peek.info.name
        self._memo = TokenMemo()
        prompts = Prompts(PeekVocabulary(self._peek), self._memo)
        self.warning = prompts.warning
        self._sizes = _Sizes(prompts)
        self._llm: SelfExtendLlama | None = None
        self._model: LocalModel | None = None
        self.side_by_side: SlotsWorker | None = None
        self.slots = SLOTS if job.model.together == "auto" else job.model.together
        if job.model.settings.ga_mode == "recall":  # one text a context
            self.slots = 1

    def _largest(self) -> int:
        """Tokens of the longest context that the settings allow and the free memory holds."""
        return self._peek.plan(self._job.model.settings).capacity

    def need(self, material: Material) -> int:
        """Tokens that the context would have to hold to read this item whole. Needs no weights."""
        with suppress(Exception):  # carry_out will say what is wrong
            prompt, sampling = whole_prompt(self._job, material)
            return self._sizes.size(prompt) + sampling.max_tokens
        return 1

    def make_room(self, tokens: int) -> None:
        """Have a context of at least that many tokens, or of the largest size there can be."""
        if self._llm is not None and self._llm.capacity >= min(tokens, self.largest):
            return
        self.unload()
        size = _SMALLEST_CONTEXT
        while size < tokens:
            size *= 2
        try:
            self._load(min(size, self.largest))
        except MemoryBudgetError:
            # Others have taken memory since: what doesn't fit any more is read in parts.
            self.largest = self._largest()
            self._load(min(size, self.largest))

    def _load(self, n_ctx: int) -> None:
        from selfextend_local.engine.llama import SelfExtendLlama

        model = self._job.model
        self._llm = SelfExtendLlama.of(model.path, replace(model.settings, n_ctx=n_ctx))
        self._model = LocalModel(self._llm, self._memo)
        if self._on_load:
            self._on_load(self._llm.plan.describe())

    def run(
        self, material: Material, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Summary | Failure:
        """Raises Interrupted if `should_stop` said so, and what loading the model raises."""
        self.make_room(self.need(material))
        assert self._model is not None
        return carry_out(self._model, self._job, material, progress, should_stop)

    def takes(self, tokens: int) -> bool:
        """Whether an item of that many tokens may be answered beside others. The model must be loaded."""
        if self.side_by_side is None and self.slots > 1 and tokens <= SLOT_TOKENS:
            self._open_slots()
        return self.side_by_side is not None and self.side_by_side.takes(tokens)

    def _open_slots(self) -> None:
        from selfextend_local.engine.machine import free_memory
        from selfextend_local.generation.slots import Slots

        assert self._llm is not None and self._model is not None
        plan = self._llm.plan
        if self._job.model.together == "auto" and not plan.gpu_layers:
            self.slots = 1
            return
        memory = free_memory()
        free = memory.gpu if plan.gpu_layers else memory.host
        slot = SLOT_TOKENS * (plan.kv_bytes or 0) / plan.n_ctx
        self.slots = min(self.slots, int(MEMORY_SHARE * free / max(1, slot)))
        if self.slots > 1:
            try:
                self.side_by_side = SlotsWorker(self._job, Slots(self._llm, self._model, self.slots, SLOT_TOKENS))
            except ModelError:
                self.slots = 1

    def unload(self) -> None:
        """Free the weights and the contexts; what is under way is lost."""
        if self.side_by_side is not None:
            self.side_by_side.close()
            self.side_by_side = None
        if self._llm is not None:
            self._llm.close()
            self._llm, self._model = None, None

    def close(self) -> None:
        self.unload()
        self._peek.close()


class _Sizes:
    """Counts as the model would, from its vocabulary alone."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    def count(self, text: str) -> int:
        return self._prompts.count(text)

    def size(self, prompt: Prompt) -> int:
        return len(self._prompts.tokens([self._prompts.message(role, text) for role, text in prompt.messages]))

