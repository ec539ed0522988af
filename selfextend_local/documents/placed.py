"""The text of a PDF page with the place of each character, for whoever shows where something stands.

Knows the frames of lines that run another way, and how a page is turned. Must not know what is looked for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfextend_local.documents import widgets
from selfextend_local.documents.characters import HYPHEN_MARKS, clean
from selfextend_local.documents.columns import in_reading_order
from selfextend_local.documents.glyphs import DOWN, REVERSED, UP, UPRIGHT, VERTICAL, Glyphs, framed, is_from_right, lines_by_direction
from selfextend_local.documents.hidden_layers import without_hidden_layers
from selfextend_local.documents.layout import Line
from selfextend_local.documents.pdf import drawn, glyphs_of, opened_pdf

_UNDRAWN = frozenset("^[]()") | HYPHEN_MARKS  # in a line's text perhaps, and no characters of the page


@dataclass(frozen=True, slots=True)
class PlacedPage:
    """A page as it is shown.

    Attributes:
        size: width and height, in points.
        streams: texts of the page, the file's order first, then our lines, those of each direction by themselves. Each comes
            with the boxes of its characters: left, top, right, bottom in points from the upper left corner, (n, 4); NaN for a
            space, -inf for a line break.
        pixels, scale: the picture (height, width, 3; uint8, blue first), and its pixels a point.
    """

    size: tuple[float, float]
    streams: tuple[tuple[str, Any], ...]
    pixels: Any
    scale: float


def page_labels(path: Path) -> list[str]:
    """The labels that a PDF states for its pages; "" where it states none. Raises DocumentError."""
    with opened_pdf(path) as (_, document):
        return [document.get_page_label(i) for i in range(len(document))]


def page_texts(path: Path) -> Iterator[tuple[str, ...]]:
    """The texts of each page, in the orders of `PlacedPage.streams`. Raises DocumentError."""
    data = without_hidden_layers(path)
    with opened_pdf(path, data) as (pdfium, document):
        widgets.remarks(pdfium, document)
        for page in document:
            content = _Content(pdfium, document, page)
            page.close()
            ways = content.lines.values()
            yield (content.drawn[0], *("\n".join(line.text for line in lines) for lines in ways))


def placed_page(path: Path, number: int, dots: float, width: int | None = None) -> PlacedPage:
    """The page with this number (from 1), drawn with so many dots an inch, or `width` pixels wide; smaller if it is very large.

    Raises DocumentError.
    """
    data = without_hidden_layers(path)
    with opened_pdf(path, data) as (pdfium, document):
        widgets.remarks(pdfium, document)
        page = document[number - 1]
        content = _Content(pdfium, document, page)
        image = drawn(page, number, dots if width is None else 72 * width / max(page.get_size()[0], 1.0))
        turn, size = page.get_rotation(), page.get_size()
    placed = [(text, _turned(boxes, turn, content.width, content.height)) for text, boxes in content.streams()]
    return PlacedPage(size, tuple(placed), image.pixels, image.scale)


class _Content:
    """The characters and lines of a page; boxes are relative to the lower left corner of its visible part, y upwards."""

    def __init__(self, pdfium: Any, document: Any, page: Any) -> None:
        left, bottom, right, top = page.get_bbox()
        self.width, self.height = right - left, top - bottom
        textpage = page.get_textpage()
        self.glyphs = glyphs_of(pdfium, textpage, left, bottom, self.width, self.height)
        textpage.close()
        lines = lines_by_direction(self.glyphs, self.width, self.height)
        filled = widgets.filled_in(pdfium.raw, page, document.formenv, (left, bottom, right, top))
        if filled:
            lines[UPRIGHT] = [*lines.get(UPRIGHT, []), *filled]
        self.lines = {way: in_reading_order(found) for way, found in lines.items()}
        self.drawn = _drawn(self.glyphs)

    def streams(self) -> Iterator[tuple[str, Any]]:
        yield self.drawn
        for way, lines in self.lines.items():
            yield self._read(way, lines)

    def _read(self, way: int, lines: list[Line]) -> tuple[str, Any]:
        """Lines that run this way as one text, with boxes."""
        boxes = framed(self.glyphs.boxes, way, self.width, self.height)
        middles = (boxes[:, 2] + boxes[:, 3]) / 2
        order = np.argsort(middles, kind="stable")
        levels = middles[order]
        texts: list[str] = []
        found: list[Any] = []
        for line in lines:
            first, last = np.searchsorted(levels, (line.top, line.bottom))
            near = order[first:last]
            across = (boxes[near, 0] + boxes[near, 1]) / 2
            within = near[(across > line.left - 0.5) & (across < line.right + 0.5)]
            within = within[np.argsort(boxes[within, 0], kind="stable")]
            texts.append(line.text + "\n")
            found.append(self._places(way, line, within.tolist()))
            found.append(np.full((1, 4), -np.inf))
        return "".join(texts), np.concatenate(found) if found else np.zeros((0, 4))

    def _places(self, way: int, line: Line, within: list[int]) -> Any:
        """Boxes of the characters of a line: those of the page's characters that it is made of, else even shares of the line."""
        shown = [(c, i) for i in within for c in _said(self.glyphs.codes[i])]
        places = [n for n, c in enumerate(line.text) if not c.isspace() and c not in _UNDRAWN]
        wanted = "".join(line.text[n] for n in places)
        for order in (shown, shown[::-1]):
            kept = [i for c, i in order if c not in _UNDRAWN]
            if len(kept) == len(places) and "".join(c for c, _ in order if c not in _UNDRAWN) == wanted:
                result = np.full((len(line.text), 4), np.nan)
                result[places] = self.glyphs.boxes[kept]
                return result
        return self._shares(way, line)

    def _shares(self, way: int, line: Line) -> Any:
        count = len(line.text)
        edges = np.linspace(line.left, line.right, count + 1)
        if is_from_right(line.text):
            edges = edges[::-1]
        sides = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
        top, bottom = np.full(count, line.top), np.full(count, line.bottom)
        return _unframed(np.stack([*sides, top, bottom], axis=1), way, self.width, self.height)


def _said(code: int) -> str:
    """What the character of a page is in a line's text: "" for spaces and accents."""
    char = chr(code) if not 0xD800 <= code < 0xE000 else ""
    return "".join(c for c in clean(char) if not c.isspace()) if not unicodedata.combining(char or " ") else ""


def _drawn(glyphs: Glyphs) -> tuple[str, Any]:
    """The characters in the file's order; a pair of surrogates is one."""
    units = glyphs.codes.astype("<u2")
    high, low = (units & 0xFC00) == 0xD800, (units & 0xFC00) == 0xDC00
    paired = low & np.concatenate(([False], high[:-1])) if len(units) else low
    begun = high & np.concatenate((paired[1:], [False])) if len(units) else high
    units[(high & ~begun) | (low & ~paired)] = 0xFFFD
    kept = np.flatnonzero(~paired)
    codes, boxes = units[kept], glyphs.boxes[kept].astype(float)
    boxes[(codes == 32) | (codes == 0xA0)] = np.nan
    boxes[(codes == 10) | (codes == 13)] = -np.inf
    return units.tobytes().decode("utf-16-le"), boxes


def _unframed(boxes: Any, way: int, width: float, height: float) -> Any:
    """Boxes in the frame of a line as left, top, right, bottom of the page, y upwards: the inverse of `framed`."""
    left, right, top, bottom = boxes.T
    if way == UP:
        sides = top, right, bottom, left
    elif way == REVERSED:
        sides = width - right, bottom, width - left, top
    elif way in (DOWN, VERTICAL):
        sides = width - bottom, height - left, width - top, height - right
    else:
        sides = left, height - top, right, height - bottom
    return np.stack(sides, axis=1)


def _turned(boxes: Any, turn: int, width: float, height: float) -> Any:
    """Boxes (left, top, right, bottom; y upwards) on a page that is shown turned by `turn` degrees with the clock, y downwards."""
    x0, y1, x1, y0 = boxes.T
    if turn == 90:
        sides = y0, x0, y1, x1
    elif turn == 180:
        sides = width - x1, y0, width - x0, y1
    elif turn == 270:
        sides = height - y1, width - x1, height - y0, width - x0
    else:
        sides = x0, height - y1, x1, height - y0
    placed = np.stack(sides, axis=1)
    placed[~np.isfinite(boxes[:, 0])] = boxes[~np.isfinite(boxes[:, 0])]
    return placed
