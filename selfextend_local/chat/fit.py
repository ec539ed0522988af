"""What of the documents is read, and how much room a conversation gets.

Knows the ways to deal with too long a text (--overflow), and that a conversation takes less room before it is refused.
Needs no weights. Must not know the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from selfextend_local.engine.plan import ContextPlan, Settings
from selfextend_local.errors import ContextOverflow, MemoryBudgetError
from selfextend_local.generation.prompts import PeekVocabulary, Prompts, TokenMemo

from .conversation import PromptSize, count_prompt_tokens
from .settings import ChatSettings

if TYPE_CHECKING:
    from selfextend_local.documents import Document
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.sessions.turn import Turn

CONVERSATION_RESERVE = 2048
"""Tokens kept free for the conversation after the first answer, where there is room."""

_MARGIN = 32  # tokens; texts may tokenise a little longer together than apart

CHOSEN_LATER = "The documents don't fit: the passages that match your first question will be read."

FIXES = (
    "Or read less: --pages 3-7, --overflow select (the passages that match the question), "
    "--overflow trim (the beginning), --overflow summarize (all of it, in parts)."
)


@dataclass(frozen=True)
class Fit:
    """A context, and what is read in it.

    `note` says what was left out, for the user; None if nothing was. If it `chooses`, the passages are to be chosen anew
    once the question is known. With `in_parts` the documents don't fit, and are to be summarised.
    """

    documents: tuple[Document, ...]
    size: PromptSize
    plan: ContextPlan
    settings: Settings
    reserve: int
    note: str | None = None
    chooses: bool = False
    in_parts: bool = False


@dataclass(frozen=True)
class Request:
    """What is to fit: documents, a question (empty if it isn't known yet) and its answer, and what to do if it doesn't.
    A `conversation` gets room for more questions."""

    documents: tuple[Document, ...]
    settings: ChatSettings
    question: str
    conversation: bool
    more: int = 0
    """Tokens that the conversation has already."""
    room_for: Callable[[Sequence[int]], int] = lambda prompt: 0
    """Tokens that a context has to hold for a prompt's saved state to be restored."""
    memo: TokenMemo | None = None

    @property
    def max_tokens(self) -> int:
        return self.settings.sampling.max_tokens

    def size(self, peek: ModelPeek, documents: Sequence[Document]) -> PromptSize:
        """Of the prompt, with these documents in it."""
        return count_prompt_tokens(peek, documents, self.settings.system, self.question, self.memo)


def turn_tokens(peek: ModelPeek, turns: Sequence[Turn], question: str = "") -> int:
    """Tokens that turns and the question after them take in a prompt, whatever model the turns were with; a few more rather
    than fewer."""
    if not turns:
        return 0
    prompts = Prompts(PeekVocabulary(peek))
    messages = [
        message
        for turn in turns
        for message in (prompts.message("user", turn.question), prompts.message("assistant", turn.answer))
    ]
    written = sum(max(0, len(turn.tokens) - len(m.tokens)) for turn, m in zip(turns, messages[1::2], strict=True))
    return len(prompts.tokens([*messages, prompts.message("user", question)])) + written


def fit(peek: ModelPeek, request: Request) -> Fit:
    """The context for a request. Raises ContextOverflow and MemoryBudgetError, with the fix in the message."""
    try:
        return _whole(peek, request, request.documents)
    except (ContextOverflow, MemoryBudgetError) as error:
        if not request.documents:
            raise
        if request.settings.overflow == "error":
            raise _with_fixes(error) from error
    if request.settings.overflow == "summarize":
        return _in_parts(peek, request)
    return _selected(peek, request)


def _whole(peek: ModelPeek, request: Request, documents: Sequence[Document], note: str | None = None) -> Fit:
    size = request.size(peek, documents)
    least = size.prompt + request.more + request.max_tokens
    wanted = CONVERSATION_RESERVE if request.conversation else 0
    saved = request.room_for(size.tokens)
    if saved > least + wanted:
        # A state goes into a context whole, or not at all.
        with suppress(ContextOverflow, MemoryBudgetError):
            settings = replace(request.settings.engine, need_tokens=saved)
            return Fit(tuple(documents), size, peek.plan(settings), settings, wanted, note)
    while True:
        settings = replace(request.settings.engine, need_tokens=least + wanted)
        try:
            return Fit(tuple(documents), size, peek.plan(settings), settings, wanted, note)
        except ContextOverflow as error:
            if error.capacity < least or not wanted:
                raise
            wanted = error.capacity - least
        except MemoryBudgetError:
            if not wanted:
                raise
            wanted = wanted // 2 if wanted > 64 else 0


def _selected(peek: ModelPeek, request: Request) -> Fit:
    from selfextend_local.documents.selection import select_passages, trim

    plan = peek.plan(replace(request.settings.engine, need_tokens=None))
    prompts = Prompts(PeekVocabulary(peek), request.memo)
    reserve = min(CONVERSATION_RESERVE, plan.capacity // 4) if request.conversation else 0
    frame = [replace(d, pages=d.pages[:1]) for d in request.documents]
    frame_tokens = request.size(peek, frame).prompt - sum(
        prompts.count(d.text_with_markers()) for d in frame
    )
    budget = plan.capacity - frame_tokens - request.more - request.max_tokens - reserve - _MARGIN
    if budget < 1:
        raise ContextOverflow(
            f"The question and the answer take all of the {plan.capacity:,} tokens that fit: lower --max-tokens, or shorten the question.",
            plan.capacity - budget,
            plan.capacity,
        )
    if request.settings.overflow == "select" and request.question:
        selection = select_passages(request.documents, request.question, budget, prompts.count)
        return _whole(peek, request, selection.documents, selection.sentence)
    selection = trim(request.documents, budget, prompts.count)
    note = selection.sentence if request.settings.overflow == "trim" else CHOSEN_LATER
    return replace(_whole(peek, request, selection.documents, note), chooses=request.settings.overflow == "select")


def _in_parts(peek: ModelPeek, request: Request) -> Fit:
    settings = replace(request.settings.engine, need_tokens=None)
    size = request.size(peek, request.documents)
    return Fit(request.documents, size, peek.plan(settings), settings, 0, in_parts=True)


def _with_fixes(error: ContextOverflow | MemoryBudgetError) -> ContextOverflow | MemoryBudgetError:
    if isinstance(error, MemoryBudgetError):
        return MemoryBudgetError(f"{error} {FIXES}")
    return ContextOverflow(f"{error} {FIXES}", error.n_tokens, error.capacity)
