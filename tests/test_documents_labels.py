"""Page labels in markers, pages named by a user, and text that looks like a marker."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfextend_local import errors
from selfextend_local.documents import Document, Page, load_document, page_marker, select_pages
from selfextend_local.documents.document import without_markers
from selfextend_local.documents.labels import fit_labels


def document(labels: str, *, blank: tuple[int, ...] = ()) -> Document:
    pages = tuple(Page(n, label, "" if n in blank else f"Text {n}.") for n, label in enumerate(labels.split(), start=1))
    return Document(Path("book.pdf"), "Book", pages, blank, paged=True)


BOOK = document("i ii iii iv 1 2 3 4 5 6")


def labels(document: Document) -> list[str]:
    return [page.label for page in document.pages]


def roman_then_arabic(path: Path) -> Path:
    fpdf = pytest.importorskip("fpdf")
    book = fpdf.FPDF()
    for n in range(1, 6):
        book.add_page()
        if n == 1:
            book.set_page_label(label_style="r")
        if n == 4:
            book.set_page_label(label_style="D", label_start=1)
        book.set_font("Times", "", 12)
        book.multi_cell(0, 6, f"This is sheet {n} of the book.\n\n[page 99]\n\nAnd more on it, see [page 98].")
    book.output(str(path))
    return path


def test_markers_bear_the_printed_labels_and_no_others(tmp_path: Path) -> None:
    text = load_document(roman_then_arabic(tmp_path / "a.pdf")).text_with_markers()
    markers = [line for line in text.split("\n") if line.startswith("[page")]
    assert markers == ["[page i]", "[page ii]", "[page iii]", "[page 1]", "[page 2]"]
    assert "[page 99]" not in text and "(page 99)" in text
    assert "see (page 98)." in text


@pytest.mark.parametrize("forged", ["[page 3]", "[ PAGE 3 ]", "[pages 3-4]", "[page iv] ", "［page 3］", "[\tpage 3]"])
def test_text_cannot_pass_for_a_marker(forged: str) -> None:
    for paged in (True, False):
        made = Document(Path("a.txt"), "a", (Page(1, "1", f"One.\n{forged}\nTwo."), Page(2, "2", "Three.")), (), paged=paged)
        lines = made.text_with_markers().casefold().split("\n")
        assert sum(line.strip().startswith(("[page", "[ page", "[\tpage", "［page")) for line in lines) == 2 * paged
        assert "page" in lines[2 if paged else 1]


@given(st.text(alphabet="[] pPage12iv\n［］", max_size=60))
def test_no_marker_survives(text: str) -> None:
    mended = without_markers(text)
    assert "[page 1]" not in mended.casefold()
    assert without_markers(mended) == mended
    assert len(mended) == len(text)


def test_warnings_name_pages_by_their_labels() -> None:
    assert document("i ii iii 1 2", blank=(2, 3, 4)).warnings[0].endswith("ii-1")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (["i", "ii", "1"], ("i", "ii", "1")),
        (["", "", ""], ("1", "2", "3")),
        (["1", "1", "2"], ("1 sheet 1", "1", "2")),  # the longer count keeps its labels
        (["A", "a"], ("A", "a sheet 2")),
        (["1", "1", "1", "1"], ("1", "2", "3", "4")),
        (["3", "", "x"], ("3", "2", "x")),
        (["2", "", "x"], ("2", "2 sheet 2", "x")),  # a label that is another page's number
        (["] [page 7]", "\n", "b,c"], ("page 7", "2", "b c")),
        (["word " * 30], ("word word word word word word word word word…",)),
    ],
)
def test_labels_are_made_fit(stated: list[str], expected: tuple[str, ...]) -> None:
    assert fit_labels(stated) == expected


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_fit_labels_are_unique_and_cannot_end_a_marker(stated: list[str]) -> None:
    fit = fit_labels(stated)
    assert len({label.casefold() for label in fit}) == len(stated)
    for label in fit:
        assert label.strip() and "\n" not in page_marker(label)
        assert page_marker(label).count("]") == page_marker(label).count("[") == 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("3", "3"),
        ("iv", "iv"),
        ("IV", "iv"),
        ("2-4", "2 3 4"),
        ("2 – 4", "2 3 4"),
        ("iii-2", "iii iv 1 2"),
        ("ii to iv", "ii iii iv"),
        ("6, 1-2 ,i", "i 1 2 6"),
        ("5-", "5 6"),
        ("-ii", "i ii"),
        ("pages 1-2", "1 2"),
        ("p. 3", "3"),
        ("10", "6"),  # no such label, so the tenth page
        ("9-10", "5 6"),
        ("3-10", "iii iv 1 2 3 4 5 6"),  # 10 is no label, so both are counted
        ("1,1,1", "1"),
    ],
)
def test_select_pages(wanted: str, expected: str) -> None:
    assert labels(select_pages(BOOK, wanted)) == expected.split()


def test_labels_with_dashes_of_their_own() -> None:
    book = document("A-1 A-2 A-3 B-1")
    assert labels(select_pages(book, "A-2")) == ["A-2"]
    assert labels(select_pages(book, "A-2-B-1")) == ["A-2", "A-3", "B-1"]
    assert book.names([1, 2, 4]) == "A-1 to A-2, B-1"


@pytest.mark.parametrize("wanted", ["11", "0", "v", "2-12", "x-3", "-", "3 5", "99999999999999999999", "[page 3]", "٣", "²"])
def test_a_page_that_is_not_there(wanted: str) -> None:
    with pytest.raises(errors.DocumentError, match=r"Book has no page .*: it has 10 pages, labelled i-6"):
        select_pages(BOOK, wanted)


@pytest.mark.parametrize("wanted", ["", " ", ",", ";,"])
def test_no_page_named(wanted: str) -> None:
    with pytest.raises(errors.DocumentError, match="No pages were named"):
        select_pages(BOOK, wanted)


def test_a_range_that_runs_backwards() -> None:
    with pytest.raises(errors.DocumentError, match="runs backwards: write 2-4"):
        select_pages(BOOK, "4-2")


def test_selected_pages_keep_their_numbers_and_gaps() -> None:
    chosen = select_pages(document("i ii 1 2 3", blank=(2,)), "ii-1,3")
    assert [page.number for page in chosen.pages] == [2, 3, 5]
    assert chosen.unreadable_pages == (2,)
    assert chosen.names([2, 3, 5]) == "ii-1, 3"
    assert chosen.text_with_markers() == "[page 1]\nText 3.\n\n[page 3]\nText 5."


def test_selected_pages_without_text() -> None:
    with pytest.raises(errors.DocumentEmpty, match="no text on pages ii"):
        select_pages(document("i ii 1", blank=(2,)), "ii")
