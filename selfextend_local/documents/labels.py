"""Page labels: made fit to stand in a marker, and found again when a user or a model names a page.

Knows what a label may look like, and which page of a Document a name means. Must not know file formats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from selfextend_local.documents.document import Document, Page
from selfextend_local.errors import DocumentEmpty, DocumentError

_LONGEST = 48
_AROUND = 40  # characters of a range besides its two names
# Brackets end a marker; commas and semicolons separate labels.
_UNFIT = re.compile(r"[\[\](){}［］【】,;\s\x00-\x1f\x7f]+")
_DASH = re.compile(r"-|–|—|\bto\b")
_PREFIX = re.compile(r"(?:pages?|pp?\.)\s+", re.IGNORECASE)


def fit_labels(stated: Sequence[str]) -> tuple[str, ...]:
    """Labels for pages from what the file states: short, without brackets, and no two the same.

    A page without a label is called by its number, from 1. Where two pages bear one label, that in the longer count of pages
    keeps it, the other is called by its sheet as well ("1 sheet 2"); if that concerns most pages, all are called by number.
    """
    labels = [_fit(label) or str(number) for number, label in enumerate(stated, start=1)]
    shared: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        shared.setdefault(label.casefold(), []).append(i)
    doubles = [places for places in shared.values() if len(places) > 1]
    if sum(len(places) - 1 for places in doubles) * 2 > len(labels):
        return tuple(str(number) for number in range(1, len(labels) + 1))
    runs = _runs(labels)
    for places in doubles:
        best = max(places, key=lambda i: runs[i])
        for i in places:
            if i != best:
                labels[i] = f"{labels[i]} sheet {i + 1}"
    return tuple(labels)


def _runs(labels: Sequence[str]) -> list[int]:
    """For each label, how many around it count on from one to the next."""
    starts: list[int] = []
    for i, label in enumerate(labels):
        before = labels[i - 1] if i else ""
        counts_on = label.isdecimal() and before.isdecimal() and len(label) < 10 and int(label) == int(before) + 1
        starts.append(starts[-1] if counts_on else i)
    sizes = Counter(starts)
    return [sizes[start] for start in starts]


def _fit(label: str) -> str:
    words = _UNFIT.sub(" ", label).strip(" -–—")
    return words if len(words) <= _LONGEST else words[:_LONGEST].rsplit(" ", 1)[0] + "…"


def page_named(document: Document, name: str) -> Page | None:
    """The page whose label is `name` (case aside), else the one with that number, else None."""
    wanted = " ".join(name.split()).casefold()
    for page in document.pages:
        if page.label.casefold() == wanted:
            return page
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
        return next((page for page in document.pages if page.number == int(wanted)), None)
    return None


def pages_between(document: Document, first: str, last: str) -> tuple[Page, ...] | None:
    """The pages from `first` to `last`, both named by label or both by number; None if one isn't there."""
    a, b = page_named(document, first), page_named(document, last)
    if a is None or b is None:
        return None
    if (a.label.casefold() == first.casefold()) != (b.label.casefold() == last.casefold()):
        by_number = {str(page.number): page for page in document.pages}
        a, b = by_number.get(first, a), by_number.get(last, b)
    return tuple(page for page in document.pages if a.number <= page.number <= b.number)


def select_pages(document: Document, wanted: str) -> Document:
    """`document` with only the pages that `wanted` names, e.g. "3-7,12,iv".

    Names are labels as printed, or else numbers counted from 1; ranges may be open ("12-", "-5"). The pages come in the
    document's order and keep their numbers and labels.

    Raises:
        DocumentError: a page that the document lacks, a range that runs backwards, or nothing named.
        DocumentEmpty: none of these pages has text.
    """
    numbers: set[int] = set()
    for part in re.split("[,;]", _PREFIX.sub("", wanted.strip())):
        if part.strip():
            numbers.update(page.number for page in _named(document, part.strip()))
    if not numbers:
        raise DocumentError(f"No pages were named: {_which(document)}")
    pages = tuple(page for page in document.pages if page.number in numbers)
    unreadable = tuple(n for n in document.unreadable_pages if n in numbers)
    if len(unreadable) == len(pages):
        raise DocumentEmpty(f"{document.title} has no text on pages {document.names(numbers)}: take others, or try OCR")
    return replace(document, pages=pages, unreadable_pages=unreadable)


def _named(document: Document, part: str) -> Sequence[Page]:
    page = page_named(document, part)
    if page is not None:
        return [page]
    # A label may hold a dash of its own, so each dash is tried as the one of the range.
    most = 2 * max(len(page.label) for page in document.pages) + _AROUND
    dashes = _DASH.finditer(part) if len(part) <= most else ()
    ranges = [(part[: dash.start()].strip(), part[dash.end() :].strip()) for dash in dashes]
    for first, last in filter(any, ranges):
        pages = pages_between(document, first or document.pages[0].label, last or document.pages[-1].label)
        if pages:
            return pages
        if pages is not None:
            raise DocumentError(f"The range {part!r} runs backwards: write {last}-{first}")
    named = next((name for pair in ranges[:1] for name in pair if page_named(document, name) is None), part)
    raise DocumentError(f"{document.title} has no page {named!r}: {_which(document)}")


def _which(document: Document) -> str:
    if len(document.pages) == 1:
        return f"it has one page, {document.pages[0].label}"
    return f"it has {document.page_count} pages, labelled {document.names([page.number for page in document.pages], most=12)}"
