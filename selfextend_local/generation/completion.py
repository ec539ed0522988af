"""One prompt in, one answer out: what a summariser asks of a model, and a loaded model that does it.

The beginning that many prompts share is evaluated once and kept, and an answer doesn't depend on which prompts came
before. Knows tokens and sampling. Must not know documents, files or the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from selfextend_local import native
from selfextend_local.errors import ContextOverflow, Interrupted, SelfExtendError

from .chat_template import Role
from .prompts import ModelVocabulary, Prompts

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
class Sampling:
    """How an answer is drawn, and where it ends.

    Attributes:
        max_tokens, max_words: the most that is written. An answer that reaches `max_words` ends with its last whole sentence.
        schema: a JSON schema, as text, that the answer has to follow.
        repeat_penalty: above 1, since small models fall into loops in long answers; 1 where a schema is given.
    """

    max_tokens: int = 512
    max_words: int | None = None
    schema: str | None = None
    temperature: float = 0.0
    top_p: float = 0.95
    seed: int = 0
    repeat_penalty: float = 1.1


@dataclass(frozen=True, slots=True)
class Answer:
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
    ) -> Answer:
        """Raises ContextOverflow and Interrupted."""


class LocalModel:
    """A loaded model as a TextModel; nobody else may use it meanwhile."""

    def __init__(self, llm: SelfExtendLlama) -> None:
        self._llm = llm
        self._prompts = Prompts(ModelVocabulary(llm))
        self.warning = self._prompts.warning

    @property
    def capacity(self) -> int:
        return self._llm.capacity

    def count(self, text: str) -> int:
        return self._prompts.count(text)

    def size(self, prompt: Prompt) -> int:
        return len(self.tokens(prompt))

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Answer:
        tokens = self.tokens(prompt)
        writing = self.writing(sampling, len(tokens), self.capacity)
        expect = min(self.capacity, len(tokens) + sampling.max_tokens)
        started = time.perf_counter()
        prefix = self.shared(prompt, tokens)
        kept = self._llm.restart(prefix, expect=expect) if prefix else 0
        done = self._llm.prefill(tokens, progress=progress, should_stop=should_stop, expect=expect)
        read = time.perf_counter()
        self._llm.set_seed(sampling.seed)
        for token in self._llm.generate(tokens, **writing.chain):
            if should_stop and should_stop():
                raise Interrupted("Stopped while writing the answer; it is dropped.", int(self._llm.n_tokens))
            writing.take(token)
            if writing.is_over:
                break
        return writing.answer(kept if prefix else done.n_reused, read - started, time.perf_counter() - read, self._llm.group_attention)

    def tokens(self, prompt: Prompt) -> list[int]:
        """The prompt as the model reads it."""
        return self._prompts.tokens([self._prompts.message(role, text) for role, text in prompt.messages])

    def writing(self, sampling: Sampling, n_prompt: int, capacity: int) -> Writing:
        """An answer to a prompt of `n_prompt` tokens, yet to be drawn. Raises ContextOverflow, SelfExtendError."""
        if n_prompt >= capacity:
            raise ContextOverflow(f"The prompt has {n_prompt:,} tokens and the context holds {capacity:,}.", n_prompt, capacity)
        return Writing(self._llm, self._prompts, sampling, n_prompt, min(sampling.max_tokens, capacity - n_prompt))

    def shared(self, prompt: Prompt, tokens: list[int]) -> list[int]:
        """The tokens that every prompt with the same beginning starts with."""
        *before, (role, text) = prompt.messages
        # Two continuations with nothing in common show where the shared tokens end.
        twins = [self.tokens(Prompt((*before, (role, text[: prompt.shared] + other)))) for other in ("Zq", "7")]
        for index, (a, b, c) in enumerate(zip(tokens[:-1], *twins, strict=False)):
            if not a == b == c:
                return tokens[:index]
        return []


class Writing:
    """One answer in the making: takes tokens until it is over.

    Attributes:
        chain: how the tokens are to be drawn, as arguments of `Llama.generate`.
        is_over: whether it wants no more.
    """

    def __init__(self, llm: SelfExtendLlama, prompts: Prompts, sampling: Sampling, n_prompt: int, limit: int) -> None:
        self._llm = llm
        self._prompts = prompts
        self._sampling = sampling
        self._n_prompt = n_prompt
        self._limit = limit
        self._data = bytearray()
        self._count = 0
        self._finish: Finish = "length"
        self.is_over = False
        self.chain = {
            "temp": sampling.temperature,
            "top_p": sampling.top_p,
            "repeat_penalty": 1.0 if sampling.schema else sampling.repeat_penalty,
            "grammar": grammar_of(sampling.schema),
        }

    def take(self, token: int) -> None:
        """The next token."""
        if token in self._prompts.stop_tokens:
            self._finish, self.is_over = "stop", True
            return
        self._count += 1
        self._data += self._llm.detokenize([token])
        if any(stop.encode() in self._data for stop in self._prompts.stop_texts):
            self._finish, self.is_over = "stop", True
        words = self._sampling.max_words
        too_long = words is not None and not self._sampling.schema and len(self._data.split()) > words
        self.is_over = self.is_over or too_long or self._count >= self._limit

    def answer(self, cached_tokens: int, prefill_s: float, decode_s: float, group: GroupAttention) -> Answer:
        """What was written, and what it took."""
        text = self._data.decode("utf-8", "replace").strip()
        for stop in self._prompts.stop_texts:
            text = text.split(stop.strip())[0].rstrip()
        if self._sampling.max_words is not None and not self._sampling.schema:
            text = within(text, self._sampling.max_words)
        return Answer(text, self._finish, self._n_prompt, cached_tokens, self._count, prefill_s, decode_s, group.n, group.w, group.mode)


def within(text: str, max_words: int) -> str:
    """`text` as it is, or its first `max_words` words less a sentence that was begun there and not ended."""
    words = text.split()
    if len(words) <= max_words:
        return text
    end = 0
    for word in words[:max_words]:
        end = text.index(word, end) + len(word)
    cut = text[:end]
    ends = [i + 1 for i, c in enumerate(cut) if c in ".!?。" and (i + 1 == len(cut) or cut[i + 1].isspace())]
    return cut[: ends[-1]] if ends else cut + " …"


def grammar_of(schema: str | None) -> Any:
    """The grammar of a JSON schema, None for None. Raises SelfExtendError."""
    if schema is None:
        return None
    from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

    try:
        rules = json_schema_to_gbnf(schema)
    except Exception as error:  # A schema can be wrong in any way, and the converter's errors have no common type.
        raise SelfExtendError(f"The JSON schema can't be used ({error}): simplify it.") from error
    # The sampler would take a grammar that doesn't compile for none, and crash.
    if not native.grammar_compiles(rules):
        raise SelfExtendError("The JSON schema can't be used (it allows nothing, or too much for a grammar): simplify it.")
    return LlamaGrammar.from_string(rules, verbose=False)
