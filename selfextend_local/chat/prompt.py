"""How a question about documents is laid out: the system text, each document under its title, the question last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfextend_local.documents import Document

# Short, since small models follow few words better than many.
SYSTEM_PAGES = "Answer the question from the document. Cite the page, like [page 12]."
SYSTEM_DOCUMENT = "Answer the question from the document."

_GAP = "\n\n"


def system_prompt(documents: Sequence[Document], system: str | None) -> str | None:
    """The system text for a conversation about `documents`: the user's own, else ours, else none."""
    if system is not None:
        return system
    if not documents:
        return None
    return SYSTEM_PAGES if any(d.paged for d in documents) else SYSTEM_DOCUMENT


def document_text(document: Document) -> str:
    """A document as it stands in the first user message: a title line, then the page-marked text."""
    return f"Document: {document.title_line}{_GAP}{document.text_with_markers()}".rstrip()


def first_question(documents: Iterable[Document], question: str) -> tuple[str, ...]:
    """The parts of the first user message: the documents, then the question, near to where the answer begins.

    Each document is a part of its own, so that its tokens are the same whatever is asked.
    """
    parts = [part for document in documents for part in (document_text(document), _GAP)]
    return (*parts[:-1], _GAP + question) if parts else (question,)
