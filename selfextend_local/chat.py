"""A conversation with a model about documents.

Knows the order of a turn: build the prompt, prefill, sample, remember. The history changes only when an answer has
begun, so a refused or interrupted question leaves no trace. Must not know the terminal, and prints nothing.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from selfextend_local.errors import ContextOverflow
from selfextend_local.prompts import (
    Message,
    ModelVocabulary,
    PeekVocabulary,
    Prompts,
    document_text,
    first_question,
    system_prompt,
)

if TYPE_CHECKING:
    from selfextend_local.documents import Document
    from selfextend_local.model import ModelPeek, Prefill, SelfExtendLlama

StopReason = Literal["stop", "length", "context", "interrupted"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer is drawn.

    Temperature 0 (greedy) by default: a question about a document has one right answer, and the same question should
    get the same answer twice.
    """

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What a turn took.

    Attributes:
        prompt_tokens: the whole prompt, of which `evaluated_tokens` were not in the cache yet.
        completion_tokens: of the answer, the end token not counted.
        prefill_s, ttft_s: seconds to the end of the prefill, and to the first token of the answer.
        prefill_tps, decode_tps: tokens per second; 0 where there was too little to measure.
        n_used, capacity: tokens that the cache holds after the turn, and can hold.
        stop_reason: why the answer ended: the model was done, `max_tokens`, a full context, or the user.
    """

    prompt_tokens: int
    evaluated_tokens: int
    completion_tokens: int
    prefill_s: float
    prefill_tps: float
    ttft_s: float
    decode_tps: float
    ga_n: int
    ga_w: int
    n_used: int
    capacity: int
    stop_reason: StopReason


class Chat:
    """A conversation; `ask` adds a turn.

    Args:
        llm: the loaded model, used by this chat alone while it answers.
        system: replaces our system prompt; the empty string means none.
        documents: what the conversation is about; they stand in the first user message.
        reserve: tokens that the conversation is expected to add after its first turn, so that the group size is chosen
            for all of it at once.

    Attributes:
        warning: a sentence to show the user before the first answer, or None.
        last_stats: of the last turn that began to answer, or None.
    """

    def __init__(
        self,
        llm: SelfExtendLlama,
        *,
        system: str | None = None,
        documents: Sequence[Document] = (),
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        reserve: int = 0,
    ) -> None:
        self._llm = llm
        self._prompts = Prompts(ModelVocabulary(llm))
        self._documents = tuple(documents)
        self._sampling = sampling
        self._reserve = reserve
        self._expect = 0
        self._history = _opening(self._prompts, self._documents, system)
        self.warning = self._prompts.warning
        self.last_stats: TurnStats | None = None

    @property
    def n_used(self) -> int:
        """Tokens in the cache."""
        return int(self._llm.n_tokens)

    @property
    def capacity(self) -> int:
        """Tokens that the context can hold."""
        return self._llm.capacity

    def ask(
        self,
        question: str,
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[str]:
        """The answer, in pieces as they come. Nothing happens before the first piece is asked for.

        When `should_stop` says so, or the caller closes the iterator, the answer ends early and what there is of it
        stays in the history.

        Args:
            progress: called as progress(done, total) during the prefill, in tokens.
            should_stop: polled during prefill and between tokens.

        Raises:
            Interrupted: stopped during the prefill; what is evaluated stays in the cache, the question is forgotten.
            ContextOverflow: no room for the question and one token of an answer; the chat is unchanged.
            ModelUnsupported: the chat template can't express this conversation; the chat is unchanged.
        """
        started = time.perf_counter()
        asked = self._user_message(question)
        prompt = self._prompts.tokens([*self._history, asked])
        prefill = self._prefill(prompt, progress, should_stop)
        answer = _Answer(self._llm, self._prompts, self._sampling, prompt, self._llm.capacity - len(prompt))
        try:
            yield from answer.pieces(should_stop)
        finally:
            if answer.tokens or answer.stop_reason != "interrupted":
                self._history = [*self._history, asked, Message("assistant", tuple(answer.tokens))]
            self.last_stats = self._stats(prefill, answer, started)

    def _user_message(self, question: str) -> Message:
        is_first = all(m.role == "system" for m in self._history)
        return self._prompts.message("user", first_question(self._documents, question) if is_first else question)

    def _prefill(
        self,
        prompt: Sequence[int],
        progress: Callable[[int, int], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Prefill:
        capacity = self._llm.capacity
        if len(prompt) >= capacity:
            raise ContextOverflow(
                f"The conversation would take {len(prompt):,} tokens and the context holds {capacity:,}: "
                f"{len(prompt) + 1 - capacity:,} too many. Ask a shorter question, or start a new chat.",
                len(prompt),
                capacity,
            )
        wanted = len(prompt) + self._sampling.max_tokens
        if wanted > self._expect:
            self._expect = min(capacity, wanted + self._reserve)
        return self._llm.prefill(prompt, progress=progress, should_stop=should_stop, expect=self._expect)

    def _stats(self, prefill: Prefill, answer: _Answer, started: float) -> TurnStats:
        group = self._llm.group_attention
        first = answer.first_at or time.perf_counter()
        decoding = (answer.last_at or first) - first
        return TurnStats(
            prompt_tokens=prefill.n_prompt,
            evaluated_tokens=prefill.n_evaluated,
            completion_tokens=len(answer.tokens),
            prefill_s=prefill.seconds,
            prefill_tps=prefill.n_evaluated / prefill.seconds if prefill.seconds > 0 else 0.0,
            ttft_s=first - started,
            decode_tps=(len(answer.tokens) - 1) / decoding if decoding > 0 and len(answer.tokens) > 1 else 0.0,
            ga_n=group.n,
            ga_w=group.w,
            n_used=self.n_used,
            capacity=self.capacity,
            stop_reason=answer.stop_reason,
        )


class _Answer:
    """The sampling of one answer: its tokens so far, and why and when it ended."""

    def __init__(
        self, llm: SelfExtendLlama, prompts: Prompts, sampling: Sampling, prompt: Sequence[int], room: int
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._sampling = sampling
        self._prompt = prompt
        self._limit = min(sampling.max_tokens, room)
        self._at_limit: StopReason = "length" if sampling.max_tokens <= room else "context"
        self.tokens: list[int] = []
        self.stop_reason: StopReason = "interrupted"
        self.first_at: float | None = None
        self.last_at: float | None = None

    def pieces(self, should_stop: Callable[[], bool] | None) -> Iterator[str]:
        text = _TextStream(self._prompts.stop_texts)
        for token in self._sampled():
            self.last_at = time.perf_counter()
            self.first_at = self.first_at or self.last_at
            if token in self._prompts.stop_tokens:
                self.stop_reason = "stop"
                break
            self.tokens.append(token)
            piece = text.feed(self._llm.detokenize([token], prev_tokens=self.tokens[:-1]))
            if piece:
                yield piece
            if text.stopped:
                self.stop_reason = "stop"
                self._forget_stop_text()
                return
            if len(self.tokens) >= self._limit:
                self.stop_reason = self._at_limit
                break
            if should_stop is not None and should_stop():
                break
        if rest := text.rest():
            yield rest

    def _sampled(self) -> Iterator[int]:
        s = self._sampling
        self._llm.set_seed(s.seed)
        return self._llm.generate(
            self._prompt,
            temp=s.temperature,
            top_k=s.top_k,
            top_p=s.top_p,
            min_p=s.min_p,
            repeat_penalty=s.repeat_penalty,
        )

    def _forget_stop_text(self) -> None:
        # The stop text belongs to the template, which writes it again in front of the next question.
        while self.tokens and any(
            s.strip() in self._llm.detokenize(self.tokens).decode("utf-8", "ignore") for s in self._prompts.stop_texts
        ):
            self.tokens.pop()


class _TextStream:
    """Bytes in, text out: whole characters only, no white space in front, nothing from a stop text on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._held = ""
        self._begun = False
        self.stopped = False

    def feed(self, data: bytes) -> str:
        return self._ready(self._decoder.decode(data))

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        text = self._ready(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return self._trimmed(text)

    def _ready(self, text: str) -> str:
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)].rstrip(), ""
            return self._trimmed(text)
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return self._trimmed(text)

    def _trimmed(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _opening(prompts: Prompts, documents: Sequence[Document], system: str | None) -> list[Message]:
    text = system_prompt(documents, system)
    return [prompts.message("system", text)] if text else []


@dataclass(frozen=True, slots=True)
class PromptSize:
    """Tokens of a first turn before any answer: the whole prompt, and each document's part of it."""

    prompt: int
    documents: tuple[int, ...]


def count_prompt_tokens(
    peek: ModelPeek, documents: Sequence[Document], system: str | None, question: str
) -> PromptSize:
    """The size of the prompt that `Chat.ask(question)` will start with; exact, and needs no weights."""
    prompts = Prompts(PeekVocabulary(peek))
    messages = [
        *_opening(prompts, documents, system),
        prompts.message("user", first_question(documents, question)),
    ]
    return PromptSize(
        prompt=len(prompts.tokens(messages)),
        documents=tuple(prompts.count(document_text(d)) for d in documents),
    )
