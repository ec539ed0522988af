"""Notes on documents that don't fit, to talk about in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from selfextend_local.documents import Document, Page
from selfextend_local.generation.sampling import Sampling
from selfextend_local.summarize import Instruction, summarize_document

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

    from .listener import Progress

NOTES = "Write down the main points of this part"


def notes_on(
    llm: SelfExtendLlama,
    documents: Sequence[Document],
    sampling: Sampling,
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Document:
    """Notes on all of the documents, under the pages that they are on. Raises Interrupted."""
    instruction = Instruction(NOTES, drawn=replace(sampling, stop=()))
    summary = summarize_document(llm, documents, instruction, progress=progress, should_stop=should_stop)
    pages = tuple(
        Page(number, f"{part.first}-{part.last}" if part.first != part.last else part.first or str(number), part.text)
        for number, part in enumerate(summary.parts, start=1)
    )
    title = f"Notes on {', '.join(d.title for d in documents)}"
    return Document(documents[0].path, title, pages, (), paged=all(d.paged for d in documents))
