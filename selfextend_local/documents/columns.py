"""The order in which the lines of a page are read.

Knows columns, tables and what runs across both. Must not know files, nor what the words mean. Columns of prose are read one
after the other; whatever else stands side by side is a row, read from left to right. Each level of columns costs n log n.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from selfextend_local.documents.layout import Line, rows, same_row

_DEEPEST = 4  # columns within columns
_PROSE_CHARS = 18  # median length of the lines of a column; shorter ones are cells
_DENSE_CHARS = 8  # of scripts without spaces
_FULL = 0.72  # of the column's width, that lines of prose mostly reach
_APART = 0.9  # share of the lines of a side that were drawn before all of the other
_TOGETHER = 4  # lines drawn since, for a cell to have been drawn with its row
_CANDIDATES = 6  # gutters that are looked at closely
_LEAST_ENTRIES = 6  # of an index
_KEY = 24  # characters of an entry that are compared
_SORTED = 0.8  # share of the entries that the next one doesn't precede
_ENTRY = re.compile(r"[\W\d_]*[^\W\d_].*[\s,.–-]\d{1,4}[,–-]?$|[\d,–\s-]+$")
_ACROSS = 0.34  # share of lines that may run across columns


@dataclass(frozen=True, slots=True)
class _Gutter:
    """White space between two columns, from x `left` to `right`, and the lines beside and across it."""

    left: float
    right: float
    across: int


def in_reading_order(lines: Sequence[Line]) -> list[Line]:
    """`lines` in the order of reading; those of one row follow each other."""
    return _ordered(list(lines), 0)


def _ordered(lines: list[Line], depth: int) -> list[Line]:
    gutter = _gutter(lines) if len(lines) > 5 and depth < _DEEPEST else None
    if gutter is None:
        return _by_rows(lines)
    ordered: list[Line] = []
    for band in _bands(lines, gutter):
        left = [x for x in band if x.right <= gutter.right]
        right = [x for x in band if x.left >= gutter.left and x.right > gutter.right]
        if len(left) + len(right) == len(band) and _are_columns(left, right):
            for side in (left, right):
                ordered += _ordered(side, depth + 1)
        else:
            ordered += _by_rows(band)
    return ordered


def _by_rows(lines: Sequence[Line]) -> list[Line]:
    return [x for row in rows(lines) for x in row]


def _gutter(lines: Sequence[Line]) -> _Gutter | None:
    """The white space that divides most lines, if columns stand beside it."""
    events = sorted([(x.left, 1) for x in lines] + [(x.right, -1) for x in lines])
    least = 0.5 * median(x.height for x in lines)
    found: list[tuple[float, _Gutter]] = []
    open_lines = ended = started = 0
    most = _ACROSS * len(lines)
    for i, (x, change) in enumerate(events[:-1]):
        open_lines += change
        ended += change < 0
        started += change > 0
        right = events[i + 1][0]
        fewer = min(ended, len(lines) - started)
        if open_lines <= most and fewer > 2 and right - x >= least:
            found.append((fewer - 1.5 * open_lines + min((right - x) / (4 * least), 1.0), _Gutter(x, right, open_lines)))
    found.sort(key=lambda pair: -pair[0])
    # What the file drew one side after the other is no table.
    likely = [(worth + _bonus(lines, gutter), gutter) for worth, gutter in found[:_CANDIDATES] if worth > 0]
    return max(likely, key=lambda pair: pair[0])[1] if likely else None


def _bonus(lines: Sequence[Line], gutter: _Gutter) -> float:
    """A bonus for white space whose two sides were drawn one after the other, row by row within each."""
    left, right = [x for x in lines if x.right <= gutter.right], [x for x in lines if x.left >= gutter.left and x.right > gutter.right]
    return float(min(len(left), len(right))) if _drawn_apart(left, right) else 0.0


def _drawn_apart(left: Sequence[Line], right: Sequence[Line]) -> bool:
    """Whether the file has nearly all of one side before the other, and rows of several cells that it drew as rows."""
    if max(_drawn_first(left, right), _drawn_first(right, left)) < _APART:
        return False
    pairs, together = 0, 0
    for side in (left, right):
        place = {id(x): n for n, x in enumerate(sorted(side, key=lambda x: x.drawn))}
        beside = [pair for row in rows(side) for pair in pairwise(row)]
        pairs += len(beside)
        together += sum(abs(place[id(b)] - place[id(a)]) < _TOGETHER for a, b in beside)
    return together * 2 > pairs > 2


def _drawn_first(some: Sequence[Line], others: Sequence[Line]) -> float:
    """The share of `some` among as many lines as that which the file has first."""
    sides = sorted([(x.drawn, True) for x in some] + [(x.drawn, False) for x in others])
    return sum(mine for _, mine in sides[: len(some)]) / max(1, len(some))


def _bands(lines: Sequence[Line], gutter: _Gutter) -> list[list[Line]]:
    """Groups of lines from the top down: those that run across the gutter, and those beside it between them."""
    across = [x for x in lines if x.left < gutter.left + 0.1 and x.right > gutter.right - 0.1 and not x.right <= gutter.right]
    crossing = {id(x) for x in across}
    beside = [x for x in lines if id(x) not in crossing]
    bands: list[list[Line]] = []
    marks = sorted(across, key=lambda x: x.top)
    rest = sorted(beside, key=lambda x: (x.top + x.bottom) / 2)
    i = 0
    for mark in marks:
        band = []
        while i < len(rest) and (rest[i].top + rest[i].bottom) / 2 < mark.top:
            band.append(rest[i])
            i += 1
        if band:
            bands.append(band)
        # What stands in the row of a line across belongs to that row.
        row = [mark]
        while i < len(rest) and same_row(mark, rest[i]):
            row.append(rest[i])
            i += 1
        if bands and not band and any(id(x) in crossing for x in bands[-1]):
            bands[-1] += row
        else:
            bands.append(row)
    if i < len(rest):
        bands.append(rest[i:])
    return bands


def _are_columns(left: Sequence[Line], right: Sequence[Line]) -> bool:
    """Whether each side is read on its own."""
    fewer, more = sorted((left, right), key=len)
    if len(fewer) < 3:
        return False
    aligned = _aligned(fewer, more)
    if (_reads_on(left) and _reads_on(right)) or _drawn_apart(left, right) or _is_index(left, right):
        return True
    return aligned < 0.5 and (_is_prose(left) or _is_prose(right) or len(fewer) > 5)


def _reads_on(side: Sequence[Line]) -> bool:
    """Whether a side is a column of prose, or two."""
    if _is_prose(side):
        return True
    gutter = _gutter(side) if len(side) > 5 else None
    if gutter is None:
        return False
    parts = [x for x in side if x.right <= gutter.right], [x for x in side if x.left >= gutter.left and x.right > gutter.right]
    return all(map(_is_prose, parts))


def _is_index(left: Sequence[Line], right: Sequence[Line]) -> bool:
    """Whether both sides are lists that are read one after the other: entries that go on in the order of the alphabet, or, drawn one
    side after the other, entries in an order of their own on each, or with the numbers of pages."""
    keys, others = _keys(left), _keys(right)
    in_turn = _drawn_first(left, right) >= _APART
    if _is_sorted(keys) and _is_sorted(others) and (in_turn or _precedes(keys, others)):
        return True
    return in_turn and _names_pages(left) and _names_pages(right)


def _keys(side: Sequence[Line]) -> list[str]:
    """What the entries of a list are sorted by: the letters of the lines at its left edge, from the top down."""
    places = Counter(round(x.left) for x in side)
    edge = min(place for place, times in places.items() if times * 4 >= max(places.values()))
    found = sorted((x for x in side if abs(x.left - edge) < 1.5), key=lambda x: x.top)
    return [key for key in (_letters(x.text) for x in found) if key]


def _letters(text: str) -> str:
    first = unicodedata.normalize("NFKD", text[:_KEY]).casefold()
    return "".join(c for c in first if c.isalpha())


def _is_sorted(keys: Sequence[str]) -> bool:
    """Whether most keys are different, and follow one another in the alphabet."""
    if len(keys) < _LEAST_ENTRIES:
        return False
    rising = sum(a <= b for a, b in pairwise(keys))
    return rising >= _SORTED * (len(keys) - 1) and len(set(keys)) * 2 > len(keys)


def _precedes(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether nearly all of `some` come before all of `others` in the alphabet."""
    ordered = sorted(others)
    later = sum(len(ordered) - bisect_left(ordered, key) for key in some)
    return later >= _APART * len(some) * len(others) > 0


def _names_pages(side: Sequence[Line]) -> bool:
    """Whether the lines are mostly words and then numbers."""
    return len(side) >= _LEAST_ENTRIES and sum(bool(_ENTRY.match(x.text)) for x in side) * 3 >= len(side) * 2


def _aligned(some: Sequence[Line], others: Sequence[Line]) -> float:
    """The share of `some` that have one of `others` in their row."""
    grouped = rows([*some, *others])
    mine = {id(x) for x in some}
    found = sum(1 for row in grouped if any(id(x) in mine for x in row) and any(id(x) not in mine for x in row))
    held = sum(1 for row in grouped if any(id(x) in mine for x in row))
    return found / max(1, held)


def _is_prose(column: Sequence[Line]) -> bool:
    grouped = rows(column)
    if len(grouped) < 3:
        return False
    wide = max(x.right for x in column) - min(x.left for x in column)
    lengths = [sum(len(x.text) for x in row) for row in grouped]
    dense = sum(c > "\u2e80" for x in column for c in x.text) * 2 > sum(lengths)
    full = sum(row[-1].right - row[0].left > _FULL * wide for row in grouped)
    single = sum(len(row) == 1 for row in grouped)
    least = _DENSE_CHARS if dense else _PROSE_CHARS
    return median(lengths) >= least and full * 2 >= len(grouped) and single * 3 > len(grouped) * 2
