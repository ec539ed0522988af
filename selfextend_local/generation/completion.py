"""One prompt in, one answer out: what a summariser asks of a model, and a loaded model that does it.

The beginning that many prompts share is evaluated once and kept, and an answer doesn't depend on which prompts came
before. Knows tokens and sampling. Must not know documents, files or the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from selfextend_local.errors import ContextOverflow, Interrupted

from .chat_template import Role
from .prompts import ModelVocabulary, Prompts, TokenMemo
from .sampling import Sampling
from .stream import Writing, stream

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.positions import GroupAttention, GroupForm

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages as (role, text); the first `shared` characters of the last one stand in other prompts too."""

    messages: tuple[tuple[Role, str], ...]
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer and what it took. `cached_tokens` of the prompt were in the cache already; times in seconds."""

    text: str
    finish: Finish
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float = 0.0
    decode_s: float = 0.0
    ga_n: int = 1
    ga_w: int = 0
    ga_mode: GroupForm = "two-level"


class Sizes(Protocol):
    """How long texts are for a model, in tokens."""

    def size(self, prompt: Prompt) -> int:
        """Of a prompt."""

    def count(self, text: str) -> int:
        """Of a text."""


class TextModel(Sizes, Protocol):
    """A model that answers prompts: loaded here, or behind a server."""

    @property
    def capacity(self) -> int:
        """Tokens of a prompt and its answer together."""

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Completion:
        """Raises ContextOverflow and Interrupted."""


class LocalModel:
    """A loaded model as a TextModel; nobody else may use it meanwhile."""

    def __init__(self, llm: SelfExtendLlama, memo: TokenMemo | None = None) -> None:
        self._llm = llm
        self.prompts = Prompts(ModelVocabulary(llm), memo or TokenMemo())
        self.warning = self.prompts.warning

    @property
    def capacity(self) -> int:
        return self._llm.capacity

    def count(self, text: str) -> int:
        return self.prompts.count(text)

    def size(self, prompt: Prompt) -> int:
        return len(self.tokens(prompt))

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Completion:
        tokens = self.tokens(prompt)
        writing = self.writing(sampling, len(tokens), self.capacity)
        expect = min(self.capacity, len(tokens) + sampling.max_tokens)
        started = time.perf_counter()
        prefix = self.shared(prompt, tokens)
        kept = self._llm.restart(prefix, expect=expect) if prefix else 0
        done = self._llm.prefill(tokens, progress=progress, should_stop=should_stop, expect=expect)
        read = time.perf_counter()
        for _ in stream(self._llm, tokens, writing, should_stop):
            pass
        if not writing.is_over:
            raise Interrupted("Stopped while writing the answer; it is dropped.", int(self._llm.n_tokens))
        cached = kept if prefix else done.n_reused
        return completed(writing, len(tokens), cached, read - started, time.perf_counter() - read, self._llm.group_attention)

    def tokens(self, prompt: Prompt) -> list[int]:
        """The prompt as the model reads it."""
        return self.prompts.tokens([self.prompts.message(role, text) for role, text in prompt.messages])

    def writing(self, sampling: Sampling, n_prompt: int, capacity: int) -> Writing:
        """An answer to a prompt of `n_prompt` tokens, yet to be drawn. Raises ContextOverflow."""
        if n_prompt >= capacity:
            raise ContextOverflow(f"The prompt has {n_prompt:,} tokens and the context holds {capacity:,}.", n_prompt, capacity)
        return Writing(self._llm, self.prompts, sampling, capacity - n_prompt)

    def shared(self, prompt: Prompt, tokens: list[int]) -> list[int]:
        """The tokens that every prompt with the same beginning starts with."""
        *before, (role, text) = prompt.messages
        # Two continuations with nothing in common show where the shared tokens end.
        twins = [self.tokens(Prompt((*before, (role, text[: prompt.shared] + other)))) for other in ("Zq", "7")]
        for index, (a, b, c) in enumerate(zip(tokens[:-1], *twins, strict=False)):
            if not a == b == c:
                return tokens[:index]
        return []


def completed(
    writing: Writing, prompt_tokens: int, cached_tokens: int, prefill_s: float, decode_s: float, group: GroupAttention
) -> Completion:
    """What was written, and what it took."""
    finish: Finish = "stop" if writing.stop_reason == "stop" else "length"
    counts = prompt_tokens, cached_tokens, len(writing.tokens)
    return Completion(writing.text, finish, *counts, prefill_s, decode_s, group.n, group.w, group.mode)
