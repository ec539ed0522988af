"""From hard-wrapped lines to paragraphs.

Knows when two lines belong to one paragraph: from white space, indents, font
size, and whether the next word would still have fitted on the line. Knows how to
rejoin a word divided at the end of a line. Must not know files, formats or page
furniture (already removed).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from .characters import SOFT_HYPHEN, clean
from .layout import (
    Line,
    RawPage,
    char_width_of,
    pitch_of,
    same_row,
)

_PARAGRAPH = "\n\n"
_LINE = "\n"
_CELL = "  "
_LONGEST_WORD = 60

_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
_LAST_PART = re.compile(r"([^\W\d_]+)[-\u00ad]$")
_FIRST_PART = re.compile(r"[^\W\d_]+")
_BULLET = re.compile(r"[•‣◦▪●○■□*]\s|[-–]\s|\(?(?:\d{1,2}|[a-zA-Z])[.)]\s")
_SENTENCE_END = re.compile(r"[.!?:;…][\"'”’)\]]*$")
_PROSE_CHARS = 30
_COLUMN_CHARS = 18  # narrower is a list or a table, not a column of prose
_RUNS_ON = re.compile(r"[\w,’']$")
_LEADERS = re.compile(r"(?:\s?[.·…_]){4,}")
_CONTENTS_ROW = re.compile(r"(?:\s?[.·…_]){4,}\s*\w{1,6}$")
_SPACES = re.compile(r"[ \t]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


def vocabulary(pages: Iterable[RawPage]) -> frozenset[str]:
    """The words of a document that are not divided, in lower case.

    It tells "exam-ple" (join) from "well-known" (keep), in any language.
    """
    words: set[str] = set()
    for page in pages:
        divided = False
        for line in page.lines:
            found = _WORD.findall(line.text.casefold())
            first = 1 if divided else 0
            divided = bool(_LAST_PART.search(line.text))
            words.update(found[first : -1 if divided else None])
    return frozenset(words)


def rejoin(head: str, tail: str, words: frozenset[str]) -> str:
    """The word divided as "head-" and "tail", with or without its hyphen."""
    left, right = head.casefold(), tail.casefold()
    if left + right in words:
        return head + tail
    if f"{left}-{right}" in words or not tail[:1].islower():
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
    parts: list[str] = []
    current = ""
    for line, joint in zip(page.lines, _joints(page, margin), strict=True):
        # Runs of spaces inside a line carry no meaning; two spaces mark a table cell.
        text = _SPACES.sub(" ", line.text.strip())
        if joint == " ":
            current = _joined(current, text, words)
        else:
            parts += [current, joint]
            current = text
    return "".join(_tidy(part) if part.strip() else part for part in [*parts, current]).strip()


def _tidy(part: str) -> str:
    shown = clean(part.replace(SOFT_HYPHEN, "-"))
    return _LEADERS.sub(" ...", _SPACES.sub(" ", shown)).strip()


def _joined(text: str, line: str, words: frozenset[str]) -> str:
    # Only the end of the text is searched, or long paragraphs would cost their square.
    head, tail = _LAST_PART.search(text, max(0, len(text) - _LONGEST_WORD)), _FIRST_PART.match(line)
    if head and tail:
        word = rejoin(head[1], tail[0], words)
        return text[: head.start()] + word + line[tail.end() :]
    if text.endswith(("—", "--", SOFT_HYPHEN)) or _is_unspaced(text, line):
        return text + line
    return f"{text} {line}"


def _is_unspaced(text: str, line: str) -> bool:
    """Chinese and Japanese have no space between words, hence none at line ends."""
    return bool(_UNSPACED.match(text[-1:]) and _UNSPACED.match(line[:1]))


@dataclass(frozen=True, slots=True)
class _Measures:
    """What is typical of a page."""

    lines: tuple[Line, ...]
    measured: bool
    pitch: float
    width: float  # of a character
    margin: float
    beside: tuple[tuple[float, float], ...]


def _joints(page: RawPage, margin: float) -> Iterator[str]:
    """What stands before each line: nothing, a space, or a break."""
    lines = page.lines
    if not lines:
        return
    width = char_width_of(lines)
    beside = tuple(_beside(lines, width)) if page.measured else ()
    typical = _Measures(lines, page.measured, pitch_of(lines), width, margin, beside)
    yield ""
    in_paragraph = in_item = False
    for a, b in pairwise(lines):
        in_item = bool(_BULLET.match(a.text)) or (in_item and in_paragraph)
        joint = _joint(a, b, typical, in_paragraph, in_item)
        in_paragraph = joint == " "
        yield joint


def _joint(a: Line, b: Line, typical: _Measures, in_paragraph: bool, in_item: bool) -> str:
    pitch, width = typical.pitch, typical.width
    if same_row(a, b) and b.left >= a.right - width:
        return _CELL
    if max(a.height, b.height) > 1.15 * min(a.height, b.height):
        return _PARAGRAPH
    runs_on = bool(_RUNS_ON.search(a.text)) and b.text[:1].islower()
    divided = bool(_LAST_PART.search(a.text)) and b.text[:1].isalpha()
    if b.top < a.top - 0.5 * a.height:
        # The next column, or a text box drawn out of order.
        return " " if runs_on or divided else _PARAGRAPH
    step = b.top - a.top
    if step > 1.8 * pitch or (step > 1.3 * pitch and not (runs_on or divided)):
        return _PARAGRAPH
    if divided:
        return " "
    short, ended = _is_short(a, b, typical), bool(_SENTENCE_END.search(a.text))
    if _BULLET.match(b.text) and (short or ended):
        return _LINE
    indented = typical.measured and not in_item and b.left > a.left + 0.8 * width
    # A word alone on its line: the producer wrapped text that was wrapped already.
    stray = " " not in a.text and not ended and not indented
    if in_paragraph and (runs_on or stray):
        return " "
    open_end = in_paragraph and not ended and not indented
    if (runs_on or open_end) and _is_prose(a, typical):
        return " "
    if _CONTENTS_ROW.search(a.text) or _is_spread(a, typical) or _is_spread(b, typical):
        return _LINE
    if indented and (short or not runs_on):
        return _PARAGRAPH
    if not short:
        return " "
    return _PARAGRAPH if in_paragraph or ended else _LINE


def _is_prose(line: Line, typical: _Measures) -> bool:
    """Whether `line` is long, and about as long as its neighbours.

    Then a sentence that breaks off in it goes on, whatever the page's margin says;
    that margin misleads where a second column, or a wider block, has ended.
    """
    near = 5 * typical.pitch
    margin = max(x.right for x in typical.lines if abs(x.top - line.top) < near)
    return len(line.text) > _PROSE_CHARS and line.right - line.left > 0.8 * (margin - line.left)


def _is_spread(line: Line, typical: _Measures) -> bool:
    """Whether the words stand far apart, as in a row of a table."""
    dense = min(typical.width, 0.5 * line.height)
    spread = line.right - line.left > 1.5 * dense * len(line.text)
    return typical.measured and spread and " " in line.text


def _is_short(a: Line, b: Line, typical: _Measures) -> bool:
    """Whether b's first word would have fitted on a: then the break was meant."""
    width = typical.width
    slack = (1 if typical.measured else 6) * width
    first = re.split(r"[\s—]", b.text, maxsplit=1)[0]
    needed = (1 if _UNSPACED.match(first) else len(first)) * width
    return a.right + width + needed < _margin_at(a, typical) - slack


def _margin_at(line: Line, typical: _Measures) -> float:
    """Where the lines of the column that `line` is in end."""
    reach = 4 * typical.width
    edges = [e for x, e in typical.beside if abs(x - line.left) < reach and e > line.right]
    if len(edges) > 2:
        edge = min(edges)
        column = [x for x in typical.lines if abs(x.left - line.left) < reach]
        return max(x.right for x in column if x.right < edge)
    return max(typical.margin, *(x.right for x in typical.lines if x.left <= line.left + reach))


def _beside(lines: Sequence[Line], width: float) -> Iterator[tuple[float, float]]:
    """Where columns stand side by side: left edges of a line and of one to its right.

    Only lines that fill most of the way count, so that a table or an address at
    the right does not pass for a second column.
    """
    for a in lines:
        if a.right - a.left < _COLUMN_CHARS * width:
            continue
        for b in lines:
            overlap = min(a.bottom, b.bottom) > max(a.top, b.top)
            if overlap and b.left > a.right and a.right - a.left > 0.6 * (b.left - a.left):
                yield a.left, b.left
