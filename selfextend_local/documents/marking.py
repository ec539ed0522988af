"""Pictures of the pages of a PDF, with a passage marked.

    found = mark(Path("report.pdf"), "12", "the north vault")
    Path("p12.png").write_bytes(found.png)

Knows where the characters of a page stand, and when two texts are the same but for hyphens, ligatures, accents, case and
line breaks. Must not know the terminal, nor who asks.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from selfextend_local.documents.characters import clean
from selfextend_local.documents.document import Document, Page
from selfextend_local.documents.kinds import is_pdf_file
from selfextend_local.documents.labels import fit_labels, page_named
from selfextend_local.documents.pdf import Progress
from selfextend_local.documents.placed import PlacedPage, page_labels, page_texts, placed_page
from selfextend_local.errors import DocumentError, DocumentNotFound, DocumentUnsupported

DOTS = 150
"""Dots an inch of a picture."""

_SYMBOLS = frozenset("%$€£¥§°")
_UNSAID = frozenset("^[]_\u00ad\u0002\ufffe\u200b")  # what stands for a raised figure or a divided word
_WORD = re.compile(r"\w+")
_NO_WORD = re.compile(r"[\W_]+")
_LONGEST_SHOWN = 80
_MOST_NAMED = 8
_YELLOW = np.array([0.35, 0.92, 1.0])  # blue, green, red: what is left of white
_FRAME = (40, 90, 235)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a page as it is shown: points from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Marked:
    """A page as a picture.

    Attributes:
        number, label: which page, counted from 1, and as printed.
        width, height: of the page as it is shown, in points.
        hits: where the text stands, a box for each line of each place; empty if none was asked for.
        elsewhere: labels of other pages that have the text, if all pages were searched.
        scale: pixels a point.
        png: the picture.
    """

    number: int
    label: str
    width: float
    height: float
    hits: tuple[tuple[Box, ...], ...]
    elsewhere: tuple[str, ...]
    scale: float
    png: bytes


def mark(
    path: Path,
    page: str | None,
    text: str | Sequence[str] = (),
    *,
    progress: Progress | None = None,
    dots: int = DOTS,
    width: int | None = None,
    must_find: bool = True,
) -> Marked:
    """A page of a PDF as a picture, with every place marked where `text` stands.

    Args:
        page: its label, or its number from 1; None = the first page that has the text.
        text: what to look for, or several texts of which one has to be there; none marks nothing, and needs a `page`.
        progress: called as ``progress(done, total)`` in pages, where all are searched.
        dots: an inch; fewer for pages so large that the picture would be.
        width: of the picture in pixels, in place of `dots`.
        must_find: whether a text that isn't on a named page is an error; else nothing is marked.

    Raises:
        DocumentError: no such page; or the text isn't there, and the message names what is nearest to it.
        DocumentUnsupported: not a PDF.
        DocumentNotFound, DocumentEncrypted, DocumentDamaged: as `load_document`.
    """
    _check_kind(path)
    wanted = [text] if isinstance(text, str) else list(text)
    needles = list(dict.fromkeys(filter(None, (_Compared(t).text for t in wanted))))
    if not needles and page is not None and not must_find:
        wanted = []
    if not needles and (wanted or page is None):
        raise DocumentError(f"{_shown(wanted[0])} has no letter or figure to look for" if wanted else "Name a page, or a text to look for")
    labels = fit_labels(page_labels(path))
    search = _Search(path, labels, needles, max(wanted, key=len, default=""), progress)
    number, elsewhere = search.pages_with() if page is None else (_page_number(path, labels, page), ())
    placed = placed_page(path, number, dots, width)
    hits = tuple(_hits(placed, needles))
    if needles and not hits and must_find:
        raise search.not_found(number)
    pixels = _painted(placed.pixels, hits, placed.scale)
    return Marked(number, labels[number - 1], *placed.size, hits, elsewhere, placed.scale, _png(pixels))


def _check_kind(path: Path) -> None:
    try:
        found = is_pdf_file(path)
    except IsADirectoryError as error:
        raise DocumentNotFound(f"{path} is a folder: name a file in it") from error
    except OSError as error:
        raise DocumentNotFound(f"{path} does not exist or may not be read: check the name and folder") from error
    if not found:
        raise DocumentUnsupported(f"{path} is no PDF, so its pages have no picture: save it as a PDF first")


def _page_number(path: Path, labels: Sequence[str], wanted: str) -> int:
    pages = tuple(Page(n, label, "") for n, label in enumerate(labels, start=1))
    document = Document(path, path.name, pages, (), paged=True)
    found = page_named(document, wanted)
    if found is None:
        named = document.names(range(1, len(pages) + 1), most=12)
        raise DocumentError(f"{path.name} has no page {wanted!r}: it has {len(pages)}, labelled {named}")
    return found.number


class _Search:
    """A search of all pages."""

    def __init__(self, path: Path, labels: Sequence[str], needles: Sequence[str], text: str, progress: Progress | None) -> None:
        self._path, self._labels, self._needles, self._text, self._progress = path, labels, needles, text, progress

    def pages_with(self) -> tuple[int, tuple[str, ...]]:
        """The number of the first page that has one of the needles, and the labels of the others. Raises DocumentError."""
        pages = self._pages()
        found = self._having(pages)
        if not found:
            raise self._nearest_error(self._path.name, dict(enumerate(pages, start=1)))
        return found[0], tuple(self._labels[n - 1] for n in found[1:])

    def not_found(self, number: int) -> DocumentError:
        """The error for a text that isn't on the page with this number: where else it is, or what is nearest."""
        pages = self._pages()
        found = self._having(pages)
        where = f"page {self._labels[number - 1]} of {self._path.name}"
        if not found:
            return self._nearest_error(where, {number: pages[number - 1]})
        named = ", ".join(self._labels[n - 1] for n in found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")
        return DocumentError(f"{_shown(self._text)} isn't on {where}, but on page {named}: name that page")

    def _pages(self) -> list[tuple[str, ...]]:
        pages = []
        for texts in page_texts(self._path):
            pages.append(texts)
            if self._progress is not None:
                self._progress(len(pages), len(self._labels))
        return pages

    def _having(self, pages: Sequence[tuple[str, ...]]) -> list[int]:
        """The numbers of the pages with one of the needles; those are compared closely that have its letters and figures."""
        bare = [_bare(needle) for needle in self._needles]
        found = []
        for number, texts in enumerate(pages, start=1):
            near = [text for text in texts if any(needle in _bare(text) for needle in bare)]
            if any(next(_Compared(text).places(needle), None) for text in near for needle in self._needles):
                found.append(number)
        return found

    def _nearest_error(self, where: str, pages: Mapping[int, tuple[str, ...]]) -> DocumentError:
        found = [(*_nearest(text, self._text), number) for number, texts in pages.items() for text in texts if _bare(text)]
        if not found:
            return DocumentError(f"{_shown(self._text)} isn't on {where}, which has no text (a scan?)")
        share, text, number = max(found, key=lambda one: one[0])
        if not share:
            return DocumentError(f"{_shown(self._text)} isn't on {where}, nor is any of its words: look for others")
        return DocumentError(f"{_shown(self._text)} isn't on {where}. Nearest, on page {self._labels[number - 1]}: {_shown(text)}")


def _nearest(text: str, wanted: str) -> tuple[float, str]:
    """The stretch of `text`, as long as `wanted`, that shares most words with it: their share, and the stretch."""
    needed = Counter(word.casefold() for word in _WORD.findall(wanted))
    spans = [(m.start(), m.end(), m[0].casefold()) for m in _WORD.finditer(text)]
    length = min(sum(needed.values()), len(spans))
    have: Counter[str] = Counter()
    best, most, shared = 0, 0, 0
    for end, (_, _, word) in enumerate(spans):
        have[word] += 1
        shared += have[word] <= needed[word]
        if end >= length:
            gone = spans[end - length][2]
            shared -= have[gone] <= needed[gone]
            have[gone] -= 1
        if shared > most:
            best, most = max(0, end - length + 1), shared
    if not most:
        return 0.0, ""
    return most / sum(needed.values()), text[spans[best][0] : spans[min(best + length, len(spans)) - 1][1]]


def _shown(text: str) -> str:
    words = " ".join(clean(text).split())
    return f'"{words if len(words) <= _LONGEST_SHOWN else words[:_LONGEST_SHOWN] + "..."}"'


@lru_cache(maxsize=65536)
def _plain(char: str) -> str:
    """The letters, figures and symbols that a character is compared as; "" for all else."""
    folded = unicodedata.normalize("NFKD", clean(char)).casefold()
    return "".join(c for c in folded if c.isalnum() or c in _SYMBOLS)


def _bare(text: str) -> str:
    """The letters and figures of `text` as they are compared, in one go."""
    return _NO_WORD.sub("", unicodedata.normalize("NFKD", clean(text)).casefold())


class _Compared:
    """A text as it is compared, and where each of its characters is from.

    White space, hyphens and marks go, but for what parts two figures: "1.5", "10 6" and "106" are three.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        kept: list[str] = []
        origins: list[int] = []
        between = ""
        for i, char in enumerate(source):
            plain = _plain(char)
            if not plain:
                between += char if len(between) < 3 else ""
                continue
            if between and kept and kept[-1].isdigit() and plain[0].isdigit() and (parted := _parting(between)):
                kept.append(parted)
                origins.append(i)
            between = ""
            kept += plain
            origins += [i] * len(plain)
        self.text = "".join(kept)
        self._origins = origins

    def places(self, needle: str) -> Iterator[tuple[int, int]]:
        """Where `needle` stands: start and end in the source. Places that cut no word, if there are such; none cuts a number."""
        found = [at for at in _occurrences(self.text, needle) if not self._cuts_number(at, at + len(needle))]
        spans = [(self._origins[at], self._origins[at + len(needle) - 1] + 1) for at in found]
        whole = [span for span in spans if not self._cuts_word(*span)]
        yield from whole or spans

    def _cuts_number(self, start: int, end: int) -> bool:
        """Whether a figure, or what parts two, goes on from within the place to outside of it."""
        text = self.text
        before = start > 0 and text[start].isdigit() and (text[start - 1].isdigit() or text[start - 1] in ".,")
        return before or (end < len(text) and text[end - 1].isdigit() and (text[end].isdigit() or text[end] in ".,"))

    def _cuts_word(self, start: int, end: int) -> bool:
        source = self._source
        before = start > 0 and source[start - 1].isalnum() and source[start].isalnum()
        after = end < len(source) and source[end].isalnum() and source[end - 1].isalnum()
        return before or after


def _parting(between: str) -> str:
    """What is kept of the characters between two figures."""
    if between in (".", ","):
        return between
    return "" if all(c in _UNSAID for c in between) else " "


def _occurrences(text: str, needle: str) -> Iterator[int]:
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + len(needle))


def _hits(placed: PlacedPage, needles: Sequence[str]) -> Iterator[tuple[Box, ...]]:
    """The places of each needle: by the file's order of characters, else by our lines."""
    streams = [(_Compared(text), boxes) for text, boxes in placed.streams]
    for needle in needles:
        for stream, boxes in streams:
            places = list(stream.places(needle))
            if places:
                yield from (_boxes(boxes[start:end]) for start, end in places)
                break


def _boxes(characters: Any) -> tuple[Box, ...]:
    """The boxes of characters, as in `PlacedPage.streams`, as one box for each line."""
    breaks = np.cumsum(np.isneginf(characters[:, 0]))
    seen = np.isfinite(characters[:, 0])
    known, line = characters[seen], breaks[seen]
    if not len(known):
        return ()
    sides = known[:, 2:] - known[:, :2]
    least, most = np.minimum(sides[1:], sides[:-1]), np.maximum(sides[1:], sides[:-1]).max(axis=1)
    apart = np.maximum(known[1:, :2] - known[:-1, 2:], known[:-1, :2] - known[1:, 2:])
    # Characters that stand in a column come with a line break between each two.
    stacked = (apart[:, 0] < -0.8 * least[:, 0]) & (np.abs(apart[:, 1]) < 0.5 * most) & (sides[1:, 1] > 0.8 * sides[1:, 0])
    parted = (line[1:] != line[:-1]) & ~stacked | (apart.max(axis=1) > 3 * most)
    parts = [known[a:b] for a, b in pairwise([0, *(np.flatnonzero(parted) + 1).tolist(), len(known)])]
    return tuple(Box(*map(float, (*p[:, :2].min(axis=0), *p[:, 2:].max(axis=0)))) for p in parts)


def _painted(pixels: Any, hits: Sequence[Sequence[Box]], scale: float) -> Any:
    """`pixels` (height, width, 3; uint8, blue first) with a yellow field and a frame over each box."""
    height, width = pixels.shape[:2]
    for box in (box for hit in hits for box in hit):
        x0, y0 = max(0, int(box.left * scale) - 2), max(0, int(box.top * scale) - 2)
        x1, y1 = min(width, int(box.right * scale) + 3), min(height, int(box.bottom * scale) + 3)
        field = pixels[y0:y1, x0:x1]
        field[:] = (field * _YELLOW).astype(np.uint8)
        for edge in (field[:1], field[-1:], field[:, :1], field[:, -1:]):
            edge[:] = _FRAME
    return pixels


def _png(pixels: Any) -> bytes:
    from PIL import Image

    result = BytesIO()
    Image.fromarray(pixels[:, :, ::-1]).save(result, "PNG")
    return result.getvalue()
