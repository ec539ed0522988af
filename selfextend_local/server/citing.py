"""The pages that an answer names, held against its documents, and those that the model looked at, as a client sees them.

Knows citations, and the pages that a model looked at. An answer that names no page gets the pages that bear its sentences out, if there
are such. Must not know where documents lie, nor who draws their pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from selfextend_local.chat.looked import LookedAt
from selfextend_local.documents import Document
from selfextend_local.documents.citations import Citation, Reference, Status, check_citations, evidence, find_citations, suggest_page
from selfextend_local.documents.labels import page_named
from selfextend_local.documents.marking import Marked
from selfextend_local.documents.passages import sentences_of
from selfextend_local.documents.search import PassageIndex
from selfextend_local.errors import DocumentError

_MOST_SENTENCES = 20
_MOST_PLACES = 20  # that are looked for on pages, in one answer

Places = Callable[[str, int, str], list[list[float]]]
"""Of a document's id, the number of a page and a text on it: a box for each line of it there, see `boxes_of`. Raises DocumentError."""


def citations_of(answer: str, documents: Mapping[str, Document], places: Places) -> list[dict[str, Any]]:
    """Of an answer about documents by id. `start` and `end` are its place in the answer, in characters: of the page's name if it is
    `named`, else of the sentence that the page bears out. `quote` is what on the page bears it out, None if it isn't verified; `boxes`
    where it stands there, for the first of many."""
    paged = {id: document for id, document in documents.items() if document.paged}
    if not paged:
        return []
    named = bool(find_citations(answer))
    found = check_citations(answer, list(paged.values())) if named else _suggested(answer, list(paged.values()))
    described = [_described(citation, paged) | {"named": named} for citation in found]
    wanted = dict.fromkeys((one["document_id"], one["page"], one["quote"]) for one in described if one["quote"])
    boxes = {}
    with suppress(DocumentError):  # pages that can't be drawn, which may take as long as a document may
        for place in list(wanted)[:_MOST_PLACES]:
            boxes[place] = places(*place)
    return [one | {"boxes": boxes.get((one["document_id"], one["page"], one["quote"]), [])} for one in described]


def looked_pages(looked: Sequence[LookedAt], documents: Mapping[str, Document]) -> list[dict[str, Any]]:
    """The pages that the model looked at most for the question, of documents by id; `weight` see LookedAt."""
    ids = {id(document): name for name, document in documents.items()}
    return [
        {"document_id": ids[id(one.document)], "page": one.page.number, "label": one.page.label, "weight": round(one.weight, 3)}
        for one in looked
    ]


def boxes_of(marked: Marked) -> list[list[float]]:
    """Where the text stands on a page that was marked: left, top, right, bottom of each line, as shares of the page's width and height."""
    sides = (marked.width, marked.height, marked.width, marked.height)
    lines = ((box.left, box.top, box.right, box.bottom) for hit in marked.hits for box in hit)
    return [[round(min(max(at / side, 0.0), 1.0), 4) for at, side in zip(line, sides, strict=True)] for line in lines]


def _suggested(answer: str, documents: list[Document]) -> Iterator[Citation]:
    places = {answer[start:end].strip(): (start, end) for start, end in reversed(list(sentences_of(answer)))}  # of the same, the first
    with PassageIndex(documents) as index:
        for start, end in sorted(places.values())[:_MOST_SENTENCES]:
            if (passage := suggest_page(answer[start:end], documents, index)) is not None:
                reference = Reference(start, end, passage.label, passage.label)
                yield Citation(reference, passage.document, Status.VERIFIED, answer[start:end].strip(), False, passage)


def _described(citation: Citation, documents: Mapping[str, Document]) -> dict[str, Any]:
    document, passage = citation.document, citation.passage
    page = passage.page if passage else page_named(document, citation.reference.first) if document else None
    return {
        "document_id": next((id for id, one in documents.items() if one is document), None),
        "page": page.number if page else None,
        "label": page.label if page else citation.label,
        "quote": evidence(citation),
        "verified": citation.status is Status.VERIFIED,
        "status": citation.status.value,
        "start": citation.reference.start,
        "end": citation.reference.end,
    }
