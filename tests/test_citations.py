"""Citations: which references are seen, and that nothing is called verified that isn't on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfextend_local.documents import Document, Page
from selfextend_local.documents.citations import Citation, Status, check_citations, find_citations, holds, suggest_page
from selfextend_local.documents.search import PassageIndex

PAGES = {
    "i": "Foreword.\n\nThis book was written in 1904 by the keeper.",
    "ii": "",
    "1": "The keeper lit the lamp at dusk. Darcy met Wickham on the stair, but he did not greet him.\n\n"
    "“It is a truth universally acknowledged,” he said, “that a well-known lamp must be in want of oil.”",
    "2": "The lamp burns 3.5 litres of oil a night, which costs 1,000 pounds a year.\n\nThe treaty was not signed in 1904.",
    "3": "Prices rose by 12% after the storm. Nobody was hurt. The boat came back.",
}
BOOK = Document(
    Path("lamps.pdf"),
    "A Book of Lamps",
    tuple(Page(n, label, text) for n, (label, text) in enumerate(PAGES.items(), start=1)),
    (2,),
    paged=True,
)
OTHER = Document(Path("b.pdf"), "Ships", (Page(1, "1", "The ship sank in 1911 off the cape."), Page(2, "2", "Done.")), (), paged=True)
BOOK_OF_CHAPTERS = Document(
    Path("c.epub"),
    "Tales",
    (Page(1, "3 Men in a Boat", "The river was cold."), Page(2, "The End", "They went home at last.")),
    (),
    paged=True,
)


def found(answer: str) -> list[tuple[str, str]]:
    return [(reference.label, reference.title) for reference in find_citations(answer)]


def only(answer: str, *documents: Document) -> Citation:
    (citation,) = check_citations(answer, documents or (BOOK,))
    return citation


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Oil [page 12].", ["12"]),
        ("Oil [Page 12].", ["12"]),
        ("Oil [pages 3-5].", ["3-5"]),
        ("Oil [pages 3–5, 9 and 12].", ["3-5", "9", "12"]),
        ("Oil (p. 12).", ["12"]),
        ("Oil (see pp. 3 to 5).", ["3-5"]),
        ("On page iv it says so; page 12 too.", ["iv", "12"]),
        ("[page 1][page 2]", ["1", "2"]),
        ("[page 1, page 2; p. 3]", ["1", "2", "3"]),
        ("[page A-12]", ["A-12"]),
        ("Page 3 of 40.", ["3"]),
        ("**page 12**", ["12"]),
        ("[page The End]", ["The End"]),
        ("page 12\nand [page 13\n]", ["12", "13"]),
        ("40 pages, 12 pages long, a page from a book, page I like", []),
        ("homepage 12, p 3, pp, [page ], (page), [pages]", []),
        ("", []),
    ],
)
def test_references(answer: str, expected: list[str]) -> None:
    assert [label for label, _ in found(answer)] == expected


def test_titles_in_references() -> None:
    assert found("[A Book of Lamps, page 3]") == [("3", "A Book of Lamps")]
    assert found("(Ships: pp. 1-2)") == [("1-2", "Ships")]
    assert found("(see page 3)") == [("3", "")]
    assert found("[Tales, page The End]") == [("The End", "Tales")]


@given(st.text(alphabet="[]()pPage. 1-3,;ivx“”\"\n", max_size=80))
def test_any_answer_can_be_checked(answer: str) -> None:
    for citation in check_citations(answer, [BOOK, OTHER]):
        assert 0 <= citation.reference.start < citation.reference.end <= len(answer)


@pytest.mark.parametrize(
    "answer",
    [
        'It says "that a well-known lamp must be in want of oil" [page 1].',
        "It says “THAT a well known lamp\nmust be in want of oil.” (p. 1)",
        'On page 1: "the lamp at dusk. Darcy met Wickham".',
        '"It is a truth … in want of oil" [page 1]',
        '"in want of oil" is what the lamp must be. "that a well-known lamp must be in want" [page 1]',
        'The lamp "burns 3.5 litres of oil" [page 2].',
        '"which costs 1000 pounds a year" [page 2]',
        '"litres of oil a night" [pages 1-2]',
        '"Prices rose by 12%" [page 3]',
        '"Prices rose by 12%" [page 5]',  # no such label, but a fifth page
    ],
)
def test_quotes_on_the_page_are_verified(answer: str) -> None:
    citation = only(answer)
    assert (citation.status, citation.is_quote) == (Status.VERIFIED, True)
    assert citation.passage is not None and citation.document is BOOK


@pytest.mark.parametrize(
    "answer",
    [
        'It says "that a well-known lamp must not be in want of oil" [page 1].',
        '"Darcy met Wickham on the stair, but he did greet him" [page 1]',
        '"burns 35 litres of oil" [page 2]',
        '"burns 3.5 litres of oil" [page 1]',
        '"costs 100 pounds a year" [page 2]',
        '"Prices rose by 12" % [page 2]',
        '"in want of oil … It is a truth" [page 1]',  # in another order
        '"he keeper lit the lam" [page 1]',  # parts of words
        '"The keeper lit the lamp" and "a lamp of gold" [page 1]',
    ],
)
def test_quotes_that_are_not_on_the_page(answer: str) -> None:
    assert only(answer).status is Status.NOT_ON_PAGE


def test_where_the_quote_really_is() -> None:
    citation = only('"burns 3.5 litres of oil" [page 1]')
    assert (citation.elsewhere, citation.claim) == ("2", "burns 3.5 litres of oil")
    assert only('"burns whale oil at night" [page 1]').elsewhere is None


def test_a_true_quote_with_a_false_number_beside_it() -> None:
    assert only('In 1812 he wrote "the lamp burns 3.5 litres of oil" [page 2].').status is Status.UNVERIFIED


@pytest.mark.parametrize(
    "answer",
    [
        "The keeper lit the lamp at dusk [page 1].",
        "The lamp burns 3.5 litres of oil a night [page 2].",
        "According to the document, the lamp burned 3.5 litres of oil. [page 2]",
        "Page 2 says that the lamp burns 3.5 litres.",
        "According to page 2, the lamp burns 3.5 litres.",
        "On page 2, the lamp burns 3.5 litres.",
        "The treaty was not signed in 1904 [page 2].",
        "Prices rose by 12% (p. 3).",
        "- Nobody was hurt [page 3]\n- zebras",
        "This book was written in 1904 by the keeper [page i].",
        "- Prices rose by 12% after the storm\n[page 3]",
    ],
)
def test_claims_in_the_words_of_the_page_are_verified(answer: str) -> None:
    assert only(answer).status is Status.VERIFIED


@pytest.mark.parametrize(
    "answer",
    [
        "The treaty was signed in 1904 [page 2].",
        "The keeper didn't light the lamp at dusk [page 1].",
        "Wickham met Darcy on the stair [page 1].",
        "Darcy greeted him [page 1].",
        "The lamp burns 35 litres of oil a night [page 2].",
        "The lamp burns 3.5 litres of oil a day [page 2].",
        "Prices fell by 12% [page 3].",
        "Prices rose by 12 pounds [page 3].",
        "Prices rose by 12% before the storm [page 3].",
        "The keeper lit the lamp at dusk [page 3].",
        "Everybody was hurt [page 3].",
        "The keeper, who killed a man, lit the lamp at dusk [page 1].",
        "1904 [page 2].",
        "Yes [page 2].",
        "[page 2]",
        "The lamp is expensive [page 2].",
        "The keeper lit the lamp at dusk [page ii].",
    ],
)
def test_claims_that_the_page_does_not_make_are_unverified(answer: str) -> None:
    assert only(answer).status is Status.UNVERIFIED


def test_each_reference_has_its_own_part_of_the_sentence() -> None:
    answer = "The keeper lit the lamp at dusk [page 1] and prices rose by 12% [page 3] after the storm. The lamp burns oil [page 1]."
    citations = check_citations(answer, [BOOK])
    assert [c.claim for c in citations] == [
        "The keeper lit the lamp at dusk",
        "and prices rose by 12% after the storm.",
        "The lamp burns oil.",
    ]
    assert [c.status for c in citations] == [Status.VERIFIED, Status.VERIFIED, Status.UNVERIFIED]


def test_adjacent_references_share_their_sentence() -> None:
    citations = check_citations("The keeper lit the lamp at dusk [page 1][page 3].", [BOOK])
    assert [c.status for c in citations] == [Status.VERIFIED, Status.UNVERIFIED]


@pytest.mark.parametrize("answer", ["Oil [page 12].", "Oil [page iii].", "Oil [pages 3-1].", "Oil [pages 2-99].", "Oil [page The End]."])
def test_no_such_page(answer: str) -> None:
    citation = only(answer)
    assert (citation.status, citation.document, citation.passage) == (Status.NO_SUCH_PAGE, None, None)


def test_a_document_without_pages_has_none_to_cite() -> None:
    plain = Document(Path("a.txt"), "a", (Page(1, "1", "The keeper lit the lamp at dusk."),), (), paged=False)
    assert only("The keeper lit the lamp at dusk [page 1].", plain).status is Status.NO_SUCH_PAGE


def test_an_answer_that_repeats_itself_is_checked_once() -> None:
    citations = check_citations("The lamp is lit [page 1]. " * 500, [BOOK])
    assert len({citation.reference.start for citation in citations}) == 500
    assert {citation.passage is citations[0].passage for citation in citations} == {True}


def test_several_documents() -> None:
    sank = only("The ship sank in 1911 [page 1].", BOOK, OTHER)
    assert (sank.status, sank.document) == (Status.VERIFIED, OTHER)
    assert only("The ship sank in 1911 [A Book of Lamps, page 1].", BOOK, OTHER).status is Status.UNVERIFIED
    assert only("The ship sank in 1911 [Ships, page 1].", BOOK, OTHER).status is Status.VERIFIED
    assert only("The ship sank in 1911 [Ships, page 3].", BOOK, OTHER).status is Status.NO_SUCH_PAGE


def test_chapters_as_pages() -> None:
    assert only("The river was cold [page 3 Men in a Boat].", BOOK_OF_CHAPTERS).status is Status.VERIFIED
    assert only("They went home at last [page The End].", BOOK_OF_CHAPTERS).status is Status.VERIFIED


def test_the_passage_shown_is_the_closest_of_the_page() -> None:
    long = "Rope and flour came in by boat that week, as they do. " * 14
    page = Page(1, "1", f"{long}\n\n{long}\n\nThe lamp is number 4711.\n\n{long}")
    citation = only("The number of the lamp is 4711 [page 1].", Document(Path("a.pdf"), "a", (page,), (), paged=True))
    assert citation.passage is not None and "4711" in citation.passage.text
    assert page.text[citation.passage.offset :].startswith(citation.passage.text)


def test_words_divided_at_line_ends_and_cjk() -> None:
    assert holds("The light-\nhouse keeper", "lighthouse keeper")
    assert holds("The lighthouse keeper", "light-house keeper")
    assert holds("达西先生在亨斯福德求婚。", "先生在亨斯福德")
    assert not holds("x", "… !")


def test_suggest_page() -> None:
    with PassageIndex([BOOK, OTHER]) as index:
        passage = suggest_page("The ship sank in 1911.", [BOOK, OTHER], index)
    assert passage is not None and (passage.document, passage.label) == (OTHER, "1")
    assert suggest_page('In 1812 he said "in want of oil".', [BOOK]) is None
    quoted = suggest_page('It says "a well-known lamp must be in want".', [BOOK])
    assert quoted is not None and quoted.label == "1"
    assert suggest_page("Zebras are striped.", [BOOK]) is None
    assert suggest_page("", [BOOK]) is None
