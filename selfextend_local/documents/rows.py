"""Rows of tables: cells that stand beside each other become one line.

Knows when a gap in a line parts cells, and when rows make a Markdown table. Must not know paragraphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from selfextend_local.documents.layout import Line, same_row

_CELL = "  "
_MARKDOWN_COLUMNS = 3  # two are labels and their values as often
_MARKDOWN_ROWS = 3
_STRAY = 3.0  # heights of white space that justified text may hold


def with_rows(lines: Sequence[Line]) -> tuple[Line, ...]:
    """`lines` in reading order, with those that stand side by side joined to one line with their cells apart."""
    rows = list(_rows(lines))
    result: list[Line] = []
    i = 0
    while i < len(rows):
        stop = i
        while stop < len(rows) and len(rows[stop]) > 1:
            stop += 1
        if stop == i:
            result.append(rows[i][0])
            i += 1
        else:
            result += _table(rows[i:stop])
            i = stop
    return tuple(result)


def _rows(lines: Sequence[Line]) -> Iterator[list[Line]]:
    row: list[Line] = []
    for line in lines:
        if row and not (same_row(row[-1], line) and line.left >= row[-1].right - 0.3 * line.height):
            yield row
            row = []
        row.append(line)
    if row:
        yield row


def _table(rows: list[list[Line]]) -> list[Line]:
    if len(rows) == 1 and _is_stray(rows[0]):
        return [_boxed(rows[0], " ".join(x.text for x in rows[0]), is_row=False)]
    columns = _columns(rows)
    if len(rows) >= _MARKDOWN_ROWS and len(columns) >= _MARKDOWN_COLUMNS:
        cells = [_placed(row, columns) for row in rows]
        if all(row is not None for row in cells):
            marked = ["| " + " | ".join(x.replace("|", "/") for x in row) + " |" for row in cells if row is not None]
            marked[0] += "\n|" + "---|" * len(columns)
            return [_boxed(row, text, is_row=True) for row, text in zip(rows, marked, strict=True)]
    return [_boxed(row, _CELL.join(x.text for x in row), is_row=True) for row in rows]


def _is_stray(row: Sequence[Line]) -> bool:
    """Whether the gaps of a row are those of justified text: its neighbours have none there, and it is two pieces of prose."""
    a, b = row[0], row[-1]
    return len(row) == 2 and b.left - a.right < _STRAY * a.height and len(a.text.split()) > 3 and len(b.text.split()) > 3


def _columns(rows: Sequence[Sequence[Line]]) -> list[tuple[float, float]]:
    """The stretches of x that cells take up."""
    stretches = sorted((x.left, x.right) for row in rows for x in row)
    columns = [stretches[0]]
    for left, right in stretches[1:]:
        if left < columns[-1][1]:
            columns[-1] = columns[-1][0], max(columns[-1][1], right)
        else:
            columns.append((left, right))
    return columns


def _placed(row: Sequence[Line], columns: Sequence[tuple[float, float]]) -> list[str] | None:
    """The cells of a row, one for each column; None if two fall into one."""
    cells = [""] * len(columns)
    for line in row:
        i = next(n for n, (left, right) in enumerate(columns) if left <= line.left and line.right <= right)
        if cells[i]:
            return None
        cells[i] = line.text
    return cells


def _boxed(row: Sequence[Line], text: str, *, is_row: bool) -> Line:
    first = replace(row[0], text=text, is_row=is_row)
    return replace(first, right=row[-1].right, top=min(x.top for x in row), bottom=max(x.bottom for x in row))
