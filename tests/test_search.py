"""Search: what is found, in which order, and that nothing typed is an error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfextend_local import errors
from selfextend_local.documents import Document, Page
from selfextend_local.documents import search as search_module
from selfextend_local.documents.passages import passages_of, sentences_of, words_of
from selfextend_local.documents.search import PassageIndex


def document(*texts: str, name: str = "a") -> Document:
    pages = tuple(Page(n, str(n), text) for n, text in enumerate(texts, start=1))
    return Document(Path(f"{name}.pdf"), name, pages, (), paged=True)


LAMP = document(
    "The keeper lit the lamp at dusk.\n\nHe had carried two cans of oil.",
    "Under § 4.2 of the rules the oil is 3.5% water. The lamps are lit daily.",
    "达西先生在亨斯福德向伊丽莎白求婚。",
    "The keeper's café has a well-known view; “it is the finest view”, he said, oil or no oil.",
)


@pytest.fixture(scope="module")
def index() -> PassageIndex:
    return PassageIndex([LAMP])


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("lamp", ["1", "2"]),
        ("lighting LAMPS", ["1", "2"]),  # stems
        ("keeper oil cans", ["1", "4", "2"]),  # with both words first
        ('"two cans of oil"', ["1"]),
        ('"oil of cans"', []),
        ('"finest view" keeper', ["4"]),
        ('lamp "finest view"', ["4"]),
        ("§ 4.2", ["2"]),
        ("4.2", ["2"]),
        ("3.5%", ["2"]),
        ("5", ["2"]),  # part of a number: better than nothing
        ("lamp zebra", ["1", "2"]),
        ("well-known", ["4"]),
        ("cafe", ["4"]),
        ("keepers", ["1", "4"]),
        ("求婚", ["3"]),
        ("伊丽莎白", ["3"]),
        ("白丽", []),
        ("arried two", ["1"]),  # part of a word: as it is written
        ("zebra", []),
    ],
)
def test_find(index: PassageIndex, text: str, pages: list[str]) -> None:
    assert [passage.label for passage in index.find(text)] == pages


def test_limit_and_places(index: PassageIndex) -> None:
    assert len(index.find("oil", limit=2)) == 2
    assert index.find("oil", limit=0) == []
    for passage in index.find("oil"):
        assert passage.page.text[passage.offset :].startswith(passage.text)
        assert passage.document is LAMP


@given(st.text(max_size=40))
@example('"')
@example('AND OR NOT NEAR("a" "b", 5)')
@example("a* ^b c:d {x y} -z +")
@example("''\"\"\x00")
@example("(" * 50)
@example("w " * 2000)
def test_nothing_typed_is_an_error(index: PassageIndex, text: str) -> None:
    assert isinstance(index.find(text), list)
    assert isinstance(index.scores(text), dict)


@given(st.lists(st.text(alphabet="ab .\n“”1達", max_size=400), max_size=4))
def test_passages_are_slices_that_lose_only_white_space(texts: list[str]) -> None:
    made = document(*texts)
    passages = list(passages_of(made))
    for passage in passages:
        assert made.pages[passage.page.number - 1].text[passage.offset : passage.offset + len(passage.text)] == passage.text
    assert "".join("".join(p.text.split()) for p in passages) == "".join("".join(text.split()) for text in texts)


def test_long_paragraphs_are_cut_at_sentences() -> None:
    sentence = "The keeper climbed the stair with oil for the lamp, and went down again. "
    passages = list(passages_of(document(sentence * 60)))
    assert len(passages) > 4
    assert all(400 < len(p.text) <= 900 and p.text.endswith("again.") for p in passages[:-1])


def test_text_without_any_place_to_cut_is_cut() -> None:
    assert all(len(p.text) <= 900 for p in passages_of(document("x" * 5000)))


def test_sentences() -> None:
    text = "Mr. Bennet went. “Did he?” she said. Then A. B. Smith left at 3 p.m. on Monday! 完了。好。"
    assert [text[a:b] for a, b in sentences_of(text)] == [
        "Mr. Bennet went.",
        "“Did he?” she said.",
        "Then A. B. Smith left at 3 p.m. on Monday!",
        "完了。",
        "好。",
    ]


def test_words_are_compared_without_case_accents_and_hyphens() -> None:
    assert words_of("Señor’s WELL-known 1,000 cans — 3.5% of 12:30") == words_of("senor's well known 1000 cans 3.5 % of 12:30")
    assert words_of("35%") != words_of("3.5%")


def test_several_documents() -> None:
    other = document("No lamp here, only a lamp.", name="b")
    with PassageIndex([LAMP, other]) as index:
        assert {passage.document.title for passage in index.find("lamp")} == {"a", "b"}


def test_sqlite_without_fts5(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, *args: object) -> sqlite3.Cursor:
            raise sqlite3.OperationalError("no such module: fts5")

    monkeypatch.setattr(search_module.sqlite3, "connect", lambda *args, **kwargs: Connection(":memory:"))
    with pytest.raises(errors.LibraryError, match="no FTS5"):
        PassageIndex([LAMP])
