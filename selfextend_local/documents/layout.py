"""Lines of a page and where they stand.

Knows positions: a Line has a box, a RawPage has lines. Must not know how they
were read (pypdfium2 or pypdf) nor what the words mean. y grows downwards. A page
that gives text but no boxes is measured in character cells, so that everything
after this module works on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and its box, in points (or character cells).

    `is_row`: a row of a table, with its cells apart, which no paragraph takes in. `drawn`: its place in the file's own order.
    """

    text: str
    left: float
    right: float
    top: float
    bottom: float
    is_row: bool = False
    drawn: int = 0

    @property
    def height(self) -> float:
        """Height of the box, which follows the font size."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class RawPage:
    """A page as read, before any mending.

    Attributes:
        lines: in reading order as far as the file gives it.
        width, height: of the page, in the lines' unit; width 0 if not measured.
        label: the printed page number, or "" when the file has none.
        measured: whether the boxes are real, and not counted in characters.
        beside: text of the page that runs another way, in frames of its own.
        watermarks: large slanted text, which is no part of what the page says.
        comments: of readers, as on sticky notes.
    """

    lines: tuple[Line, ...]
    width: float
    height: float
    label: str
    measured: bool
    beside: tuple[RawPage, ...] = ()
    watermarks: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    @property
    def has_words(self) -> bool:
        """Whether there is a letter or figure on it."""
        return any(c.isalnum() for line in self.lines for c in line.text) or any(page.has_words for page in self.beside)

    def without(self, dropped: frozenset[int]) -> RawPage:
        """This page less the lines with these indices."""
        kept = tuple(x for i, x in enumerate(self.lines) if i not in dropped)
        return replace(self, lines=kept)


def page_from_text(text: str, label: str = "") -> RawPage:
    """A page whose boxes are counted in characters and rows.

    Blank rows hold no Line, but the distance that they make remains.
    """
    rows = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = []
    for y, row in enumerate(rows):
        words = row.strip()
        if words:
            indent = len(row) - len(row.lstrip())
            lines.append(Line(words, indent, indent + len(words), y, y + 1))
    return RawPage(tuple(lines), 0, len(rows), label, measured=False)


def same_row(a: Line, b: Line) -> bool:
    """Whether two lines stand beside each other, as the cells of a table do."""
    shared = min(a.bottom, b.bottom) - max(a.top, b.top)
    return shared > 0.5 * min(a.height, b.height)


def rows(lines: Sequence[Line]) -> list[list[Line]]:
    """`lines` grouped by rows of the page, from the top down, each from left to right."""
    found: list[list[Line]] = []
    tallest: list[Line] = []
    for line in sorted(lines, key=lambda x: (x.top + x.bottom) / 2):
        if found and same_row(tallest[-1], line):
            found[-1].append(line)
            if line.height > tallest[-1].height:
                tallest[-1] = line
        else:
            found.append([line])
            tallest.append(line)
    for row in found:
        row.sort(key=lambda x: x.left)
    return found


def rows_of(page: RawPage) -> list[list[int]]:
    """Indices of the lines, grouped into visual rows, from the top of the page down."""
    order = sorted(range(len(page.lines)), key=lambda i: page.lines[i].top)
    rows: list[list[int]] = []
    for i in order:
        if rows and same_row(page.lines[rows[-1][0]], page.lines[i]):
            rows[-1].append(i)
        else:
            rows.append([i])
    for row in rows:
        row.sort(key=lambda i: page.lines[i].left)
    return rows


def pitch_of(lines: tuple[Line, ...]) -> float:
    """Median distance from one line to the next below it; 1.2 heights if unknown."""
    if not lines:
        return 1.0
    tall = median(x.height for x in lines)
    steps = [b.top - a.top for a, b in pairwise(lines)]
    close = [s for s in steps if 0.5 * tall < s < 3 * tall]
    return median(close) if close else 1.2 * tall


def char_width_of(lines: tuple[Line, ...]) -> float:
    """Mean width of a character over `lines`, in their unit."""
    count = sum(len(x.text) for x in lines)
    return sum(x.right - x.left for x in lines) / count if count else 1.0
