"""Cutting a document that doesn't fit into sections that do: at chapters, else at pages, else at paragraphs.

Knows pages and headings. What a token is, the caller says. Nothing is dropped: the sections hold every page's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from selfextend_local.documents.document import Document, page_marker, without_markers

Count = Callable[[str], int]

_CHAPTER = re.compile(r"\s*(#{1,2}\s|(chapter|part|book|section|kapitel|chapitre|cap[ií]tulo)\b.{0,60}$|[IVXLC]{1,7}\.\s)", re.I | re.M)
_JOINT = 3  # tokens that a blank line between two units may take
_SLACK = 1.15  # parts may be this much longer than the average, so that a chapter's end is within reach


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document, page markers included; `first` and `last` are page labels, None without pages."""

    text: str
    first: str | None
    last: str | None

    @property
    def label(self) -> str:
        """ "page 3", "pages 3-7", or "" without pages."""
        return page_names(self.first, self.last)


def page_names(first: str | None, last: str | None) -> str:
    """ "page 3", "pages 3-7", "pages Chapter 1 to Chapter 2", or "" without pages."""
    if first is None or last is None:
        return ""
    if first == last:
        return f"page {first}"
    return f"pages {first}-{last}" if first.isalnum() and last.isalnum() else f"pages {first} to {last}"


@dataclass(frozen=True, slots=True)
class _Unit:
    text: str
    page: str | None
    tokens: int
    is_chapter: bool


def split(document: Document, count: Count, room: int) -> list[Section]:
    """The document in sections of at most `room` tokens each, as few and as even as the borders allow."""
    units = list(_units(document, count, room))
    total = sum(unit.tokens for unit in units)
    parts = -(-total // room)
    limit = min(room, int(_SLACK * total / max(1, parts)) + 1)
    sections = []
    at = 0
    while at < len(units):
        start, at = at, _cut(units, at, limit)
        taken = units[start:at]
        sections.append(Section("\n\n".join(u.text for u in taken), taken[0].page, taken[-1].page))
    return sections


def _cut(units: Sequence[_Unit], start: int, limit: int) -> int:
    """Where the section ends that begins with unit `start`."""
    filled, chapter = 0, 0
    for at in range(start, len(units)):
        unit = units[at]
        if at > start and filled + unit.tokens > limit:
            return chapter or at
        if at > start and unit.is_chapter and filled * 2 >= limit:
            chapter = at
        filled += unit.tokens
    return len(units)


def _units(document: Document, count: Count, room: int) -> Iterator[_Unit]:
    for page, head, block in _blocks(document):
        is_chapter = bool(_CHAPTER.match(block))
        for piece in _pieces(block, count, room - count(head) - _JOINT):
            yield _Unit(head + piece, page, count(head + piece) + _JOINT, is_chapter)
            is_chapter = False


def _blocks(document: Document) -> Iterator[tuple[str | None, str, str]]:
    """(page label, marker line, text) for each page, or for each paragraph of a document without pages."""
    if not document.paged:
        yield from ((None, "", block) for block in re.split(r"\n\s*\n", document.text_with_markers()) if block.strip())
        return
    for page in document.pages:
        text = without_markers(page.text)
        if text.strip():
            yield page.label, f"{page_marker(page.label)}\n", text


def _pieces(text: str, count: Count, room: int) -> Iterator[str]:
    """`text`, halved at the best border near its middle until each piece fits."""
    if len(text) < 2 or count(text) <= room:
        yield text
        return
    at = _middle(text)
    yield from _pieces(text[:at], count, room)
    yield from _pieces(text[at:], count, room)


def _middle(text: str) -> int:
    half = len(text) // 2
    for border in (r"\n\s*\n", r"(?<=[.!?])\s", r"\s"):
        places = [m.end() for m in re.finditer(border, text) if len(text) // 4 <= m.end() <= len(text) * 3 // 4]
        if places:
            return min(places, key=lambda place: abs(place - half))
    return half
