"""Columns of short lines, each page drawn here: an index, a list in columns and a reference card are read column by column, a table row
by row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from fpdf import FPDF

from selfextend_local.documents import load_document

WORDS = "anchor barge canal depot ebb ferry gauge harbour inlet jetty keel lock mole nautical oar pier quay raft sluice tide".split()  # noqa: SIM905


def read(path: Path, cells: Iterable[tuple[float, float, str]]) -> str:
    """The text of a page with these words at x, y from the upper left corner, in the file's order."""
    pdf = FPDF(unit="pt", format=(500, 500))
    pdf.set_font("helvetica", size=10)
    pdf.add_page()
    for x, y, text in cells:
        pdf.text(x, y, text)
    pdf.output(str(path))
    return load_document(path).pages[0].text


def in_order(text: str, words: Iterable[str]) -> bool:
    places = [text.find(word) for word in words]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("columns", [2, 4])
@pytest.mark.parametrize("by_row", [False, True])
def test_an_index_is_read_column_by_column(tmp_path: Path, columns: int, by_row: bool) -> None:
    entries = sorted(f"{word}{more}, {3 * n + 2}, {4 * n + 5}" for n, word in enumerate(WORDS) for more in ("", "age"))
    long = len(entries) // columns
    cells = [(40 + 450 / columns * (n // long), 40 + 14 * (n % long), entry) for n, entry in enumerate(entries)]
    if by_row:
        cells.sort(key=lambda cell: cell[1])
    assert in_order(read(tmp_path / "index.pdf", cells), entries)


def test_entries_below_others_are_read_with_them(tmp_path: Path) -> None:
    entries = [line for n, word in enumerate(WORDS) for line in (f"{word}, {n + 3}", f"   new {n}, {n + 60}")]
    cells = [(40 + 220 * (n // 20) + 12 * (n % 2), 40 + 14 * (n % 20), entry.strip()) for n, entry in enumerate(entries)]
    assert in_order(read(tmp_path / "index.pdf", cells), [entry.strip() for entry in entries])


def test_a_card_of_keys_is_read_column_by_column(tmp_path: Path) -> None:
    cells = []
    for column in range(3):
        for n, word in enumerate(WORDS):
            cells += [(20 + 160 * column, 40 + 14 * n, f"move {word}{column}"), (120 + 160 * column, 40 + 14 * n, f"C-{word[0]}{column}")]
    text = read(tmp_path / "card.pdf", cells)
    assert in_order(text, [f"{word}{column}" for column in range(3) for word in WORDS])


def test_a_table_stays_rows_though_a_column_is_sorted(tmp_path: Path) -> None:
    cells = []
    for n, word in enumerate(WORDS):
        cells += [(40, 40 + 14 * n, word), (250, 40 + 14 * n, "yes" if n % 3 else "no")]
    for order in (cells, sorted(cells)):
        text = read(tmp_path / "table.pdf", order)
        assert all(f"{word}  {'yes' if n % 3 else 'no'}" in text or f"| {word} | {'yes' if n % 3 else 'no'} |" in text
                   for n, word in enumerate(WORDS))  # fmt: skip


def test_a_balance_keeps_terms_and_amounts_together(tmp_path: Path) -> None:
    cells = []
    for n, word in enumerate(WORDS[:10]):
        cells += [(40, 40 + 14 * n, word), (150, 40 + 14 * n, f"{n + 11},500")]
    text = read(tmp_path / "balance.pdf", sorted(cells))
    assert all(f"{word}  {n + 11},500" in text or f"{word} | {n + 11},500" in text for n, word in enumerate(WORDS[:10]))
