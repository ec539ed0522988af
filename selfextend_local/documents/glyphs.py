"""From the characters of a PDF page to lines of text.

Knows where characters stand: which make a line, which way it runs, what is raised, which scripts run from the right or
downwards. Must not know the library that found the characters, nor in which order lines are read (`columns` does).
Everything is sorted or summed over arrays, so a page costs n log n.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selfextend_local.documents.characters import HYPHEN_MARKS, SOFT_HYPHEN, clean
from selfextend_local.documents.formulas import raised
from selfextend_local.documents.layout import Line, rows

UPRIGHT, UP, REVERSED, DOWN = range(4)  # quarter turns against the clock
VERTICAL = 4  # upright characters below each other
SLANTED = 5

_CELL = 1.0  # heights of white space between two cells, or two columns
_SPACE = 0.2  # heights of white space that PDFium may have left unsaid
_SAID_SPACE = 0.06  # heights of white space at which the file has a space; a joiner of words (ZWNJ) has less
_BRACKETS = frozenset(map(ord, "()[]{}«»"))
_MARKS = np.array(sorted(map(ord, HYPHEN_MARKS)))
_MOST_RAISED = 8  # characters; longer ones are text set small


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters of a page in the file's order.

    Attributes:
        codes: UTF-16 units, (n,) uint16; 0 is a character that the file gives no meaning.
        boxes: left, top, right, bottom in points, y upwards, (n, 4) float32; of equal height within a font where the font says its height.
        angles: degrees against the clock, (n,) float32.
    """

    codes: Any
    boxes: Any
    angles: Any

    def __len__(self) -> int:
        return len(self.codes)


def lines_by_direction(glyphs: Glyphs, width: float, height: float) -> dict[int, list[Line]]:
    """The lines that run each way, in a frame of their own: x along the line, y from line to line.

    Args:
        width, height: of the page, in points. Boxes are relative to its lower left corner.
    """
    codes = glyphs.codes
    seen = np.flatnonzero(~_combining(codes) & (codes > 32) & (codes != 0xA0) & (codes != 0xFEFF) | (codes == 0) | (codes == 2))
    if not len(seen):
        return {}
    ways = _ways(glyphs, seen)
    found: dict[int, list[Line]] = {}
    for way in np.unique(ways):
        mine = seen[ways == way]
        boxes = framed(glyphs.boxes, int(way), width, height)
        rightwards = bool((((codes[mine] >= 0x590) & (codes[mine] < 0x900)) | ((codes[mine] >= 0xFB1D) & (codes[mine] < 0xFEFD))).any())
        runs = list(_runs_from_right(codes, boxes, mine)) if rightwards else list(_runs(codes, boxes, mine))
        found[int(way)] = _merged(runs)
    return found


def _combining(codes: Any) -> Any:
    """Accents that belong to the character before them, wherever they were drawn."""
    return (codes >= 0x300) & (codes < 0x370)


def _ways(glyphs: Glyphs, seen: Any) -> Any:
    """The way that each of the characters `seen` runs."""
    turns = np.round(glyphs.angles[seen] / 90) % 4
    slant = np.abs((glyphs.angles[seen] + 45) % 90 - 45) > 3
    ways = np.where(slant, SLANTED, turns).astype(np.int8)
    ways[_stacked(glyphs, seen) & (ways == UPRIGHT)] = VERTICAL
    return ways


def _stacked(glyphs: Glyphs, seen: Any) -> Any:
    """Which characters stand in columns: four or more of Chinese or Japanese, each close below the one before."""
    codes, boxes = glyphs.codes[seen], glyphs.boxes[seen]
    stacked = np.zeros(len(seen), bool)
    east = (codes >= 0x3000) & (codes < 0xA000) | (codes >= 0xF900) & (codes < 0xFB00) | (codes >= 0xFF00) & (codes < 0xFFF0)
    if east.sum() < 4:
        return stacked
    size = np.maximum(boxes[:, 1] - boxes[:, 3], 0.1)
    beside = np.abs((boxes[1:, 0] + boxes[1:, 2] - boxes[:-1, 0] - boxes[:-1, 2]) / 2) < 0.5 * size[:-1]
    step = boxes[:-1, 3] - boxes[1:, 3]
    below = beside & (step > 0.4 * size[:-1]) & (step < 1.5 * size[:-1]) & east[1:] & east[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], below, [False])).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= 3:
            stacked[start : stop + 1] = True
    if stacked.sum() * 2 > east.sum():
        stacked |= east & ~_sideways(boxes, size)  # the last few of a column
    return stacked


def _sideways(boxes: Any, size: Any) -> Any:
    """Which characters have a neighbour on their own line."""
    beside = np.abs(boxes[1:, 3] - boxes[:-1, 3]) < 0.3 * size[:-1]
    return np.concatenate(([False], beside)) | np.concatenate((beside, [False]))


def framed(boxes: Any, way: int, width: float, height: float) -> Any:
    """Boxes as left, right, top, bottom in the frame of a line that runs this way."""
    x0, y1, x1, y0 = boxes.T
    if way == UP:
        sides = y0, y1, x0, x1
    elif way == REVERSED:
        sides = width - x1, width - x0, y0, y1
    elif way in (DOWN, VERTICAL):
        sides = height - y1, height - y0, width - x1, width - x0
    elif way == SLANTED:
        # Along the rising diagonal; only the order of such characters matters.
        sides = x0, x1, np.zeros_like(x0), np.zeros_like(x0) + 10
    else:
        sides = x0, x1, height - y1, height - y0
    return np.stack(sides, axis=1)


def _runs(codes: Any, boxes: Any, seen: Any) -> Iterator[Line]:
    """Characters that follow each other in the file and on the page."""
    here = boxes[seen]
    tall = here[:, 3] - here[:, 2]
    least, most = np.minimum(tall[1:], tall[:-1]), np.maximum(tall[1:], tall[:-1])
    shared = np.minimum(here[1:, 3], here[:-1, 3]) - np.maximum(here[1:, 2], here[:-1, 2])
    gap = here[1:, 0] - here[:-1, 1]
    shift = np.abs(here[1:, 3] - here[:-1, 3])
    above = np.abs(np.minimum(here[1:, 2], here[:-1, 2]) - np.where(tall[1:] < tall[:-1], here[1:, 2], here[:-1, 2])) < 0.08 * most
    small = (least < 0.85 * most) & (shift > 0.15 * most) & above
    broken = (shared < 0.5 * least) | (here[1:, 0] < here[:-1, 0] - 0.5 * most) | (gap > _CELL * most) | small
    starts = np.concatenate(([0], np.flatnonzero(broken) + 1))
    stops = np.concatenate((starts[1:], [len(seen)]))
    lefts, tops = np.minimum.reduceat(here[:, 0], starts), np.minimum.reduceat(here[:, 2], starts)
    rights, bottoms = np.maximum.reduceat(here[:, 1], starts), np.maximum.reduceat(here[:, 3], starts)
    firsts, lasts = seen[starts], seen[stops - 1]
    for n in np.flatnonzero(_combining(codes[np.minimum(lasts + 1, len(codes) - 1)])).tolist():
        while lasts[n] + 1 < len(codes) and _combining(codes[lasts[n] + 1]):
            lasts[n] += 1
    sides = zip(lefts.tolist(), rights.tolist(), tops.tolist(), bottoms.tolist(), strict=True)
    for first, last, (left, right, top, bottom) in zip(firsts.tolist(), lasts.tolist(), sides, strict=True):
        yield Line(_text(codes[first : last + 1]), left, right, top, bottom, drawn=first)


def _text(units: Any) -> str:
    """What these UTF-16 units say. A hyphen mark that ends them may join a word; within a line it is a hyphen."""
    text: str = units.astype("<u2").tobytes().decode("utf-16-le", "replace")
    if text.isascii() and text.isprintable():
        return text
    shown = "".join("\ufffd" if c == "\0" else c for c in text if c not in "\r\n")
    divided = shown[-1:] in HYPHEN_MARKS
    for mark in HYPHEN_MARKS:
        shown = shown.replace(mark, "-")
    return clean(shown[:-1]) + SOFT_HYPHEN if divided else clean(shown)


def _merged(runs: Sequence[Line]) -> list[Line]:
    """Runs that stand close beside each other as one line, however the file drew them; from the top down."""
    lines: list[Line] = []
    for row in rows(runs):
        current: Line | None = None
        for run in row:
            if current is not None and _close(current, run):
                current = _joined(current, run)
            else:
                if current is not None:
                    lines.append(current)
                current = run
        if current is not None:
            lines.append(current)
    return lines


def _close(a: Line, b: Line) -> bool:
    gap = b.left - a.right
    return -0.6 * min(a.height, b.height) <= gap <= _CELL * max(min(a.height, b.height), 0.8 * max(a.height, b.height))


def _joined(a: Line, b: Line) -> Line:
    """Two runs as one, with a space where there is room for one, and what is raised told apart."""
    gap = (b.left - a.right) / max(a.height, b.height, 0.1)
    smaller, higher = b.height < 0.85 * a.height, a.bottom - b.bottom > 0.15 * a.height and b.top < a.top + 0.08 * a.height
    if smaller and higher and gap < 0.5 and len(b.text) <= _MOST_RAISED:
        text = a.text.rstrip() + raised(a.text, b.text)
        return replace(a, text=text, right=max(a.right, b.right), top=min(a.top, b.top))
    text = f"{a.text} {b.text}" if gap > _SPACE * 0.7 else a.text + b.text
    return replace(a, text=text, right=max(a.right, b.right), top=min(a.top, b.top), bottom=max(a.bottom, b.bottom))


def _runs_from_right(codes: Any, boxes: Any, seen: Any) -> Iterator[Line]:
    """As `_runs`, for pages with letters that run from the right: by where they stand, whatever their order in the file."""
    tall = float(np.median(boxes[seen, 3] - boxes[seen, 2])) or 10.0
    middle = (boxes[seen, 2] + boxes[seen, 3]) / 2
    order = seen[np.argsort(middle, kind="stable")]
    levels = np.sort(middle)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(levels) > 0.3 * tall) + 1))
    for start, stop in zip(starts, np.concatenate((starts[1:], [len(order)])), strict=True):
        row = order[start:stop]
        row = row[np.argsort(boxes[row, 0], kind="stable")]
        yield from _row_from_right(codes, boxes, row, tall)


def _row_from_right(codes: Any, boxes: Any, row: Any, tall: float) -> Iterator[Line]:
    gaps = boxes[row[1:], 0] - np.maximum.accumulate(boxes[row, 1])[:-1]
    cuts = np.concatenate(([0], np.flatnonzero(gaps > 1.5 * tall) + 1, [len(row)]))
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        part = row[start:stop]
        visual: list[str] = []
        edge = float(boxes[part[0], 0])
        before = int(part[0])
        for i in part.tolist():
            gap = float(boxes[i, 0]) - edge
            if gap > _SPACE * tall or (gap > _SAID_SPACE * tall and _says_space(codes, before, i)):
                visual.append(" ")
            before = i
            visual.append(_text(codes[i : i + 1]).replace(SOFT_HYPHEN, "-"))
            edge = max(edge, float(boxes[i, 1]))
        box = boxes[part]
        text = logical([c for c in visual if c])
        sides = float(box[:, 0].min()), float(box[:, 1].max()), float(box[:, 2].min()), float(box[:, 3].max())
        yield Line(text, *sides, drawn=int(part.min()))


def _says_space(codes: Any, a: int, b: int) -> bool:
    """Whether the file has a space, and no more than that, between these two characters, of which none is a bracket."""
    if _BRACKETS & {int(codes[a]), int(codes[b])}:
        return False
    between = codes[min(a, b) + 1 : max(a, b)]
    return 0 < len(between) <= 2 and bool(((between == 32) | (between == 0xA0)).all())


def logical(visual: Sequence[str]) -> str:
    """The characters of a line, given from left to right as they stand, in the order in which they are read."""
    kinds = "".join(_CLASSES.get(unicodedata.bidirectional(c[0]), "o") for c in visual)
    chars = list(visual)
    if kinds.count("R") < kinds.count("L"):
        return "".join(_turned(chars, kinds, _FROM_RIGHT))
    return "".join(_turned(_mirrored(chars[::-1]), kinds[::-1], _FROM_LEFT))


# Classes of the bidirectional algorithm (UAX 9): L and R letters, N digits, t what belongs to them, s signs, c what stands between
# digits, o the rest.
_CLASSES = {"L": "L", "R": "R", "AL": "R", "EN": "N", "AN": "N", "CS": "c", "ES": "s", "ET": "t", "WS": " "}
_FROM_RIGHT = re.compile(r"R(?:[RNcsto ]*R)?")
_FROM_LEFT = re.compile(r"(?:(?<!t)t+)?[LN](?:[LNcsto ]*[LN])?t*(?:s(?= |$))?")
_NUMBER = re.compile(r"(?:(?<!t)t+)?N(?:[cst]?N)*t*(?:s(?= |$))?")  # a sign before it has its place behind it here


def _turned(chars: list[str], kinds: str, stretches: re.Pattern[str]) -> list[str]:
    """`chars` with each stretch that runs against the line reversed, numbers within it apart."""
    result = list(chars)
    for match in stretches.finditer(kinds):
        start, stop = match.span()
        within = kinds[start:stop]
        if "R" in within:
            part = _mirrored(chars[start:stop][::-1])
            result[start:stop] = _turned(part, within[::-1], _NUMBER)
        elif "L" in within or chars[stop - 1] == "+":  # a telephone number
            result[start:stop] = chars[start:stop][::-1]
        else:
            for number in _NUMBER.finditer(within):
                a, b = start + number.start(), start + number.end()
                result[a:b] = chars[a:b][::-1]
    return result


_PAIRS = {"(": ")", ")": "(", "[": "]", "]": "[", "{": "}", "}": "{", "<": ">", ">": "<", "«": "»", "»": "«"}


def _mirrored(chars: Sequence[str]) -> list[str]:
    """`chars` with brackets turned round, if they then open before they close."""
    turned = [_PAIRS.get(c, c) for c in chars]
    return turned if _misplaced(turned) < _misplaced(chars) else list(chars)


def _misplaced(chars: Sequence[str]) -> int:
    depth, wrong = 0, 0
    for c in chars:
        if c in "([{«":
            depth += 1
        elif c in ")]}»":
            wrong += depth == 0
            depth = max(0, depth - 1)
    return wrong + depth


def is_from_right(text: str) -> bool:
    """Whether most of `text` is letters that run from the right."""
    return sum("\u0590" <= c < "\u0900" or "\ufb1d" <= c < "\ufefd" for c in text) * 2 > len(text)


def majority(lines: dict[int, list[Line]]) -> int:
    """The way that most characters run."""
    counts = Counter({way: sum(len(line.text) for line in some) for way, some in lines.items() if way != SLANTED})
    return counts.most_common(1)[0][0] if counts else UPRIGHT
