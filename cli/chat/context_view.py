"""/context as a picture: what fills the window, what of it is exact, and how far it is to the next growth and to the end.

Knows figures and a width. Prints nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING

from selfextend_local.positions import RECALL_SINKS

if TYPE_CHECKING:
    from selfextend_local.chat.conversation import Filling
    from selfextend_local.positions import GroupAttention

WIDEST = 76
_GROUPED = "╌┈·"  # from the nearest groups on; the last for all beyond
_COLOURS = {"system": 35, "turns": 32}
_DOCUMENT_COLOURS = (34, 36, 33, 31)


@dataclass(frozen=True)
class Window:
    """What the picture shows. `documents`: a name for each of `filling.documents`; `growth`: a length and what the text goes over to
    there, or None."""

    filling: Filling
    documents: Sequence[str]
    questions: int
    group: GroupAttention
    growth: tuple[int, GroupAttention] | None


@dataclass(frozen=True)
class _Part:
    name: str
    tokens: int
    letter: str
    colour: int


def picture(window: Window, columns: int, *, colour: bool) -> list[str]:
    """The lines, none wider than `columns` unless that is below 24."""
    width = max(20, min(columns - 1, WIDEST))
    parts = [p for p in _parts(window) if p.tokens]
    cells = _cells([*(p.tokens for p in parts), window.filling.free], width)
    free = ("░" if colour else ".") * cells[-1]
    bar = "".join(_painted(p, "█" * n) if colour else p.letter * n for p, n in zip(parts, cells, strict=False)) + free
    room = len(f"{window.filling.capacity:,}")
    lines = [bar, *_reading(window, width, room)]
    for part in parts:
        mark = _painted(part, "█") if colour else part.letter
        lines.append(f"{mark} {part.tokens:>{room},}  {_short(part.name, width - room - 4)}")
    lines.append(f"{'░' if colour else '.'} {window.filling.free:>{room},}  free of {window.filling.capacity:,}")
    return lines + [part for line in _ahead(window) for part in textwrap.wrap(line, width)]


def _parts(window: Window) -> list[_Part]:
    filling = window.filling
    documents = [
        _Part(name, tokens, chr(ord("A") + i % 26), _DOCUMENT_COLOURS[i % len(_DOCUMENT_COLOURS)])
        for i, (name, tokens) in enumerate(zip(window.documents, filling.documents, strict=True))
    ]
    asked = f"{window.questions} question{'s' if window.questions != 1 else ''} and answer{'s' if window.questions != 1 else ''}"
    turns = _Part(asked if window.questions else "chat template", filling.turns, "t", _COLOURS["turns"])
    return [_Part("system prompt", filling.system, "s", _COLOURS["system"]), *documents, turns]


def _reading(window: Window, width: int, room: int) -> list[str]:
    """A line under the bar: the parts that are read in groups, the farthest first, then the part that is exact. `room`: for figures."""
    used = window.filling.read
    if not used:
        return textwrap.wrap("Nothing is read yet: it is read with the next question.", width)
    borders = (*window.group.borders(used - 1), 0)
    if window.group.recall and borders[0]:
        return _recalled(window, width, room, borders[0])
    levels = zip(chain(_GROUPED, repeat(_GROUPED[-1])), window.group.sizes, pairwise(borders), strict=False)
    grouped = [(mark, near - far, f"in groups of {n}") for mark, n, (near, far) in levels]
    parts = [part for part in (*reversed(grouped), ("━", used - borders[0], "exact")) if part[1]]
    cells = _cells([*(tokens for _, tokens, _ in parts), max(0, window.filling.capacity - used)], width)
    line = "".join(mark * n for (mark, _, _), n in zip(parts, cells, strict=False))
    return [line, *(f"{mark} {tokens:>{room},}  {what}" for mark, tokens, what in parts)]


def _recalled(window: Window, width: int, room: int, border: int) -> list[str]:
    """As `_reading`, of a text that is read by recall: which far tokens are fetched changes with each question and layer."""
    fetched = RECALL_SINKS + window.group.recall
    parts = [
        ("░", border - fetched, "left out, until a question fetches them"),
        ("▒", fetched, "fetched"),
        ("━", window.filling.read - border, "exact"),
    ]
    cells = _cells([*(tokens for _, tokens, _ in parts), max(0, window.filling.capacity - window.filling.read)], width)
    line = "".join(mark * n for (mark, _, _), n in zip(parts, cells, strict=False))
    return [line, *(f"{mark} {tokens:>{room},}  {what}" for mark, tokens, what in parts)]


def _ahead(window: Window) -> list[str]:
    used = max(window.filling.read, window.filling.total)
    lines = []
    if window.growth:
        length, group = window.growth
        change = "far text is left out until it is fetched" if group.recall else f"n grows from {window.group.n} to {group.n}"
        lines.append(f"{change} at {length:,} tokens: {max(0, length - used):,} more")
    else:
        lines.append("recall stays as it is to the end" if window.group.recall else f"n stays {window.group.n} to the end")
    lines.append(f"the window ends at {window.filling.capacity:,} tokens: {max(0, window.filling.capacity - used):,} more")
    return lines


def _cells(amounts: Sequence[int], width: int) -> list[int]:
    """`width` shared out in proportion; whatever is there at all gets a cell."""
    total = sum(amounts) or 1
    cells = [max(1, int(a * width / total)) if a else 0 for a in amounts]
    largest = max(range(len(amounts)), key=lambda i: amounts[i])
    cells[largest] += width - sum(cells)
    return cells


def _painted(part: _Part, text: str) -> str:
    return f"\x1b[{part.colour}m{text}\x1b[39m"


def _short(text: str, most: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= most else set_cell_size(text, max(1, most - 1)).rstrip() + "…"
