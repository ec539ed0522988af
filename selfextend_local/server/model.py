"""The one model behind the server: requests as prompts, answers, and documents that are read ahead.

What is loaded once stays, with the context that was planned at the start. Knows prompts, states and citations. Must not know HTTP.
All but `prepared…` and `document_tokens` runs in the worker's thread.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfextend_local.chat.conversation import TurnStats
from selfextend_local.chat.fit import CONVERSATION_RESERVE
from selfextend_local.chat.looked import LookedAt, Looking
from selfextend_local.chat.prompt import first_question, system_prompt
from selfextend_local.chat.reading import PromptReader
from selfextend_local.engine.cuts import common_prefix
from selfextend_local.errors import Interrupted, SessionError
from selfextend_local.generation.chat_template import Role
from selfextend_local.generation.prompts import Message, ModelVocabulary, Prompts, TokenMemo
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import Writing, stream
from selfextend_local.generation.thinking import Part, parts
from selfextend_local.sessions.states import RESTORE_GAIN

from .refusals import TOO_LONG, Refused
from .turns import Paused, Work

if TYPE_CHECKING:
    from selfextend_local.documents import Document
    from selfextend_local.engine.llama import Prefill, SelfExtendLlama
    from selfextend_local.engine.plan import ContextPlan, Settings
    from selfextend_local.sessions import StateCache

USUAL_ANSWER = Sampling().max_tokens
"""Tokens of an answer that a text's group size is chosen for; longer ones grow into the next size."""

QUESTION_ROOM = CONVERSATION_RESERVE + USUAL_ANSWER
"""Tokens behind documents that their group size is chosen for, so that all questions about them find the same state."""

_ANSWERS_KEPT = 256
_TEXTS_KEPT = 64  # documents, and the long texts of chats, whose tokens are held


@dataclass(frozen=True)
class Prepared:
    """A prompt that fits. `expect`: the length that it is read for. `continues`: the answer goes on with its text. `stops`: see
    `SelfExtendLlama.prefill`."""

    tokens: Sequence[int]
    expect: int
    documents: tuple[Document, ...] = ()
    continues: bool = False
    stops: Sequence[int] = ()


@dataclass(frozen=True)
class Reading:
    """How far the reading of a prompt is: tokens in all, those that needn't be read, those done (the latter among them)."""

    total: int
    cached: int
    done: int
    seconds_left: float | None


@dataclass(frozen=True)
class Finished:
    """An answer is complete: its text without thoughts, what it took, the text of the request's `stop` that ended it, and the pages that
    the model looked at most for the question."""

    text: str
    stats: TurnStats
    ended_by: str | None = None
    looked: tuple[LookedAt, ...] = ()


class ServedModel:
    """A model file, the plan for it, and the model once `load` has loaded it.

    told: hears sentences for whoever runs the server.
    """

    llm: SelfExtendLlama
    prompts: Prompts

    def __init__(
        self, path: Path, settings: Settings, plan: ContextPlan, cache: StateCache | None, told: Callable[[str], None]
    ) -> None:
        self.path, self.plan = path, plan
        self._settings, self._cache, self._told = settings, cache, told
        self._memo = TokenMemo(max_texts=_TEXTS_KEPT)
        self._answers: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._tokenising = threading.Lock()
        self._forgotten = threading.Event()
        self.loaded = threading.Event()

    @property
    def name(self) -> str:
        """What the model is called in requests and answers."""
        return self.path.stem

    @property
    def capacity(self) -> int:
        """Tokens of a prompt and its answer together."""
        return self.plan.capacity

    def load(self) -> None:
        """Load the weights. Raises ModelError, MemoryBudgetError, LibraryError."""
        from selfextend_local.engine.llama import SelfExtendLlama

        self.llm = SelfExtendLlama.of(self.path, self._settings, plan=self.plan)
        self.prompts = Prompts(ModelVocabulary(self.llm), self._memo)
        self._reader = PromptReader(self.llm, self._cache)
        self._looking = Looking(self.llm)
        if self.prompts.warning:
            self._told(f"warning: {self.prompts.warning}")
        self.loaded.set()

    def close(self) -> None:
        """Free the model, once what it has read is on disk."""
        self._reader.flush()
        self.llm.close()

    def prepared(self, messages: Sequence[tuple[Role, str]], max_tokens: int, documents: Sequence[Document] = ()) -> Prepared:
        """The prompt of a request, documents in front of its first question. Raises Refused where it doesn't fit, ModelUnsupported."""
        with self._tokenising:
            tokens, stops = self._laid_out(messages, documents)
            expect = len(tokens) + min(max_tokens, USUAL_ANSWER)
            if documents:
                system = messages[0][1] if messages[0][0] == "system" else None
                expect = max(expect, len(self._shared(documents, system)) + QUESTION_ROOM)
        self._check(len(tokens), "The request")
        return Prepared(tokens, min(self.capacity, expect), tuple(documents), stops=stops)

    def prepared_text(self, text: str, max_tokens: int) -> Prepared:
        """The prompt of a text that is to be continued, in which names of special tokens are such. Raises Refused."""
        with self._tokenising:
            tokens = self.llm.tokenize(text.encode("utf-8", "replace"), special=True)
        if not tokens:
            raise Refused(400, "invalid_value", "The prompt has no tokens: send a longer text.", "prompt")
        self._check(len(tokens), "The prompt")
        return Prepared(tokens, min(self.capacity, len(tokens) + min(max_tokens, USUAL_ANSWER)), continues=True)

    def document_size(self, document: Document) -> int:
        """Tokens that every question about a document begins with."""
        with self._tokenising:
            return len(self._shared([document], None))

    def document_tokens(self, document: Document) -> Prepared:
        """What every question about a document begins with. Raises Refused where it doesn't fit."""
        with self._tokenising:
            tokens = self._shared([document], None)
        self._check(len(tokens), document.path.name)
        return Prepared(tokens, min(self.capacity, len(tokens) + QUESTION_ROOM), (document,))

    def _check(self, n_tokens: int, what: str) -> None:
        over = n_tokens + 1 - self.capacity
        if over > 0:
            needed = -(-(n_tokens + USUAL_ANSWER) // 1000) * 1000
            raise Refused(
                400,
                TOO_LONG,
                f"{what} has {n_tokens:,} tokens, and the context holds {self.capacity:,} with the answer: {over:,} too many. "
                f"Send less, or start the server with --need-tokens {needed}.",
                "messages",
            )

    def _laid_out(self, messages: Sequence[tuple[Role, str]], documents: Sequence[Document]) -> tuple[list[int], list[int]]:
        """The prompt and its stops."""
        laid = list(messages)
        if laid[0][0] != "system" and (ours := system_prompt(documents, None)):
            laid.insert(0, ("system", ours))
        laid = [message for message in laid if message != ("system", "")]
        first = next((i for i, (role, _) in enumerate(laid) if role == "user"), -1)
        found = []
        for i, (role, text) in enumerate(laid):
            if role == "assistant" and (known := self._answers.get(text.strip())) is not None:
                found.append(Message(role, known))
            else:
                found.append(self.prompts.message(role, *(first_question(documents, text) if i == first else (text,))))
        return self.prompts.laid_out(found)

    def _shared(self, documents: Sequence[Document], system: str | None) -> list[int]:
        """The tokens that all prompts with these documents begin with."""
        front: list[tuple[Role, str]] = [] if system is None else [("system", system)]
        tokens, stops = self._laid_out([*front, ("user", "7")], documents)
        return tokens[: stops[-1]]

    def answers(self, work: Work, prompt: Prepared, sampling: Sampling, n: int = 1) -> None:
        """Answer `n` times, each with a seed of its own; tells Reading while the prompt is read, an answer's Parts as they come, and
        Finished behind each."""
        for index in range(n):
            drawn = replace(sampling, seed=(sampling.seed + index) % (1 << 32))
            # A document whose state is gone takes as long as at first, so others may go first; but an answer is told once.
            self._answer(work, prompt, drawn, pauses=bool(prompt.documents) and index == 0)

    def _answer(self, work: Work, prompt: Prepared, sampling: Sampling, *, pauses: bool) -> None:
        started = time.perf_counter()
        prefill = self._read(work, prompt, pauses=pauses)
        writing = Writing(self.llm, self.prompts, sampling, self.capacity - len(prompt.tokens), continues=prompt.continues)
        shown: list[Part] = []
        pieces = stream(self.llm, prompt.tokens, writing, work.should_stop)
        if prompt.continues:
            told: Iterable[Part] = (Part(piece, thought=False) for piece in pieces)
        else:
            told = parts(pieces, open=self.prompts.opens_thought and sampling.schema is None)
        for part in told:
            shown.append(part)
            work.tell(part)
        if prompt.documents:
            self._reader.keep()
        if writing.stop_reason == "interrupted":
            raise work.stopped()
        text = "".join(part.text for part in shown if not part.thought)
        if not prompt.continues and not any(part.thought for part in shown):
            self._remember(text, writing.tokens)
        stats = TurnStats.of(self.llm, prefill, writing, started, self._reader.restored)
        self._told(_line(stats))
        work.tell(Finished(text, stats, writing.ended_by, self._looked(prompt)))

    def _looked(self, prompt: Prepared) -> tuple[LookedAt, ...]:
        if not prompt.documents:
            return ()
        with self._tokenising:
            return self._looking.pages(self.prompts, prompt.stops, prompt.documents)

    def read_ahead(self, work: Work, prompt: Prepared) -> None:
        """Read a document's tokens and keep the state on disk; tells Reading. Lets others go first now and then."""
        self._read(work, prompt, pauses=True)
        self._reader.keep()
        self._reader.flush()

    def _read(self, work: Work, prompt: Prepared, *, pauses: bool) -> Prefill:
        self._make_fit(prompt)
        titles = [document.title for document in prompt.documents]
        progress = _progress(work, len(prompt.tokens), pauses and self._cache is not None)
        if prompt.documents and prompt.stops:
            progress = self._looking.reading(prompt.tokens, prompt.stops[-1], progress)
        try:
            # A state of every chat would soon drive those of the documents from the disk.
            keeps = bool(prompt.documents)
            return self._reader.read(
                prompt.tokens,
                prompt.expect,
                titles,
                stops=prompt.stops,
                keeps=keeps,
                progress=progress,
                should_stop=work.should_stop,
            )
        except Interrupted:
            raise work.stopped() from None
        except Paused:
            self._reader.keep()
            self._reader.flush()
            raise
        finally:
            self._tell_notes()

    def _make_fit(self, prompt: Prepared) -> None:
        """Drop what another request left in the cache, where this text would be read otherwise."""
        llm = self.llm
        if self._forgotten.is_set():
            self._forgotten.clear()
            self._reader.forget()
        if llm.group_attention == llm.group_attention_for(prompt.expect):
            return
        common = common_prefix(llm.cached_tokens(), prompt.tokens)
        if common < RESTORE_GAIN or not llm.takes_group_attention(llm.group_attention, prompt.expect):
            self._reader.flush()
            llm.reset()  # type: ignore[no-untyped-call]

    def forget(self, document: Document) -> None:
        """Remove from disk and memory what was read of a document. From any thread."""
        with self._tokenising:
            wanted = np.asarray(self._shared([document], None), np.int32)
        for entry in self._cache.entries() if self._cache else ():
            if entry.common_prefix(wanted) >= min(len(wanted), entry.n_tokens) > RESTORE_GAIN:
                with suppress(SessionError):
                    self._cache.remove(entry.id)  # type: ignore[union-attr]
        self._forgotten.set()

    def _remember(self, text: str, tokens: Sequence[int]) -> None:
        # The client sends the text back; its tokens as they were written are in the cache, other ones for the same text aren't.
        with self._tokenising:
            self._answers[text.strip()] = tuple(tokens)
            if len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)

    def _tell_notes(self) -> None:
        if self._cache is not None:
            for note in self._cache.notes:
                self._told(note)
            self._cache.notes.clear()


def _progress(work: Work, n_prompt: int, pauses: bool) -> Callable[[int, int], None]:
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        left = (total - done) * (time.monotonic() - started) / done if done else None
        work.tell(Reading(n_prompt, n_prompt - total, n_prompt - total + done, left))
        if pauses and 0 < done < total and work.should_pause():
            raise Paused  # between two micro-batches, so that none is lost

    return report


def _line(stats: TurnStats) -> str:
    return (
        f"{stats.prompt_tokens:,} prompt tokens ({stats.cached_tokens:,} kept) · first token {stats.ttft_s:.1f} s · "
        f"{stats.completion_tokens:,} written at {stats.decode_tps:.1f}/s · {stats.group_attention.label}"
    )
