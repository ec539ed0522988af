"""No text makes its reader's work grow with the square of its length: four times the text takes far less than sixteen times as long.

Measured is this process's own time, and what is short is repeated, so a busy machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfextend_local.documents.characters import clean
from selfextend_local.documents.citations import find_citations
from selfextend_local.documents.columns import in_reading_order
from selfextend_local.documents.document import without_markers
from selfextend_local.documents.headers import without_furniture
from selfextend_local.documents.html import read_html
from selfextend_local.documents.kinds import is_html
from selfextend_local.documents.layout import Line, RawPage, page_from_text
from selfextend_local.documents.legibility import is_nonsense
from selfextend_local.documents.load import load_bytes
from selfextend_local.documents.paragraphs import paragraphs, vocabulary
from selfextend_local.documents.passages import sentences_of, words_of
from selfextend_local.documents.text import read_text

pytestmark = pytest.mark.process

SEEDS = {
    "hashes": lambda n: "# x" + "#" * (n // 2) + " " * (n // 2) + "x",
    "spaces": lambda n: "a" + " " * n + "b",
    "brackets": lambda n: "[page " * (n // 6),
    "open comments": lambda n: "<!-- a " * (n // 7),
    "comments": lambda n: "<!---->" * (n // 7),
    "quotes": lambda n: "“a " * (n // 3),
    "one word": lambda n: "a" * n,
    "figures": lambda n: "1," * (n // 2),
    "lines": lambda n: "The pump ran.\n" * (n // 14),
    "short lines": lambda n: "a\n" * (n // 2),
    "stops": lambda n: "." * n,
    "references": lambda n: "pages " + "1, " * (n // 3),
    "hyphens": lambda n: "a-\n" * (n // 3),
}

READERS: dict[str, Callable[[str], object]] = {
    "clean": clean,
    "find_citations": find_citations,
    "without_markers": without_markers,
    "is_html": lambda text: is_html(Path("a.txt"), text.encode()),
    "is_nonsense": is_nonsense,
    "read_text": lambda text: read_text(Path("a.txt"), text.encode()),
    "read_markdown": lambda text: read_text(Path("a.md"), text.encode()),
    "read_html": read_html,
    "paragraphs": lambda text: paragraphs(page_from_text(text), vocabulary([page_from_text(text)]), 0.0),
    "sentences_of": lambda text: list(sentences_of(text)),
    "words_of": lambda text: words_of.__wrapped__(text),
    "load_bytes": lambda text: load_bytes(text.encode()),
}

SHORT, TIMES = 20_000, 4
WORTH_MEASURING_S = 0.02


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_work_does_not_grow_with_the_square(reader: str, seed: str) -> None:
    read, make = READERS[reader], SEEDS[seed]
    long = _seconds(read, make(SHORT * TIMES))
    if long > WORTH_MEASURING_S:
        assert min(long, _seconds(read, make(SHORT * TIMES))) < 11 * max(_seconds(read, make(SHORT)) for _ in range(2))


@pytest.mark.parametrize("beside", [0.0, 0.01])
def test_nor_does_that_of_a_page_with_its_lines(beside: float) -> None:
    """Lines below each other in two columns, or all in one row."""

    def laid_out(text: str) -> object:
        count = len(text)
        lines = [
            Line("The pump ran.", 70 + i % 2 * 200, 150 + i % 2 * 200, i * 5.0, i * 5.0 + 4, drawn=i) if not beside
            else Line("The pump", 70 + i * beside, 150 + i * beside, 100, 110, drawn=i)
            for i in range(count)
        ]  # fmt: skip
        pages = without_furniture([RawPage(tuple(in_reading_order(lines)), 600, 800, "", measured=True)] * 3)
        return paragraphs(pages[0], vocabulary(pages), 0.0)

    short, long = "x" * 1500, "x" * 6000
    assert min(_seconds(laid_out, long) for _ in range(2)) < 11 * max(_seconds(laid_out, short) for _ in range(2))


def _seconds(read: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    read(text)
    return time.process_time() - started
