"""From hard-wrapped lines to paragraphs.

Knows when two lines belong to one paragraph: from white space, indents, font
size, and whether the next word would still have fitted on the line. Knows how to
rejoin a word divided at the end of a line. Must not know files, formats or page
furniture (already removed).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from statistics import median

from .characters import SOFT_HYPHEN, clean
from .layout import (
    Line,
    RawPage,
    char_width_of,
    pitch_of,
    same_row,
)
from .rows import with_rows

_PARAGRAPH = "\n\n"
_LINE = "\n"
_CELL = "  "
_LONGEST_WORD = 60

_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
_LAST_PART = re.compile(r"(\w+)[-\u00ad]$")
_FIRST_PART = re.compile(r"\w+")
# First parts of English compounds that keep their hyphen, and endings that make a word of them after all ("self-ish").
_COMPOUND = frozenset("self well ill non half cross all one two three four five six seven eight nine ten single double".split())  # noqa: SIM905
_ENDING = re.compile(r"(?:ness|ish|ing|age|er|est|ly|fold|ment|less|ful|en|ed|th|ty|teen|sense|such|ow|ery|some|y|s)\b", re.IGNORECASE)
_SHAPED = re.compile(r"\d")
_AMOUNT = re.compile(r"[-+−(]?[$€£¥]?\d[\d.,'’ ]*\)?-?(?:\s?[€$£%]|\s?[A-Z]{2,3})?$")
_NEIGHBOURS = 6  # lines that may stand in one row
_AROUND = 8  # lines before and after, in the order of reading
_MOST_EDGES = 40  # of columns on a page
_ALIKE = 3  # rows that begin or end alike make a list
_BULLET = re.compile(r"[•‣◦▪●○■□*]\s|[-–]\s|\(?(?:\d{1,2}|[a-zA-Z])[.)]\s")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_PROSE_CHARS = 30
_COLUMN_CHARS = 18  # narrower is a list or a table, not a column of prose
_RUNS_ON = re.compile(r"[\w,’']$")
_LEADERS = re.compile(r"(?:\s?[.·…_]){4,}")
_CONTENTS_ROW = re.compile(r"(?:\s?[.·…_]){4,}\s*\w{1,6}$")
_SPACES = re.compile(r"[ \t]+")
# An address of the web or of mail at the end of a line, and what can only be more of it: "https://www.debian.org/" and "security/faq".
_ADDRESS = re.compile(r"\b[a-z][a-z\d+.-]{1,20}://|\bwww\.|\bdoi:|[\w+-]@", re.IGNORECASE)
_MARK = re.compile(r"[/._=?&#%~+@]|[a-z][A-Z]")
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?")
_LONGEST_ADDRESS = 400
_DIVIDES = frozenset("/.-_=?&#%~+@:")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


def vocabulary(pages: Iterable[RawPage]) -> frozenset[str]:
    """The words of a document that are not divided, in lower case.

    It tells "exam-ple" (join) from "well-known" (keep), in any language.
    """
    words: set[str] = set()
    for page in [part for whole in pages for part in (whole, *whole.beside)]:
        divided = False
        for line in page.lines:
            found = _WORD.findall(line.text.casefold())
            first = 1 if divided else 0
            divided = bool(_LAST_PART.search(line.text, max(0, len(line.text) - _LONGEST_WORD)))
            words.update(found[first : -1 if divided else None])
    return frozenset(words)


def rejoin(head: str, tail: str, words: frozenset[str]) -> str:
    """The word divided as "head-" and "tail", with or without its hyphen."""
    left, right = head.casefold(), tail.casefold()
    # No language divides a word after its first letter, and none within a number.
    if len(left) == 1 or not left.isalpha() or not right[:1].isalpha():
        return f"{head}-{tail}"
    if left + right in words:
        return head + tail
    if f"{left}-{right}" in words or not tail[:1].islower():
        return f"{head}-{tail}"
    if left in _COMPOUND and "the" in words and not _ENDING.fullmatch(tail):
        return f"{head}-{tail}"
    both_stand_alone = left in words and right in words and min(len(left), len(right)) > 2
    return f"{head}-{tail}" if both_stand_alone else head + tail


def right_margins(pages: Sequence[RawPage]) -> dict[float, float]:
    """Where lines end on pages of each width, in the unit of their lines."""
    ends: dict[float, list[float]] = {}
    for page in pages:
        if page.lines:
            ends.setdefault(page.width, []).append(max(x.right for x in page.lines))
    return {width: median(values) for width, values in ends.items()}


def paragraphs(page: RawPage, words: frozenset[str], margin: float = 0.0) -> str:
    """The text of `page`: paragraphs on one line each, blank lines between them.

    Lines that were never part of a paragraph (titles, lists, verse) keep theirs.

    Args:
        page: lines in reading order.
        words: the document's `vocabulary`.
        margin: from the document's `right_margins`; matters on pages that hold
            only short lines.
    """
    texts = [_paragraphs(page, words, margin), *(_paragraphs(part, words, 0.0) for part in page.beside)]
    return _PARAGRAPH.join(text for text in texts if text)


def _paragraphs(page: RawPage, words: frozenset[str], margin: float) -> str:
    page = replace(page, lines=with_rows(page.lines)) if page.measured else page
    parts: list[str] = []
    current = ""
    for line, joint in zip(page.lines, _joints(page, margin), strict=True):
        # Runs of spaces inside a line carry no meaning; two spaces mark a table cell.
        text = line.text if line.is_row else _SPACES.sub(" ", line.text.strip())
        if joint == " ":
            current = _joined(current, text, words)
        else:
            parts += [_tidy(current), joint]
            current = text
    return "".join([*parts, _tidy(current)]).strip()


def _tidy(part: str) -> str:
    shown = clean(part.replace(SOFT_HYPHEN, "-"))
    return _LEADERS.sub(" ...", _SPACES.sub(_one_space, shown)).strip()


def _one_space(match: re.Match[str]) -> str:
    """A space, or the two that tell cells apart."""
    return _CELL if match[0] == _CELL else " "


def _joined(text: str, line: str, words: frozenset[str]) -> str:
    if _is_address(text, line):
        return text + line
    # Only the end of the text is searched, or long paragraphs would cost their square.
    head, tail = _LAST_PART.search(text, max(0, len(text) - _LONGEST_WORD)), _FIRST_PART.match(line)
    if head and tail:
        word = rejoin(head[1], tail[0], words)
        return text[: head.start()] + word + line[tail.end() :]
    if text.endswith(("—", "--", SOFT_HYPHEN)) or _is_unspaced(text, line):
        return text + line
    return f"{text} {line}"


def _is_address(text: str, line: str) -> bool:
    """An address that was divided after one of its marks, or before a slash, has no space there and keeps its hyphen."""
    last, first = text[-_LONGEST_ADDRESS:].split()[-1:], line[:_LONGEST_ADDRESS].split()[:1]
    if not last or not first or not _ADDRESS.search(last[0]):
        return False
    if line[0] == "/":
        return True
    end, more = text[-1], first[0].rstrip(".,;:!?/)]}>\"'”’")
    if end not in _DIVIDES or not more or _ABBREVIATION.fullmatch(first[0]) or "://" in more:
        return False
    if end == "." and "/" not in more:
        return line[0].islower()
    if not any(x.isalpha() for x in more):
        return end in "-=_" or "/" in more
    return more[0].isalnum() and bool(_MARK.search(more))


def _is_unspaced(text: str, line: str) -> bool:
    """Chinese and Japanese have no space between words, hence none at line ends."""
    return bool(_UNSPACED.match(text[-1:]) and _UNSPACED.match(line[:1]))


@dataclass(frozen=True, slots=True)
class _Measures:
    """What is typical of a page."""

    measured: bool
    pitch: float
    width: float  # of a character
    margin: float
    margins: _Margins


def _joints(page: RawPage, margin: float) -> Iterator[str]:
    """What stands before each line: nothing, a space, or a break."""
    lines = page.lines
    if not lines:
        return
    width = max(char_width_of(lines), 0.1)
    margins = _Margins(lines, width, pitch_of(lines), margin, columns=page.measured)
    typical = _Measures(page.measured, pitch_of(lines), width, margin, margins)
    alike = _alike(lines)
    yield ""
    in_paragraph = in_item = False
    for i, (a, b) in enumerate(pairwise(lines)):
        in_item = bool(_BULLET.match(a.text)) or (in_item and in_paragraph)
        joint = _joint(i, a, b, typical, in_paragraph, in_item)
        if joint == " " and (a.is_row or b.is_row or (alike[i] and alike[i + 1])):
            joint = _LINE
        in_paragraph = joint == " "
        yield joint


def _alike(lines: Sequence[Line]) -> list[bool]:
    """Which lines are rows of a list, as of a bank statement: several in a row begin with a date or number, or end with an amount."""
    starts = [_shape(words[0]) if (words := line.text.split(maxsplit=1)) else "" for line in lines]
    ends = ["9" if (words := line.text.rsplit(maxsplit=1)) and _AMOUNT.search(words[-1][-_LONGEST_WORD:]) else "" for line in lines]
    alike = [False] * len(lines)
    for shapes, least in ((starts, _ALIKE), (ends, _ALIKE)):
        start = 0
        for i in range(1, len(shapes) + 1):
            if i == len(shapes) or shapes[i] != shapes[start]:
                if shapes[start] and i - start >= least:
                    alike[start:i] = [True] * (i - start)
                start = i
    return alike


def _shape(word: str) -> str:
    """What kind of number or date a word is, or "" for others: 99.99.9999, 9999-99-99."""
    return _SHAPED.sub("9", word) if _SHAPED.search(word) and not re.search(r"[^\W\d_]{2}", word) else ""


def _joint(i: int, a: Line, b: Line, typical: _Measures, in_paragraph: bool, in_item: bool) -> str:
    pitch, width = typical.pitch, typical.width
    if same_row(a, b) and b.left >= a.right - width:
        return _CELL
    if a.is_row or b.is_row:
        close = abs(b.top - a.top) < 2.5 * max(a.height, b.height, typical.pitch)
        return _LINE if a.is_row and b.is_row and close and a.text.startswith("|") == b.text.startswith("|") else _PARAGRAPH
    if max(a.height, b.height) > 1.15 * min(a.height, b.height):
        return _PARAGRAPH
    runs_on = bool(_RUNS_ON.search(a.text)) and b.text[:1].islower()
    divided = bool(_LAST_PART.search(a.text, max(0, len(a.text) - _LONGEST_WORD))) and b.text[:1].isalnum()
    if b.top < a.top - 0.5 * a.height:
        # The next column, or a text box drawn out of order.
        return " " if runs_on or divided else _PARAGRAPH
    step = b.top - a.top
    if step > 1.8 * pitch or (step > 1.3 * pitch and not (runs_on or divided)):
        return _PARAGRAPH
    if divided:
        return " "
    short, ended = _is_short(i, a, b, typical), bool(_SENTENCE_END.search(a.text))
    if _BULLET.match(b.text) and (short or ended):
        return _LINE
    indented = typical.measured and not in_item and b.left > a.left + 0.8 * width
    # A word alone on its line: the producer wrapped text that was wrapped already.
    stray = " " not in a.text and not ended and not indented
    if in_paragraph and (runs_on or stray):
        return " "
    open_end = in_paragraph and not ended and not indented
    if (runs_on or open_end) and _is_prose(i, a, typical):
        return " "
    if _CONTENTS_ROW.search(a.text[-_LONGEST_WORD:]) or _is_spread(a, typical) or _is_spread(b, typical):
        return _LINE
    if indented and (short or not runs_on):
        return _PARAGRAPH
    if not short:
        return " "
    return _PARAGRAPH if in_paragraph or ended else _LINE


def _is_prose(i: int, line: Line, typical: _Measures) -> bool:
    """Whether `line` is long, and about as long as its neighbours.

    Then a sentence that breaks off in it goes on, whatever the page's margin says;
    that margin misleads where a second column, or a wider block, has ended.
    """
    return len(line.text) > _PROSE_CHARS and line.right - line.left > 0.8 * (typical.margins.near(i) - line.left)


def _is_spread(line: Line, typical: _Measures) -> bool:
    """Whether the words stand far apart, as in a row of a table."""
    dense = min(typical.width, 0.5 * line.height)
    spread = line.right - line.left > 1.5 * dense * len(line.text)
    return typical.measured and spread and " " in line.text


def _is_short(i: int, a: Line, b: Line, typical: _Measures) -> bool:
    """Whether b's first word would have fitted on a: then the break was meant."""
    width = typical.width
    slack = (1 if typical.measured else 6) * width
    first = re.split(r"[\s—]", b.text, maxsplit=1)[0]
    needed = (1 if _UNSPACED.match(first) else len(first)) * width
    return a.right + width + needed < typical.margins.at(a) - slack


class _Margins:
    """Where the lines of a page end: near a line, and in the column that it is in. Built in n log n, asked in log n."""

    def __init__(self, lines: Sequence[Line], width: float, pitch: float, margin: float, *, columns: bool) -> None:
        self._lines, self._reach, self._pitch, self._margin = lines, 4 * width, pitch, margin
        by_left = sorted(lines, key=lambda x: x.left)
        self._lefts = [x.left for x in by_left]
        self._widest = list(accumulate((x.right for x in by_left), max))
        self._edges: list[tuple[float, float]] = _beside(lines, width)[:_MOST_EDGES] if columns else []
        self._known: dict[tuple[int, int], float] = {}

    def near(self, i: int) -> float:
        """The right end of the lines around the one with index `i`."""
        line = self._lines[i]
        around = self._lines[max(0, i - _AROUND) : i + _AROUND + 1]
        return max(x.right for x in around if abs(x.top - line.top) < 5 * self._pitch or x is line)

    def at(self, line: Line) -> float:
        """The right end of the column that `line` is in."""
        edges = [e for x, e in self._edges if abs(x - line.left) < self._reach and e > line.right]
        if edges:
            edge = min(edges)
            key = round(line.left / self._reach), round(edge / self._reach)
            if key not in self._known and len(self._known) < _MOST_EDGES:
                column = [x.right for x in self._lines if abs(x.left - line.left) < self._reach and x.right < edge]
                self._known[key] = max(column, default=line.right)
            if key in self._known:
                return max(self._known[key], line.right)
        within = self._widest[bisect_right(self._lefts, line.left + self._reach) - 1]
        return max(self._margin, within)


def _beside(lines: Sequence[Line], width: float) -> list[tuple[float, float]]:
    """Where columns stand side by side: left edges of lines and of those to their right, the most frequent first.

    Only lines that fill most of the way count, so that a table or an address at
    the right does not pass for a second column.
    """
    found: Counter[tuple[int, int]] = Counter()
    order = sorted((x for x in lines if not x.is_row), key=lambda x: x.top)
    for n, a in enumerate(order):
        for b in order[n + 1 : n + 1 + _NEIGHBOURS]:
            if b.top >= a.bottom:
                break
            left, right = (a, b) if a.left < b.left else (b, a)
            full = left.right - left.left > max(_COLUMN_CHARS * width, 0.6 * (right.left - left.left))
            if right.left > left.right and full:
                found[round(left.left / width), round(right.left / width)] += 1
    return [(x * width, e * width) for (x, e), times in found.most_common() if times > 2]
