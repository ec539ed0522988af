"""Cutting documents: nothing is lost, nothing is too long, borders fall where a reader would put them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from selfextend_local.documents import Document, Page
from selfextend_local.documents.sections import page_names, split


def words(text: str) -> int:
    return len(text.split())


def paged(*texts: str) -> Document:
    return Document(Path("a.pdf"), "A", tuple(Page(n, str(n), t) for n, t in enumerate(texts, 1)), (), paged=True)


def plain(text: str) -> Document:
    return Document(Path("a.txt"), "A", (Page(1, "1", text),), (), paged=False)


def test_sections_begin_at_pages_and_know_them() -> None:
    sections = split(paged(*["word " * 100] * 6), words, 330)
    assert [(s.first, s.last) for s in sections] == [("1", "3"), ("4", "6")]
    assert sections[0].text.startswith("[page 1]\nword")
    assert sections[1].label == "pages 4-6"


def test_a_chapter_in_the_second_half_is_the_border() -> None:
    pages = ["word " * 100] * 8
    pages[3] = "Chapter 2\n\n" + "word " * 98
    assert split(paged(*pages), words, 430)[0].last == "3"


def test_a_page_longer_than_the_room_is_cut_and_each_piece_names_it() -> None:
    sections = split(paged("A sentence of six words here. " * 100), words, 100)
    assert len(sections) >= 7
    assert all(s.text.startswith("[page 1]\n") and s.label == "page 1" for s in sections)
    assert all(s.text.rstrip().endswith(".") for s in sections)


def test_names_of_pages() -> None:
    assert page_names(None, None) == ""
    assert page_names("iv", "iv") == "page iv"
    assert page_names("3", "7") == "pages 3-7"
    assert page_names("A-1", "A-2") == "pages A-1 to A-2"


@given(st.text(st.sampled_from("ab .\n"), max_size=2000), st.integers(20, 90))
def test_nothing_is_lost_and_nothing_too_long(text: str, room: int) -> None:
    sections = split(plain(text), words, room)
    assert "".join("".join(s.text for s in sections).split()) == "".join(text.split())
    assert all(words(s.text) <= room for s in sections)
