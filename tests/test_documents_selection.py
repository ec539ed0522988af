"""Selecting and trimming: never over the budget, in order, and honest about what is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfextend_local.documents import Document, Page
from selfextend_local.documents.selection import GAP, Selection, select_passages, trim
from selfextend_local.sample import report

FILLER = "The boat came in with flour and rope, and the crew went up to the house to eat. "


def words(text: str) -> int:
    """A count that isn't the sum of its parts: the last word of one text and the first of the next may become one."""
    return len(text.split()) + text.count("\n\n") // 3


def growing(text: str) -> int:
    """A count by which a text costs more than its parts together."""
    return int(len(text.split()) ** 1.2)


def document(texts: list[str], name: str = "book", *, paged: bool = True) -> Document:
    pages = tuple(Page(n, str(n), text) for n, text in enumerate(texts, start=1))
    return Document(Path(f"{name}.pdf"), name, pages, (), paged=paged)


def book(n_pages: int = 20, name: str = "book") -> Document:
    """Pages of filler; on page 7 the lamp, on page 15 the oil."""
    texts = [f"Opening of page {n}.\n\n{FILLER * 12}\n\n{FILLER * 12}" for n in range(1, n_pages + 1)]
    texts[6] += "\n\nThe lamp of the tower is number 4711. " + FILLER * 6
    texts[14] += "\n\nThe lamp burns oil from whales. " + FILLER * 6
    return document(texts, name)


def kept_text(selection: Selection) -> str:
    return " ".join(page.text for document in selection.documents for page in document.pages)


def test_the_passages_that_match_are_kept_in_order() -> None:
    selection = select_passages([book()], "Which number has the lamp?", 700, words)
    text = selection.text
    assert words(text) == selection.tokens <= 700
    assert text.startswith("[page 1]\nOpening of page 1.")
    assert text.index("[page 7]") < text.index("4711") < text.index("[page 15]") < text.index("whales")
    assert selection.pages == (("1", "7", "15"),)
    assert selection.sentence == "Pages 1, 7, 15 of 20 are in."
    assert not selection.complete


def test_gaps_are_marked_once_each() -> None:
    text = select_passages([book()], "lamp", 700, words).text
    assert text.count(GAP) == 3  # after the opening, after page 7, at the end
    assert not text.startswith(GAP) and text.endswith("to eat.") is False
    assert "\n\n[…]\n\n[page 7]" in text


def test_without_room_for_the_opening_the_match_comes_first() -> None:
    made = document([FILLER * 8, FILLER * 8 + "\n\nThe lamp is number 4711. " + "Rope and flour. " * 30, FILLER * 8])
    selection = select_passages([made], "lamp", 140, words)
    assert "4711" in selection.text and selection.tokens <= 140
    assert selection.sentence == "Page 2 of 3 is in."
    assert selection.text.startswith("[page 2]\n[…]\n\n")


def test_what_fits_is_returned_whole() -> None:
    made = book()
    for selection in (select_passages([made], "lamp", 10**6, words), trim([made], 10**6, words)):
        assert selection.complete
        assert selection.documents == (made,)
        assert selection.text == made.text_with_markers()
        assert selection.sentence == "Everything is in."


def test_a_question_without_a_match_takes_the_beginning_and_says_so() -> None:
    selection = select_passages([book()], "Zebras?", 500, words)
    assert selection.pages[0][0] == "1"
    assert selection.sentence.startswith("No word of the question is in the text, so its beginning is taken. Page")


def test_trim_names_what_is_left_out() -> None:
    selection = trim([book()], 1500, words)
    assert selection.tokens <= 1500
    assert selection.sentence == "Pages 1-4 of 20 are in, 5-20 left out."
    assert selection.text.endswith(GAP)


def test_several_documents() -> None:
    made = [book(name="one"), document([FILLER * 30] * 5, "two"), document(["Nothing."], "three")]
    selection = select_passages(made, "lamp", 900, words)
    assert selection.pages[0] == ("1", "7", "15")
    assert selection.sentence.startswith("one: pages 1, 7, 15 of 20 are in; two: page 1 of 5 is in; three: ")
    assert "two: nothing is in; three: nothing is in." in trim(made, 300, words).sentence


def test_documents_without_pages() -> None:
    made = document([f"Head.\n\n{FILLER * 100}\n\nThe lamp is 4711.\n\n{FILLER * 100}"], paged=False)
    selection = select_passages([made], "lamp", 300, words)
    assert "4711" in selection.text and "[page" not in selection.text
    assert selection.sentence.endswith("% of the text is in.")


def test_forged_markers_stay_mended() -> None:
    made = book()
    forged = Document(made.path, made.title, (*made.pages, Page(21, "21", "[page 3]\nThe lamp is 1.")), (), paged=True)
    assert "[page 3]" not in select_passages([forged], "lamp", 700, words).text


def test_passages_are_counted_once() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    select_passages([book(200)], "lamp boat", 2000, count)
    parts = [text for text in counted if "[page" not in text]
    assert len(parts) == len({id(text) for text in parts})
    assert sum(map(len, counted)) < 6 * 16 * 2000 + len(book(200).text_with_markers())


texts = st.lists(st.text(alphabet="ab lamp.\n[]", max_size=1500), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 400), st.booleans(), st.sampled_from(["lamp", "a b", "zebra", ""]), st.sampled_from([words, growing]))
def test_never_over_the_budget(pages: list[str], budget: int, paged: bool, question: str, count: Callable[[str], int]) -> None:
    made = [document(pages, paged=paged), document(pages[::-1], "other", paged=paged)]
    for selection in (select_passages(made, question, budget, count), trim(made, budget, count)):
        assert selection.tokens == count(selection.text) <= budget
        order = [text for document in made for page in document.pages for text in page.text.split()]
        remaining = iter(order)
        assert all(word in remaining for word in kept_text(selection).replace(GAP, "").split())
        assert [len(p) for p in selection.pages] == [
            sum(bool(page.text) for page in next((d.pages for d in selection.documents if d.title == m.title), ())) for m in made
        ]


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("What is the radio code of the lighthouse?", "35926"),
        ("What was the strongest gust of the year?", "97 knots"),
        ("Who will be the next warden of the observatory?", "Signe Aldous"),
        ("What did the school at Port Ellery send?", "eleven hang in the common room"),
    ],
)
def test_questions_about_a_long_report(question: str, passage: str) -> None:
    chapters = [*report.chapters("opening"), *report.chapters("february"), *(report.month_chapter(m, 11) for m in range(12))]
    made = document(["\n\n".join([c.title, *c.paragraphs]) for c in [*chapters, *report.chapters("closing")]])
    selection = select_passages([made], question, 700, words)
    assert selection.tokens <= 700 < words(made.text_with_markers()) / 10
    assert passage in " ".join(selection.text.split())
