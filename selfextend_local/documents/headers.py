"""Page furniture: running headers, footers and page numbers.

Knows which lines repeat at the edge of many pages. Must not know formats, nor
mend words. The rule that counts: body text is never removed. So a row goes only
if it is outermost, repeats at the same height of the page (its digits, if any,
counting along with the pages), is set no larger than the body and stands apart
from it. When in doubt the row stays.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .layout import RawPage, rows_of

_DEPTH = 3  # rows at each edge that may be furniture
_EDGE_ZONE = 0.14  # of the page's height
_LARGER_THAN_BODY = 1.12
_APART = 0.7  # least white space to the body, in line heights
_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"(?=[ivxlc])c{0,3}(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})", re.IGNORECASE)
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row near an edge: what it says modulo digits, and where it stands."""

    page: int
    key: str
    numbers: tuple[int, ...]
    place: int
    lines: tuple[int, ...]


def without_furniture(pages: Sequence[RawPage]) -> list[RawPage]:
    """`pages` less running headers, footers and page numbers.

    If nothing but furniture would remain anywhere, the pages come back untouched:
    what repeats on every page is then the text.
    """
    dropped: dict[int, set[int]] = defaultdict(set)
    for from_bottom in (False, True):
        candidates = [_edge_rows(i, page, from_bottom) for i, page in enumerate(pages)]
        edge = [row for rows in candidates for row in rows]
        repeated = _repeated(edge, len(pages)) | _facing(edge, len(pages)) | _facing_numbered(edge)
        for i, rows in enumerate(candidates):
            chosen = _outermost(rows, repeated, pages[i], from_bottom)
            dropped[i].update(line for row in chosen for line in row.lines)
    stripped = [page.without(frozenset(dropped[i])) for i, page in enumerate(pages)]
    return stripped if any(page.lines for page in stripped) else list(pages)


def _edge_rows(index: int, page: RawPage, from_bottom: bool) -> list[_Row]:
    """The outermost rows of one edge that could be furniture, from the edge inwards."""
    if not page.lines:
        return []
    rows = rows_of(page)
    if from_bottom:
        rows.reverse()
    body = median(x.height for x in page.lines)
    found: list[_Row] = []
    for depth, row in enumerate(rows[:_DEPTH]):
        lines = [page.lines[i] for i in row]
        top = min(x.top for x in lines)
        distance = page.height - max(x.bottom for x in lines) if from_bottom else top
        if page.measured and (
            distance > _EDGE_ZONE * page.height
            or max(x.height for x in lines) > _LARGER_THAN_BODY * body
        ):
            break
        key, numbers = _key(" ".join(x.text for x in lines))
        place = round(top / 2) if page.measured else depth
        found.append(_Row(index, key, numbers, place, tuple(row)))
    return found


def _key(text: str) -> tuple[str, tuple[int, ...]]:
    """`text` with its numbers replaced by #, and those numbers."""
    words = " ".join(text.split()).casefold()
    bare = words.strip("-–—.[]() ")
    if _ROMAN.fullmatch(bare):
        return words.replace(bare, "#"), (_roman_value(bare),)
    numbers = tuple(int(m) for m in _NUMBER.findall(words) if len(m) < 10)
    return _NUMBER.sub("#", words), numbers


def _roman_value(text: str) -> int:
    values = [_ROMAN_VALUES[c] for c in text]
    return sum(-v if v < max(values[i:]) else v for i, v in enumerate(values))


def _repeated(rows: Sequence[_Row], n_pages: int) -> set[_Row]:
    """Those of `rows` that occur at one place on enough pages to be furniture."""
    enough = 2 if n_pages < 4 else 3
    groups: dict[tuple[str, int], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.key, row.place].append(row)
        # A header may sit a fraction of a point lower on one page than on the next.
        groups[row.key, row.place + 1].append(row)
    found: set[_Row] = set()
    for group in groups.values():
        counting = _counting_along(group, enough)
        if len(counting) >= enough:
            found.update(counting)
    return found


def _counting_along(group: Sequence[_Row], enough: int) -> list[_Row]:
    """The rows whose every number is constant or moves with the page.

    Without this, "Day 3", "Day 9", "Day 12" at the heads of pages would be lost.
    """
    constant: Counter[tuple[int, int]] = Counter()
    moving: Counter[tuple[int, int]] = Counter()
    for row in group:
        for slot, number in enumerate(row.numbers):
            constant[slot, number] += 1
            moving[slot, number - row.page] += 1
    return [
        row
        for row in group
        if all(
            constant[slot, number] >= enough or moving[slot, number - row.page] >= enough
            for slot, number in enumerate(row.numbers)
        )
    ]


def _facing(rows: Sequence[_Row], n_pages: int) -> set[_Row]:
    """Rows of books too short for `_repeated`: one text on every left page and one on every right page, at one place.

    The first page may lack its own, as title pages do.
    """
    groups: dict[tuple[str, int, int], list[_Row]] = defaultdict(list)
    for row in rows:
        if not row.numbers:
            groups[row.key, row.place, row.page % 2].append(row)
    found: set[_Row] = set()
    sides: dict[tuple[int, int], list[_Row]] = {}
    for (_, place, side), group in groups.items():
        if {row.page for row in group} >= set(range(side or 2, n_pages, 2)) and len(group) > 1:
            sides[place, side] = group
    for (place, side), group in sides.items():
        if (place, 1 - side) in sides:
            found.update(group)
    return found


def _facing_numbered(rows: Sequence[_Row]) -> set[_Row]:
    """Running heads of which only the page number goes on: first on left pages, last on right pages (or the reverse).

    The texts beside them may be titles of chapters, of which none is there often.
    """
    groups: dict[tuple[int, int], dict[tuple[int, bool], list[_Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        leads, ends = row.key.startswith("#"), row.key.endswith("#")
        if row.numbers and leads != ends:
            number = row.numbers[0 if leads else -1]
            groups[row.place, number - row.page][row.page % 2, leads].append(row)
    found: set[_Row] = set()
    for sides in groups.values():
        for leads in (True, False):
            left, right = sides.get((0, leads), []), sides.get((1, not leads), [])
            strays = len(sides.get((0, not leads), [])) + len(sides.get((1, leads), []))
            if len(left) > 1 and len(right) > 1 and not strays:
                found.update(left, right)
    return found


def _outermost(
    rows: Sequence[_Row], repeated: set[_Row], page: RawPage, from_bottom: bool
) -> Sequence[_Row]:
    """The largest outer block of repeated rows that stands apart from the body."""
    depth = 0
    while depth < len(rows) and rows[depth] in repeated:
        depth += 1
    while depth and page.measured and not _apart(rows[:depth], page, from_bottom):
        depth -= 1
    return rows[:depth]


def _apart(block: Sequence[_Row], page: RawPage, from_bottom: bool) -> bool:
    chosen = {i for row in block for i in row.lines}
    inner = [x for i, x in enumerate(page.lines) if i not in chosen]
    if not inner:
        return True
    outer = [page.lines[i] for i in chosen]
    if from_bottom:
        white = min(x.top for x in outer) - max(x.bottom for x in inner)
    else:
        white = min(x.top for x in inner) - max(x.bottom for x in outer)
    return white > _APART * median(x.height for x in outer)
