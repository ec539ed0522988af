"""A conversation with a model about documents.

Knows the order of a turn: build the prompt, prefill, sample, remember. The history changes only when an answer has
begun, so a refused or interrupted question leaves no trace. Must not know the terminal, and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from selfextend_local.errors import ContextOverflow, NothingAsked
from selfextend_local.generation.prompts import Message, ModelVocabulary, PeekVocabulary, Prompts, TokenMemo
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import StopReason, Writing, stream
from selfextend_local.sessions.turn import Turn

from .looked import LookedAt, Looking
from .prompt import document_text, first_question, system_prompt
from .reading import PromptReader

if TYPE_CHECKING:
    from selfextend_local.documents import Document
    from selfextend_local.engine.llama import Prefill, SelfExtendLlama
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.positions import GroupAttention
    from selfextend_local.sessions import StateCache

__all__ = ["Chat", "Filling", "PromptSize", "Sampling", "StopReason", "Turn", "TurnStats", "count_prompt_tokens"]


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What a turn took.

    Attributes:
        prompt_tokens: the whole prompt, of which `evaluated_tokens` were not in the cache yet.
        restored_tokens: those that a state on disk brought into the cache for this turn.
        completion_tokens: of the answer, the end token not counted.
        group_attention: that the answer was given with.
        prefill_s, ttft_s: seconds to the end of the prefill, and to the first token of the answer.
        prefill_tps, decode_tps: tokens per second; 0 where there was too little to measure.
        n_used, capacity: tokens that the cache holds after the turn, and can hold.
        stop_reason: why the answer ended: the model was done, `max_tokens`, a full context, the user, or the same words over and over.
    """

    prompt_tokens: int
    evaluated_tokens: int
    completion_tokens: int
    prefill_s: float
    prefill_tps: float
    ttft_s: float
    decode_tps: float
    group_attention: GroupAttention
    n_used: int
    capacity: int
    stop_reason: StopReason
    restored_tokens: int = 0

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were in the cache already."""
        return self.prompt_tokens - self.evaluated_tokens

    @classmethod
    def of(cls, llm: SelfExtendLlama, prefill: Prefill, answer: Writing, started: float, restored: int) -> TurnStats:
        """What an answer took that began at `started`, by time.perf_counter."""
        first = answer.first_at or time.perf_counter()
        decoding = (answer.last_at or first) - first
        return cls(
            prompt_tokens=prefill.n_prompt,
            evaluated_tokens=prefill.n_evaluated,
            completion_tokens=len(answer.tokens),
            prefill_s=prefill.seconds,
            prefill_tps=prefill.n_evaluated / prefill.seconds if prefill.seconds > 0 else 0.0,
            ttft_s=first - started,
            decode_tps=(len(answer.tokens) - 1) / decoding if decoding > 0 and len(answer.tokens) > 1 else 0.0,
            group_attention=llm.group_attention,
            n_used=int(llm.n_tokens),
            capacity=llm.capacity,
            stop_reason=answer.stop_reason,
            restored_tokens=restored,
        )


@dataclass(frozen=True, slots=True)
class Filling:
    """What the conversation so far takes, in tokens: the system text, each document, and all the rest (turns, and what
    the template writes). `read` of them are in the cache; the others are read with the next question."""

    system: int
    documents: tuple[int, ...]
    turns: int
    read: int
    capacity: int

    @property
    def total(self) -> int:
        return self.system + sum(self.documents) + self.turns

    @property
    def free(self) -> int:
        return max(0, self.capacity - self.total)


class Chat:
    """A conversation; `ask` adds a turn.

    Args:
        llm: the loaded model, used by this chat alone while it answers.
        system: replaces our system prompt; the empty string means none.
        documents: what the conversation is about; they stand in the first user message.
        reserve: tokens that the conversation is expected to add after its first turn, so that the group size is chosen
            for all of it at once.
        cache: where states are kept, so that what was read once is not read again; None = nowhere. A state is saved
            after the answer, in the background; see `flush`.
        memo: tokens of the documents that are known already.

    Attributes:
        sampling: of the answers to come.
        thinks_first: whether the model's template opens a reasoning block, so that an answer begins inside it.
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
        cache: StateCache | None = None,
        memo: TokenMemo | None = None,
    ) -> None:
        self._llm = llm
        self._reader = PromptReader(llm, cache)
        self._prompts = Prompts(ModelVocabulary(llm), memo)
        self._documents = tuple(documents)
        self._system = system
        self._ours = system_prompt(self._documents, None)
        self._reserve = reserve
        self._expect = 0
        self._turns: list[Turn] = []
        self._first: tuple[str, Message] | None = None
        self._looking = Looking(llm)
        self._looked: Callable[[], tuple[LookedAt, ...]] | None = None
        self.sampling = sampling
        self.warning = self._prompts.warning
        self.thinks_first = self._prompts.opens_thought
        self.last_stats: TurnStats | None = None

    @property
    def n_used(self) -> int:
        """Tokens in the cache."""
        return int(self._llm.n_tokens)

    @property
    def capacity(self) -> int:
        """Tokens that the context can hold."""
        return self._llm.capacity

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns so far."""
        return tuple(self._turns)

    @property
    def system(self) -> str | None:
        """The system prompt in use: the user's, else ours, else none. Setting it to None brings ours back.

        What is in front of a change stays in the cache; what comes after it is read again with the next question.
        """
        return self._ours if self._system is None else self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._system = text
        self._ours = system_prompt(self._documents, None)

    @property
    def documents(self) -> tuple[Document, ...]:
        """What the conversation is about. A change keeps the turns; the documents in front of it stay in the cache, and so
        does our system prompt, even where another would suit the documents better."""
        return self._documents

    @documents.setter
    def documents(self, documents: Sequence[Document]) -> None:
        if not (self.n_used and self._documents and documents):
            self._ours = system_prompt(documents, None)
        self._documents = tuple(documents)
        self._first = None
        self._expect = 0

    def resume(self, history: Sequence[Turn]) -> None:
        """Go on from these turns, in place of those so far."""
        known = self._llm.n_vocab()
        self._turns = [turn if max(turn.tokens, default=0) < known else self.translated(turn) for turn in history]
        self._first = None
        self._expect = 0

    def translated(self, turn: Turn) -> Turn:
        """A turn with another model, in this one's tokens."""
        return Turn(turn.question, turn.answer, self._prompts.message("assistant", turn.answer).tokens)

    def clear(self) -> None:
        """Forget all turns; the documents stay, in the cache too."""
        self.resume(())

    def undo(self) -> Turn:
        """Forget the last turn, and return it. Nothing is read again but the next question.

        Raises NothingAsked if there is none.
        """
        if not self._turns:
            raise NothingAsked("Nothing has been asked yet: type a question first.")
        turn = self._turns.pop()
        self._expect = min(self._expect, self._expected(self._length()))
        return turn

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
            should_stop: polled during prefill, between tokens, and within a token that takes long.

        Raises:
            Interrupted: stopped during the prefill; what is evaluated stays in the cache, the question is forgotten.
            ContextOverflow: no room for the question and one token of an answer; the chat is unchanged.
            ModelUnsupported: the chat template can't express this conversation; the chat is unchanged.
        """
        started = time.perf_counter()
        prompt, stops = self._prompts.laid_out(self._messages(question))
        self._looked = None
        if self._documents:
            progress = self._looking.reading(prompt, stops[-1] if stops else 0, progress)
        prefill = self._prefill(prompt, stops, progress, should_stop)
        answer = Writing(self._llm, self._prompts, self.sampling, self._llm.capacity - len(prompt))
        shown: list[str] = []
        try:
            for piece in stream(self._llm, prompt, answer, should_stop):
                shown.append(piece)
                yield piece
        finally:
            self._looked = partial(self._looking.pages, self._prompts, stops, self._documents)
            if answer.tokens or answer.stop_reason != "interrupted":
                self._turns.append(Turn(question, "".join(shown), tuple(answer.tokens)))
            self.last_stats = TurnStats.of(self._llm, prefill, answer, started, self._reader.restored)
            self._reader.keep()

    def looked(self) -> tuple[LookedAt, ...]:
        """The pages that the model looked at most when it read the last question: none without recall, or without pages."""
        return self._looked() if self._looked else ()

    def flush(self) -> None:
        """Wait until what is to be saved is on disk. The end of the program waits for it, too."""
        self._reader.flush()

    def ask_again(
        self,
        question: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[str]:
        """As `ask`, in place of the last turn: the same question, or another. That turn is kept until an answer begins.

        Raises NothingAsked if there is none, and what `ask` raises.
        """
        before = self.history
        last = self.undo()
        try:
            yield from self.ask(last.question if question is None else question, progress=progress, should_stop=should_stop)
        finally:
            if len(self._turns) < len(before):
                self._turns = list(before)

    def prompt_tokens(self, question: str) -> int:
        """Tokens of the prompt that `ask(question)` will start with."""
        return len(self._prompts.tokens(self._messages(question)))

    def filling(self) -> Filling:
        """What fills the context."""
        system = self._prompts.count(self.system) if self.system else 0
        documents = tuple(self._prompts.count(document_text(d)) for d in self._documents)
        total = self._length() if system or documents or self._turns else 0
        return Filling(system, documents, max(0, total - system - sum(documents)), self.n_used, self.capacity)

    def grouping(self, total: int) -> tuple[GroupAttention, tuple[int, GroupAttention] | None]:
        """The group attention of what is read, while nothing is that of what the next question reads; and the length at which it
        goes over to another. `total`: that of `filling`."""
        llm = self._llm
        if self.n_used:
            return llm.group_attention, llm.next_growth()
        coming = self._expected(total)
        return llm.group_attention_for(coming), llm.next_growth(coming)

    def _expected(self, prompt: int) -> int:
        """The length that a prompt of so many tokens and what follows it are read for, with one group size."""
        return min(self.capacity, prompt + self.sampling.max_tokens + self._reserve)

    def _length(self) -> int:
        if not self._turns:
            return self.prompt_tokens("")
        *earlier, last = self._turns
        kept, self._turns = self._turns, earlier
        try:
            return self.prompt_tokens(last.question) + len(last.tokens)
        finally:
            self._turns = kept

    def _messages(self, question: str) -> list[Message]:
        """The conversation with `question` at its end."""
        messages = [self._prompts.message("system", self.system)] if self.system else []
        for turn in self._turns:
            messages += [self._asked(turn.question, len(messages)), Message("assistant", turn.tokens)]
        return [*messages, self._asked(question, len(messages))]

    def _asked(self, question: str, place: int) -> Message:
        if place > 1:  # index 0, or 1 behind a system message, is the first question
            return self._prompts.message("user", question)
        if self._first is None or self._first[0] != question:
            self._first = question, self._prompts.message("user", *first_question(self._documents, question))
        return self._first[1]

    def _prefill(
        self,
        prompt: Sequence[int],
        stops: Sequence[int],
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
        if len(prompt) + self.sampling.max_tokens > self._expect:
            self._expect = self._expected(len(prompt))
        titles = [d.title for d in self._documents]
        return self._reader.read(prompt, self._expect, titles, stops=stops, progress=progress, should_stop=should_stop)


@dataclass(frozen=True, slots=True)
class PromptSize:
    """Tokens of a first turn before any answer: how many the whole prompt has, which, and how many each document has."""

    prompt: int
    documents: tuple[int, ...]
    tokens: tuple[int, ...] = field(default=(), repr=False)


def count_prompt_tokens(
    peek: ModelPeek, documents: Sequence[Document], system: str | None, question: str, memo: TokenMemo | None = None
) -> PromptSize:
    """The size of the prompt that `Chat.ask(question)` will start with; exact, and needs no weights."""
    prompts = Prompts(PeekVocabulary(peek), memo)
    text = system_prompt(documents, system)
    messages = [
        *([prompts.message("system", text)] if text else []),
        prompts.message("user", *first_question(documents, question)),
    ]
    tokens = tuple(prompts.tokens(messages))
    return PromptSize(len(tokens), tuple(prompts.count(document_text(d)) for d in documents), tokens)
