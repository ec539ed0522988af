"""What lies open during a chat: the documents, the model, the conversation.

Knows how they are opened, and opened again when more room is needed. Must not know commands or the input line.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selfextend_local.errors import ContextOverflow, SelfExtendError

from ..terminal import console
from . import events
from .options import Options

if TYPE_CHECKING:
    from selfextend_local.chat.conversation import Chat, Turn
    from selfextend_local.documents import Document
    from selfextend_local.documents.citations import Citation
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.generation.stream import Sampling
    from selfextend_local.sessions import StateCache

    from .fit import Fit
    from .reply import Ask

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A document that was read, which pages of it are wanted (None = all), and the SHA-256 of its file ("" = no file)."""

    origin: str
    whole: Document
    pages: str | None = None
    sha256: str = ""

    @property
    def document(self) -> Document:
        """The wanted pages. Raises DocumentError if there are none such."""
        if self.pages is None:
            return self.whole
        from selfextend_local.documents.labels import select_pages

        return select_pages(self.whole, self.pages)


def read_source(origin: str, pages: str | None, options: Options) -> Source:
    """Read a document, with progress, and say what is odd about it. Raises DocumentError, and KeyboardInterrupt at Ctrl-C."""
    from selfextend_local.documents import load_document

    name = "stdin" if origin == "-" else Path(origin).name
    with console.StopOnInterrupt() as stop, console.progress(f"Reading {name}", "pages", quiet=options.for_programs) as update:

        def moved(done: int, total: int) -> None:
            if stop():
                raise KeyboardInterrupt
            update(done, total)

        whole = load_document(origin, progress=moved, ocr=options.ocr)
    source = Source(origin, whole, pages, "" if origin == "-" else _sha256(Path(origin).expanduser()))
    for warning in source.document.warnings:
        console.say(f"warning: {name}: {warning}")
    return source


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class Desk:
    """Documents, model and chat.

    Args:
        question: the only one that will be asked, or None for a conversation.

    Attributes:
        options: as given; /set and the like change them.
        sources: the documents as they were read.
        model_path: of the model that is open.
        fit: the context, and what of the documents is in it.
    """

    fit: Fit
    llm: SelfExtendLlama
    chat: Chat

    def __init__(self, options: Options, sources: Sequence[Source], question: str | None = None) -> None:
        self.options = options
        self.sources: list[Source] = []
        self.model_path = _model_path(options)
        self.load_s = 0.0
        self._only_question = question
        self._tries = 0
        self._cache = _state_cache(options)
        self._open(self._fit(sources, question or ""), sources, ())

    def _fit(self, sources: Sequence[Source], question: str = "", turns: int = 0) -> Fit:
        """A context for these documents and `turns` tokens of conversation. Raises ContextOverflow, MemoryBudgetError."""
        from selfextend_local.engine.llama import ModelPeek
        from selfextend_local.engine.plan import Settings

        from .fit import Request, fit

        options = self.options
        request = Request(
            documents=tuple(s.document for s in sources),
            system=options.system,
            question=question,
            conversation=self._only_question is None,
            max_tokens=options.max_tokens,
            overflow=options.overflow,
            settings=Settings(ga_n=options.ga_n, ga_w=options.ga_w, kv_type=options.kv_type, gpu_layers=options.gpu_layers,
                ga_mode=options.ga_mode, ga_recall=options.ga_recall),  # fmt: skip
            more=turns,
            room_for=self._room_for,
        )
        with ModelPeek(self.model_path) as peek:
            return fit(peek, request)

    def _room_for(self, prompt: Sequence[int]) -> int:
        return 0 if self._cache is None else self._cache.room_for(self.model_path, prompt)

    def _open(self, found: Fit, sources: Sequence[Source], history: tuple[Turn, ...]) -> None:
        """Load the model with that context, in place of the one that is open."""
        from selfextend_local.chat.conversation import Chat
        from selfextend_local.engine.llama import SelfExtendLlama

        started = time.perf_counter()
        if hasattr(self, "llm"):
            self.close()
        console.say(found.plan.describe())
        options, settings = self.options, found.settings
        if options.as_events:
            events.planned(found.plan)
        with console.progress("Loading the model", "%", quiet=options.for_programs) as update:
            self.llm = SelfExtendLlama(
                self.model_path,
                ga_n=settings.ga_n,
                ga_w=settings.ga_w,
                ga_mode=settings.ga_mode,
                ga_temperature=options.ga_temperature,
                ga_recall=settings.ga_recall,
                need_tokens=settings.need_tokens,
                kv_type=settings.kv_type,
                n_threads=options.threads,
                n_gpu_layers=options.gpu_layers,
                load_progress=update,
                plan=found.plan,
            )
        self.chat = Chat(
            self.llm,
            system=options.system,
            documents=found.documents,
            sampling=sampling(options),
            reserve=found.reserve,
            cache=self._cache,
        )
        self.chat.resume(history)
        self._remember(found, sources)
        self.load_s = time.perf_counter() - started
        if self.chat.warning:
            console.say(f"warning: {self.chat.warning}")

    def _remember(self, found: Fit, sources: Sequence[Source]) -> None:
        self.fit, self.sources = found, list(sources)
        if found.note:
            console.say(f"overflow: {found.note}")
        if found.in_parts and self._only_question is None:
            from .parts import notes_on

            self.chat.documents = (notes_on(self.llm, found.documents),)

    @property
    def documents(self) -> tuple[Document, ...]:
        """What the conversation is about, as much of it as is in the context."""
        return self.chat.documents

    def citations(self, answer: str) -> list[Citation]:
        """The page references of an answer, held against the whole documents; none if these have no pages."""
        from selfextend_local.documents.citations import check_citations

        paged = [s.whole for s in self.sources if s.whole.paged]
        return check_citations(answer, paged) if paged else []

    def notes(self) -> list[str]:
        """What the cache of states has to say since it was asked last."""
        said = [] if self._cache is None else list(self._cache.notes)
        if self._cache is not None:
            self._cache.notes.clear()
        return said

    def change_documents(
        self, sources: Sequence[Source], *, question: str = "", turns: tuple[Turn, ...] | None = None
    ) -> None:
        """Talk about these documents from now on, with the turns so far or with `turns`. Nothing changes if they don't fit.

        Raises DocumentError, ContextOverflow, MemoryBudgetError.
        """
        before = self.chat.history
        history = before if turns is None else turns
        self.chat.resume(history)
        # Passages are chosen for the first question, also in a chat that is brought back.
        asked = history[0].question if history else question
        try:
            found = self._fit(sources, asked, self.chat.filling().turns if history else 0)
        except SelfExtendError:
            self.chat.resume(before)
            raise
        if (found.settings.need_tokens or found.plan.capacity) - found.reserve > self.llm.capacity:
            self._open(found, sources, history)
            return
        self.chat.documents = found.documents
        self._remember(found, sources)

    def before(self, question: str) -> None:
        """Choose the passages that match the first question, where --overflow select has to."""
        if self.fit.chooses and not self.chat.history:
            self.change_documents(self.sources, question=question)

    def choose_again(self) -> None:
        """Let the next question choose its passages, where --overflow select has to."""
        if self.fit.note and self.options.overflow == "select":
            self.change_documents(self.sources)

    def asked(self, question: str, show: Callable[[Ask], T]) -> T:
        """Ask through `show`; once more, with a larger context, if the window is full. Raises what `show` raises."""
        self.before(question)

        def ask(**how: Any) -> Iterator[str]:
            return self.chat.ask(question, **how)

        try:
            return show(ask)
        except ContextOverflow as error:
            if not self.make_room(error.n_tokens + self.options.max_tokens):
                raise
            console.say("The window was full and has been made larger.")
            return show(ask)

    def make_room(self, n_tokens: int) -> bool:
        """Open the model again with a context for a conversation of `n_tokens`; False if it can't be had."""
        from selfextend_local.errors import MemoryBudgetError

        if self.fit.note or self.fit.in_parts:
            return False
        try:
            found = self._fit(self.sources, turns=max(0, n_tokens - self.fit.size.prompt))
        except (ContextOverflow, MemoryBudgetError):
            return False
        if found.plan.capacity <= max(n_tokens, self.llm.capacity):
            return False
        self._open(found, self.sources, self.chat.history)
        return True

    def change_system(self, text: str | None) -> None:
        """Another system prompt; None = ours."""
        self.options = replace(self.options, system=text)
        self.chat.system = text

    def change_options(self, options: Options) -> None:
        """Go on with these settings."""
        self.options = options
        self.chat.sampling = sampling(options)

    def next_try(self) -> int:
        """1, 2, 3 …: added to the seed, so that no two tries at an answer are alike."""
        self._tries += 1
        return self._tries

    def continue_from(self, system: str | None, sources: Sequence[Source], turns: tuple[Turn, ...]) -> None:
        """Go on with another chat. Nothing changes if it doesn't fit.

        Raises DocumentError, ContextOverflow, MemoryBudgetError.
        """
        before = self.options
        self.change_system(system)
        try:
            self.change_documents(sources, turns=turns)
        except SelfExtendError:
            self.options = before
            self.chat.system = before.system
            raise

    def close(self) -> None:
        """Free the model, once what it has read is on disk."""
        self.chat.flush()
        self.llm.close()


def _state_cache(options: Options) -> StateCache | None:
    if not options.cache:
        return None
    from selfextend_local.sessions import StateCache

    return StateCache()


def sampling(options: Options) -> Sampling:
    """How answers are drawn."""
    from selfextend_local.generation.stream import Sampling

    return Sampling(
        temperature=options.temperature,
        seed=options.seed,
        max_tokens=options.max_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        stop=options.stop,
        schema=options.schema,
    )


def _model_path(options: Options) -> Path:
    from selfextend_local.engine.default_model import DEFAULT_MODEL_NAME, model_or_default

    if options.model is not None:
        return options.model
    found = model_or_default()
    console.say(f"No --model given: using the embedded default, {DEFAULT_MODEL_NAME}.")
    return found
