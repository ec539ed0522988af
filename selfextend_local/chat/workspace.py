"""Documents, a model and a conversation about them, without a terminal.

    workspace = Workspace(["report.pdf"])
    print(workspace.ask("Who signed?"))

Knows what is read, how large the context is, when the model is opened again, and what is kept on disk. Tells a Listener
how it goes, and prints nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from selfextend_local.errors import ContextOverflow, MemoryBudgetError, SelfExtendError

from .conversation import Chat
from .fit import Fit, Request, fit, turn_tokens
from .listener import Listener, Progress
from .settings import ChatSettings
from .sources import Source, read_source

if TYPE_CHECKING:
    from selfextend_local.documents import Document
    from selfextend_local.documents.citations import Citation
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.sessions import StateCache
    from selfextend_local.sessions.turn import Turn
    from selfextend_local.summarize import Summary

    from .conversation import TurnStats
    from .looked import LookedAt

ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Reply:
    """An answer; `str` of it is its text.

    Attributes:
        thinking: what a reasoning model thought aloud before it.
        stats: what it took; None if the question was stopped before the answer began.
        citations: the pages that it names, held against the documents.
        looked: the pages that the model looked at most for the question, under recall.
    """

    answer: str
    thinking: str = ""
    stats: TurnStats | None = None
    citations: tuple[Citation, ...] = ()
    looked: tuple[LookedAt, ...] = ()

    @property
    def stopped(self) -> bool:
        """Whether the user ended it."""
        return self.stats is None or self.stats.stop_reason == "interrupted"

    def __str__(self) -> str:
        return self.answer


class Workspace:
    """Documents, the model that reads them, and the conversation. Opens the model at once; use as a context manager, or
    `close` it.

    Args:
        documents: files, or documents that were read.
        settings: of the conversation; all defaults if None.
        listener: hears how it goes; nobody if None.
        history: turns to go on from, in any model's tokens if `translate`.
        question: the only one that will be asked, or None for a conversation, which gets room for more.

    Attributes:
        settings: as given; `change_settings` changes them.
        sources: the documents as they were read.
        model_path: of the model that is open.
        fit: the context, and what of the documents is in it.
        llm: the model.
        chat: the conversation.
        load_s: seconds that opening the model took.

    Raises DocumentError, ModelError, LibraryError, GroupAttentionError, ContextOverflow, MemoryBudgetError, Interrupted.
    """

    fit: Fit
    llm: SelfExtendLlama
    chat: Chat

    def __init__(
        self,
        documents: Iterable[str | os.PathLike[str] | Document | Source] = (),
        settings: ChatSettings | None = None,
        listener: Listener | None = None,
        *,
        history: Sequence[Turn] = (),
        translate: bool = False,
        question: str | None = None,
    ) -> None:
        from selfextend_local.generation.prompts import TokenMemo

        self.settings = settings or ChatSettings()
        self.listener = listener or Listener()
        self.sources: list[Source] = []
        self.model_path = model_path(self.settings, self.listener)
        self.load_s = 0.0
        self._opened = False
        self._only_question = question
        self._tries = 0
        self._memo = TokenMemo()
        self._cache = _state_cache(self.settings)
        sources = [self._source(d) for d in documents]
        turns = tuple(history)
        found = self._fit(sources, turns[0].question if turns else question or "", turns)
        self._open(found, sources, turns, translate=translate)

    def _source(self, document: str | os.PathLike[str] | Document | Source) -> Source:
        from selfextend_local.documents import Document

        if isinstance(document, Source):
            return document
        if isinstance(document, Document):
            return Source(str(document.path), document)
        return self.read(os.fspath(document))

    def read(self, origin: str, pages: str | None = None) -> Source:
        """Read a document for this workspace. Raises DocumentError, Interrupted."""
        return read_source(origin, pages, self.settings, self.listener)

    def _fit(self, sources: Sequence[Source], question: str = "", turns: Sequence[Turn] = (), more: int = 0) -> Fit:
        """A context for these documents and a conversation of `turns`, or of `more` tokens if that is more. Raises
        ContextOverflow, MemoryBudgetError."""
        from selfextend_local.engine.peek import ModelPeek

        with ModelPeek(self.model_path) as peek:
            request = Request(
                documents=tuple(s.document for s in sources),
                settings=self.settings,
                question=question,
                conversation=self._only_question is None,
                more=max(more, turn_tokens(peek, turns, self._only_question or "")),
                room_for=self._room_for,
                memo=self._memo,
            )
            return fit(peek, request)

    def _room_for(self, prompt: Sequence[int]) -> int:
        return 0 if self._cache is None else self._cache.room_for(self.model_path, prompt)

    def _open(self, found: Fit, sources: Sequence[Source], turns: Sequence[Turn], *, translate: bool = False) -> None:
        """Load the model with that context, in place of the one that is open."""
        from selfextend_local.engine.llama import SelfExtendLlama

        started = time.perf_counter()
        if self._opened:
            self.close()
        self.listener.planned(found.plan)
        with self.listener.progress("Loading the model", "%") as update:
            self.llm = SelfExtendLlama.of(self.model_path, found.settings, plan=found.plan, load_progress=update)
        self._opened = True
        self.chat = Chat(
            self.llm,
            system=self.settings.system,
            documents=found.documents,
            sampling=self.settings.sampling,
            reserve=found.reserve,
            cache=self._cache,
            memo=self._memo,
        )
        self.chat.resume([self.chat.translated(turn) for turn in turns] if translate else turns)
        self._remember(found, sources)
        self.load_s = time.perf_counter() - started
        if self.chat.warning:
            self.listener.say(f"warning: {self.chat.warning}")

    def _remember(self, found: Fit, sources: Sequence[Source]) -> None:
        self.fit, self.sources = found, list(sources)
        if found.note:
            self.listener.say(f"overflow: {found.note}")
        if found.in_parts and self._only_question is None:
            self.chat.documents = (self._notes(found.documents),)

    def _notes(self, documents: Sequence[Document]) -> Document:
        from .notes import notes_on

        self.listener.say("overflow: the documents don't fit; notes are taken, a part at a time, and read in their place.")
        with self.listener.stopping() as stop, self.listener.progress("Reading in parts") as update:
            return notes_on(self.llm, documents, self.settings.sampling, progress=update, should_stop=stop)

    @property
    def documents(self) -> tuple[Document, ...]:
        """What the conversation is about, as much of it as is in the context."""
        return self.chat.documents

    def ask(self, question: str) -> Reply:
        """Ask, and wait for the whole answer. Raises what `stream` raises."""
        from selfextend_local.generation.thinking import split

        before = self.chat.last_stats
        with self.listener.stopping() as stop:
            with self.listener.progress("Reading the prompt") as update:
                pieces = self.stream(question, progress=update, should_stop=stop)
                first = next(pieces, "")
            text = "".join(chain([first], pieces))
        answer, thinking = split(text, open=self.thinks_first)
        stats = None if self.chat.last_stats is before else self.chat.last_stats
        return Reply(answer, thinking, stats, tuple(self.citations(answer)), self.chat.looked() if stats else ())

    def stream(self, question: str, *, progress: Progress | None = None, should_stop: ShouldStop | None = None) -> Iterator[str]:
        """The answer in pieces as they come, thoughts included. Chooses the passages first, where that has to be; if the
        window is full the model is opened again with a larger one, if that can be had.

        Args and raises: see `Chat.ask`.
        """
        self._choose_passages(question)
        return self._with_room(lambda: self.chat.ask(question, progress=progress, should_stop=should_stop))

    def stream_again(
        self, question: str | None = None, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Iterator[str]:
        """As `stream`, in place of the last turn: the same question, or another. See `Chat.ask_again`."""
        return self._with_room(lambda: self.chat.ask_again(question, progress=progress, should_stop=should_stop))

    def _with_room(self, ask: Callable[[], Iterator[str]]) -> Iterator[str]:
        pieces = ask()
        try:
            first = next(pieces, None)
        except ContextOverflow as error:
            if not self.make_room(error.n_tokens + self.settings.sampling.max_tokens):
                raise
            self.listener.say("The window was full and has been made larger.")
            pieces = ask()
            first = next(pieces, None)
        if first is not None:
            yield first
            yield from pieces

    def answer_in_parts(self, question: str, *, progress: Progress | None = None, should_stop: ShouldStop | None = None) -> Summary:
        """Answer from all of the documents, a part at a time, where they don't fit (`fit.in_parts`). Raises Interrupted."""
        from selfextend_local.summarize import Instruction, summarize_document

        sampling = self.settings.sampling
        instruction = Instruction(question, max_tokens=sampling.max_tokens, schema=sampling.schema, drawn=sampling)
        return summarize_document(self.llm, self.fit.documents, instruction, progress=progress, should_stop=should_stop)

    @property
    def thinks_first(self) -> bool:
        """Whether an answer begins inside a block of thought."""
        return self.chat.thinks_first and self.chat.sampling.schema is None

    def citations(self, answer: str) -> list[Citation]:
        """The page references of an answer, held against the whole documents; none if these have no pages."""
        from selfextend_local.documents.citations import check_citations

        paged = [s.whole for s in self.sources if s.whole.paged]
        return check_citations(answer, paged) if paged else []

    def tell_notes(self) -> None:
        """Tell the listener what the cache of states had to say since the last time."""
        if self._cache is not None:
            for note in self._cache.notes:
                self.listener.say(note)
            self._cache.notes.clear()

    def change_documents(self, sources: Sequence[Source], *, question: str = "", turns: Sequence[Turn] | None = None) -> None:
        """Talk about these documents from now on, with the turns so far or with `turns`. Nothing changes if they don't fit.

        Raises DocumentError, ContextOverflow, MemoryBudgetError.
        """
        before = self.chat.history
        history = before if turns is None else turns
        self.chat.resume(history)
        # Passages are chosen for the first question, also in a chat that is brought back.
        asked = history[0].question if history else question
        try:
            found = self._fit(sources, asked, more=self.chat.filling().turns if history else 0)
        except SelfExtendError:
            self.chat.resume(before)
            raise
        if (found.settings.need_tokens or found.plan.capacity) - found.reserve > self.llm.capacity:
            self._open(found, sources, history)
            return
        self.chat.documents = found.documents
        self._remember(found, sources)

    def _choose_passages(self, question: str) -> None:
        if self.fit.chooses and not self.chat.history:
            self.change_documents(self.sources, question=question)

    def choose_again(self) -> None:
        """Let the next question choose its passages, where --overflow select has to."""
        if self.fit.note and self.settings.overflow == "select":
            self.change_documents(self.sources)

    def make_room(self, n_tokens: int) -> bool:
        """Open the model again with a context for a conversation of `n_tokens`; False if it can't be had."""
        if self.fit.note or self.fit.in_parts:
            return False
        try:
            found = self._fit(self.sources, more=max(0, n_tokens - self.fit.size.prompt))
        except (ContextOverflow, MemoryBudgetError):
            return False
        if found.plan.capacity <= max(n_tokens, self.llm.capacity):
            return False
        self._open(found, self.sources, self.chat.history)
        return True

    def change_system(self, text: str | None) -> None:
        """Another system prompt; None = ours."""
        self.settings = replace(self.settings, system=text)
        self.chat.system = text

    def change_settings(self, settings: ChatSettings) -> None:
        """Go on with this sampling; what concerns the model holds from the next time that it is opened."""
        self.settings = settings
        self.chat.sampling = settings.sampling

    def next_try(self) -> int:
        """1, 2, 3 …: added to the seed, so that no two tries at an answer are alike."""
        self._tries += 1
        return self._tries

    def continue_from(self, system: str | None, sources: Sequence[Source], turns: Sequence[Turn]) -> None:
        """Go on with another chat. Nothing changes if it doesn't fit.

        Raises DocumentError, ContextOverflow, MemoryBudgetError.
        """
        before = self.settings
        self.change_system(system)
        try:
            self.change_documents(sources, turns=turns)
        except SelfExtendError:
            self.settings = before
            self.chat.system = before.system
            raise

    def close(self) -> None:
        """Free the model, once what it has read is on disk."""
        self.chat.flush()
        self.llm.close()
        self._opened = False

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _state_cache(settings: ChatSettings) -> StateCache | None:
    if not settings.cache:
        return None
    from selfextend_local.sessions import StateCache

    return StateCache()


def model_path(settings: ChatSettings, listener: Listener) -> Path:
    """The file of the model that these settings mean; says so if it is the embedded default. Raises ModelNotFound."""
    from selfextend_local.engine.default_model import DEFAULT_MODEL_NAME, model_or_default

    if settings.model is not None:
        return settings.model
    found = model_or_default()
    listener.say(f"No --model given: using the embedded default, {DEFAULT_MODEL_NAME}.")
    return found
