"""No text makes the work on it grow with the square of its length: four times the text takes far less than sixteen times as long.

Measured is this process's own time, and what is short is repeated, so a busy machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from selfextend_cli.terminal.markdown import render
from selfextend_cli.terminal.output import visible

from selfextend_local.documents.characters import clean
from selfextend_local.documents.citations import check_citations, find_citations
from selfextend_local.documents.columns import in_reading_order
from selfextend_local.documents.document import Document, Page, without_markers
from selfextend_local.documents.headers import without_furniture
from selfextend_local.documents.html import read_html
from selfextend_local.documents.kinds import is_html
from selfextend_local.documents.labels import fit_labels, select_pages
from selfextend_local.documents.layout import Line, RawPage, page_from_text
from selfextend_local.documents.legibility import is_nonsense
from selfextend_local.documents.load import load_bytes
from selfextend_local.documents.mail import read_mail
from selfextend_local.documents.marking import _Compared, _nearest
from selfextend_local.documents.paragraphs import paragraphs, vocabulary
from selfextend_local.documents.passages import sentences_of, words_of
from selfextend_local.documents.sections import split
from selfextend_local.documents.selection import select_passages, trim
from selfextend_local.documents.tables import read_csv
from selfextend_local.documents.text import read_text
from selfextend_local.documents.written import read_rtf
from selfextend_local.errors import DocumentError
from selfextend_local.generation.markers import Markers
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import Writing, _TextStream, within
from selfextend_local.generation.thinking import parts

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
    "citations": lambda n: "[page 3] " * (n // 9),
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


def document(pages: int, text: str = "The pump ran well today.", *, unreadable: int = 0) -> Document:
    read = tuple(Page(i, str(i), f"{text} {i}") for i in range(1, pages + 1))
    return Document(Path("a"), "t", read, tuple(range(1, unreadable + 1)), True)


def one_page(text: str, *, paged: bool = False) -> Document:
    return Document(Path("a"), "t", (Page(1, "1", text),), (), paged)


def words(text: str) -> int:
    return len(text.split())


def stopped(text: str, stop: str) -> str:
    stream = _TextStream([stop], False)
    return "".join(stream.feed(char.encode()) for char in text)


def written_with_most_words(count: int) -> None:
    prompts: Any = SimpleNamespace(stop_tokens=(), stop_texts=())
    llm: Any = SimpleNamespace(ends_answers=lambda token: False, detokenize=lambda tokens: b"word")
    writing = Writing(llm, prompts, Sampling(max_tokens=count, max_words=3), count)
    for token in range(count):
        writing.take(token)


def unnamed_pages(wanted: str) -> None:
    with pytest.raises(DocumentError):
        select_pages(document(5), wanted)


# A size of it, and the work for such a size.
WORK: dict[str, tuple[int, Callable[[int], object]]] = {
    "sections of pages": (1500, lambda n: split(document(n), words, 50)),
    "sections of paragraphs": (20_000, lambda n: split(one_page("\n\n".join(["a b c"] * n)), words, 20)),
    "sections of one word": (20_000, lambda n: split(one_page("a" * n), len, 50)),
    "a selection": (800, lambda n: select_passages([document(n)], "pump", 6 * n, words)),
    "a selection of the last pages": (800, lambda n: select_passages([document(n, "It stood."), document(n)], "pump", 6 * n, words)),
    "a selection of many documents": (2000, lambda n: select_passages([document(1) for _ in range(n)], "pump", 6 * n, words)),
    "the beginning": (4000, lambda n: trim([document(n)], 6 * n, words)),
    "warnings of pages without text": (3000, lambda n: document(n, unreadable=n).warnings),
    "all pages named": (3000, lambda n: document(n).names(list(range(n)))),
    "labels, half of them alike": (5000, lambda n: fit_labels(["x"] * n + [str(i) for i in range(2 * n)])),
    "pages with many dashes": (4000, lambda n: unnamed_pages("1-" * n)),
    "pages with many commas": (10_000, lambda n: select_pages(document(5), "1," * n)),
    "references": (3000, lambda n: check_citations("[page 3] " * n, [document(20)])),
    "claims with references": (500, lambda n: check_citations("The pump ran well [page 3]. " * n, [document(20)])),
    "one claim with many references": (500, lambda n: check_citations("The pump ran well " + "[page 3] " * n, [document(20)])),
    "one reference with many pages": (
        500,
        lambda n: check_citations(f"It ran well [pages {', '.join(map(str, range(1, n + 1)))}].", [document(20)]),
    ),
    "quotes that are nowhere": (300, lambda n: check_citations("“the pump ran ill” [page 1]. " * n, [document(n)])),
    "a quote that is left out of": (
        1000,
        lambda n: check_citations("“" + "a b … " * n + "” [page 1].", [one_page("a b " * n, paged=True)]),
    ),
    "a claim full of quotes": (500, lambda n: check_citations("“a b” " * n + "[page 1].", [one_page("a b " * n, paged=True)])),
    "a claim as monotonous as its page": (
        500,
        lambda n: check_citations("Not " + "pump " * n + "[page 1]", [one_page("pump " * n, paged=True)]),
    ),
    "thoughts": (4000, lambda n: list(parts("<think>" + "a " * n + "</think>" + "b" * n))),
    "white space in thoughts": (20_000, lambda n: list(parts("<think>" + " " * n + "</think>" + " " * n))),
    "many thoughts": (4000, lambda n: list(parts(["<think>a</think>" * n]))),
    "tags that are none": (5000, lambda n: list(parts("<" * n, open=True))),
    "a stop text that may yet come": (5000, lambda n: stopped("\n" * n, "\nUser:")),
    "an answer of so many words": (3000, written_with_most_words),
    "the words of an answer": (10_000, lambda n: within("a. " * n, n // 2)),
    "marks in a text": (5000, lambda n: Markers(["<|im_start|>"], lambda mark: 1).cut("<|im_start|><|" * n)),
    "what drives a terminal": (20_000, lambda n: visible("\x1b" * n)),
    "an answer in Markdown": (1500, lambda n: render("[a](" * n + "\n\n*a_ `" * n)),
    "a table of commas": (3000, lambda n: read_csv("a,b\n" * n)),
    "a look that changes": (2000, lambda n: read_rtf(Path("a.rtf"), ("{\\rtf1 " + "{\\b a\\super b}" * n + "}").encode())),
    "recipients of a mail": (300, lambda n: read_mail(b"From: a\nTo: " + b"a <b@c.d>, " * n + b"\n\nHi.")),
    "encoded words of a mail": (4000, lambda n: read_mail(b"Subject: " + b"=?utf-8?q?a?= " * n + b"\n\nHi.")),
    "parameters of a mail": (1500, lambda n: read_mail(b"From: a\nContent-Type: text/plain" + b"; a=b" * n + b"\n\nHi.")),
    "parts of a mail": (800, lambda n: read_mail(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nhi\n" * n + b"--b--")),
    "a passage looked for on a page": (5000, lambda n: list(_Compared("1 a-" * n).places("1a"))),
    "a passage that isn't there": (5000, lambda n: _nearest("a b " * n, "a " * n)),
}


@pytest.mark.parametrize("name", WORK)
def test_nor_does_other_work(name: str) -> None:
    size, work = WORK[name]
    long = _seconds(work, TIMES * size)
    if long > WORTH_MEASURING_S:
        assert min(long, _seconds(work, TIMES * size)) < 11 * max(_seconds(work, size) for _ in range(2))


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


def _seconds(work: Callable[[Any], object], size: Any) -> float:
    started = time.process_time()
    work(size)
    return time.process_time() - started
