"""The pages that an answer names, held against its documents, as a client sees them.

Knows citations. An answer that names no page gets the pages that bear its sentences out, if there are such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfextend_local.documents import Document
from selfextend_local.documents.citations import Citation, Reference, Status, check_citations, evidence, find_citations, suggest_page
from selfextend_local.documents.labels import page_named
from selfextend_local.documents.passages import sentences_of
from selfextend_local.documents.search import PassageIndex

_MOST_SENTENCES = 20


def citations_of(answer: str, documents: Mapping[str, Document]) -> list[dict[str, Any]]:
    """Of an answer about documents by id. `start` and `end` are its place in the answer, in characters: of the page's name if it is
    `named`, else of the sentence that the page bears out. `quote` is what on the page bears it out, None if it isn't verified."""
    paged = {id: document for id, document in documents.items() if document.paged}
    if not paged:
        return []
    named = bool(find_citations(answer))
    found = check_citations(answer, list(paged.values())) if named else _suggested(answer, list(paged.values()))
    return [_described(citation, paged) | {"named": named} for citation in found]


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
