"""Tables as Markdown, and comma-separated files.

Knows rows of cells. Must not know where they come from.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

_DELIMITERS = ",;\t|"
_MOST_FILLED = 4_000_000  # cells of a table; in a larger one, one long row would lengthen all others


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A row a line, with the first as its head; empty rows and columns at the edges are left out. "" if nothing is in it."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    cells = [row for row in cells if any(row)]
    if not cells:
        return ""
    used = {i for row in cells for i, cell in enumerate(row) if cell}
    first, last = min(used), max(used) + 1
    fill = [""] * last if len(cells) * last < _MOST_FILLED else []
    shown = [(row + fill)[first:last] for row in cells]
    if last - first == 1:
        return "\n".join("".join(row) for row in shown)
    head, *rest = (f"| {' | '.join(row)} |" for row in shown)
    return "\n".join([head, f"|{' --- |' * (last - first)}", *rest])


def read_csv(text: str) -> str:
    """A comma-separated file (or one with tabs, semicolons, bars) as a table; as it is if its rows don't agree."""
    text = text.removeprefix("\ufeff")
    stated = re.match(r'"?sep=([,;\t|])"?\r?\n', text)  # as Excel writes it
    text = text[stated.end() :] if stated else text
    for delimiter in (stated[1],) if stated else sorted(_DELIMITERS, key=lambda one: -text[:16_384].count(one)):
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        lengths = {len(row) for row in rows if row}
        if len(lengths) <= 2 and min(lengths, default=0) > 1:
            return markdown_table(rows)
    return text.strip()
