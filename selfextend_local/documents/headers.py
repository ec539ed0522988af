"""Running heads and feet, page numbers, and the line numbers of pleadings.

Knows what repeats at the edges of pages. Must not know formats, nor mend words. The rules that count: no text is lost, so
the first of several equal heads stays; and a row whose number counts along with the pages may be "Invoice 1001" as well as
"Report 3", so it goes only if it is nothing but a page number, or changes sides as the heads of books do. A row goes only
if it is outermost, at the same height of the page, set no larger than the body, and stands apart from it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from .layout import RawPage, rows_of

_DEPTH = 3  # rows at each edge that may be furniture
_EDGE_ZONE = 0.14  # of the page's height
_LARGER_THAN_BODY = 1.12
_APART = 0.7  # least white space to the body, in line heights
_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"(?=[ivxlc])c{0,3}(xc|xl|l?x{0,3})(ix|iv|v?i{0,3})")  # of folded text; ignoring case would let in the dotless ı
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
# A page number and nothing else, in the words of many languages: "- 3 -", "Page 3 of 12", "3/12", "第 3 页".
_PAGE_NUMBER = re.compile(
    r"[-–—.|\[(\s]*(?:(?:pages?|pg|seite|página|pàgina|pagina|pag|pág|side|sida|sivu|strona|str|стр|страница|сторінка|с|sayfa"
    r"|σελίδα|σελ|oldal|halaman|trang|trg|lk|lpp|psl|p|s|صفحة|الصفحة|עמוד|第|หน้า)\b\.?:?\s*|第\s*)?#"
    r"(?:\s*(?:/|／|\||of|von|de|sur|di|van|av|af|iz|из|z|ze|od|fra|จาก)\s*#)?(?:\s*(?:页|頁|ページ|페이지|쪽|oldal))?[-–—.|\])\s]*"
)
_ALIGNED = 1.5  # heights that the numbers of lines may be out of line
_LEAST_NUMBERS = 10  # lines that are numbered on a page
_LEAST_ALONE = 20  # if it is the only page


@dataclass(frozen=True, slots=True)
class _Row:
    """A row near an edge: what it says modulo digits, and where it stands."""

    page: int
    key: str
    words: str  # as `key` less numbers at its ends
    numbers: tuple[int, ...]
    place: int
    lines: tuple[int, ...]


def without_furniture(pages: Sequence[RawPage]) -> list[RawPage]:
    """`pages` less page numbers, line numbers, and running heads and feet after the first of each.

    If nothing but furniture would remain anywhere, the pages come back untouched:
    what repeats on every page is then the text.
    """
    dropped: dict[int, set[int]] = defaultdict(set)
    repeating: dict[int, set[int]] = defaultdict(set)
    edges = {from_bottom: [_edge_rows(i, page, from_bottom) for i, page in enumerate(pages)] for from_bottom in (False, True)}
    inside = _inside(pages, [row for candidates in edges.values() for rows in candidates for row in rows])
    for from_bottom, candidates in edges.items():
        edge = [row for rows in candidates for row in rows]
        repeated = _repeated(pages, edge, inside) | _facing(edge, len(pages)) | _facing_numbered(edge)
        said: set[str] = set()
        for i, rows in enumerate(candidates):
            for row in _outermost(rows, repeated, pages[i], from_bottom):
                repeating[i].update(row.lines)
                if _is_number(row) or row.words in said:
                    dropped[i].update(row.lines)
                said.add(row.words)
    for i, lines in _line_numbers(pages).items():
        dropped[i] |= lines
    if all(len(repeating[i] | dropped[i]) == len(page.lines) for i, page in enumerate(pages)):
        return list(pages)
    return [page.without(frozenset(dropped[i])) for i, page in enumerate(_beside_once(pages))]


def left_out(before: Sequence[RawPage], after: Sequence[RawPage]) -> list[tuple[str, int]]:
    """Words that `without_furniture` took out, the most frequent first, with how many pages; numbers of pages and lines apart."""
    counts: Counter[str] = Counter()
    for page, rest in zip(before, after, strict=True):
        kept = Counter(line.text for line in rest.lines)
        for line in page.lines:
            if kept[line.text]:
                kept[line.text] -= 1
            elif any(c.isalpha() for c in line.text) and not _PAGE_NUMBER.fullmatch(_key(line.text)[0]):
                counts[" ".join(line.text.split())] += 1
    return counts.most_common()


def _beside_once(pages: Sequence[RawPage]) -> list[RawPage]:
    """`pages` with text at their sides that three or more have only on the first of them."""
    texts = [[" ".join(x.text for x in part.lines) for part in page.beside] for page in pages]
    counts = Counter(text for page in texts for text in set(page))
    said: set[str] = set()
    result = []
    for page, mine in zip(pages, texts, strict=True):
        kept = tuple(part for part, text in zip(page.beside, mine, strict=True) if counts[text] < 3 or text not in said)
        said.update(mine)
        result.append(page if len(kept) == len(page.beside) else replace(page, beside=kept))
    return result


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
        found.append(_Row(index, key, key.strip('#-–—.|[]() '), numbers, place, tuple(row)))
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


def _is_number(row: _Row) -> bool:
    return bool(_PAGE_NUMBER.fullmatch(row.key))


def _inside(pages: Sequence[RawPage], edge: Sequence[_Row]) -> Counter[str]:
    """How often a line is there that none of the `edge` rows has."""
    outer: dict[int, set[int]] = defaultdict(set)
    for row in edge:
        outer[row.page].update(row.lines)
    lines = (x for n, page in enumerate(pages) for i, x in enumerate(page.lines) if i not in outer[n])
    return Counter(" ".join(x.text.split()).casefold() for x in lines)


def _repeated(pages: Sequence[RawPage], rows: Sequence[_Row], inside: Counter[str]) -> set[_Row]:
    """Those of `rows` that occur at one place on enough pages to be furniture: page numbers, and cells that never change beside them.

    What is as often a line of its own `inside` pages is text that came to stand at an edge; titles of chapters are there once or twice.
    """
    enough = 2 if len(pages) < 4 else 3
    numbered: dict[tuple[str, int, int], list[_Row]] = defaultdict(list)
    constant: dict[tuple[str, int], list[_Row]] = defaultdict(list)
    for row in rows:
        words = _constant_words(pages[row.page], row)
        # A header may sit a fraction of a point lower on one page than on the next.
        for place in (row.place, row.place + 1):
            if words is not None:
                constant[words, place].append(row)
            elif _is_number(row) and row.numbers:
                numbered[row.key, place, row.numbers[0] - row.page].append(row)
    at_edges = (group for (words, _), group in constant.items() if inside[words] < len({row.page for row in group}))
    groups = [*numbered.values(), *at_edges]
    return {row for group in groups if len({row.page for row in group}) >= enough for row in group}


def _constant_words(page: RawPage, row: _Row) -> str | None:
    """What a row says beside a page number in a cell of its own; None if there is nothing else, digits included."""
    cells = [" ".join(page.lines[i].text.split()).casefold() for i in row.lines]
    words = [cell for cell in cells if not _PAGE_NUMBER.fullmatch(_key(cell)[0])]
    return " ".join(words) if words else None


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


def _line_numbers(pages: Sequence[RawPage]) -> dict[int, set[int]]:
    """The lines of each page that only number the others, as on pleading paper: the same on several pages, or very many on one."""
    found = {i: numbers for i, page in enumerate(pages) if (numbers := _numbers_at_side(page))}
    if len(found) == 1 and len(pages) > 1:
        return {}
    return {i: set(numbers) for i, numbers in found.items() if len(found) > 1 or len(numbers) >= _LEAST_ALONE}


def _numbers_at_side(page: RawPage) -> list[int]:
    """Indices of bare numbers that stand below each other at one side, count on by one or five, and stand by nearly every row."""
    rows = rows_of(page)
    for side in (0, -1):
        ends = [(row[side], len(row)) for row in rows]
        bare = [(i, n) for i, n in ends if page.lines[i].text.strip().isdecimal() and len(page.lines[i].text.strip()) < 4]
        if len(bare) < _LEAST_NUMBERS:
            continue
        middle = median(page.lines[i].right for i, _ in bare)
        bare = [(i, n) for i, n in bare if abs(page.lines[i].right - middle) < _ALIGNED * page.lines[i].height]
        values = [int(page.lines[i].text) for i, _ in bare]
        steps = [b - a for a, b in pairwise(values)]
        others = [x for i, x in enumerate(page.lines) if i not in {i for i, _ in bare}]
        if not others or len(bare) < _LEAST_NUMBERS or any(step not in (1, 5) or step != steps[0] for step in steps):
            continue
        numbers = [page.lines[i] for i, _ in bare]
        if side == 0:
            inner = min(x.left for x in others) > max(x.right for x in numbers)
        else:
            inner = max(x.right for x in others) < min(x.left for x in numbers)
        single = sum(n < 3 for _, n in bare)
        if inner and single * 10 >= len(bare) * 9 and (steps[0] == 5 or len(bare) * 10 >= len(rows) * 8):
            return [i for i, _ in bare]
    return []
