"""Documents, from files made here: PDFs by fpdf2, texts in several encodings."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfextend_local import errors
from selfextend_local.documents import Document, Page, load_document
from selfextend_local.documents import pdf as pdf_module
from selfextend_local.documents.characters import clean
from selfextend_local.documents.encodings import decode
from selfextend_local.documents.headers import without_furniture
from selfextend_local.documents.layout import Line, RawPage, page_from_text
from selfextend_local.documents.paragraphs import paragraphs, rejoin, vocabulary
from selfextend_local.documents.pdf import PDFIUM_ERRORS, error_for
from selfextend_local.documents.text import read_text
from selfextend_local.sample.report import prose

pytest.importorskip("fpdf")

from fpdf import FPDF

PROSE = (
    "The lamp in the tower was lit at dusk by the keeper, who had climbed the stairs with "
    "two cans of oil and a good deal of complaint. By midnight the wind had dropped and the "
    "sea lay flat under the stars, so that the light reached further than it had all winter."
)


def make_pdf(
    path: Path,
    pages: Sequence[str],
    *,
    header: str = "",
    footer: str = "",
    prepare: Callable[[FPDF], None] | None = None,
) -> Path:
    """A PDF with a text on each page; {n} in header and footer is the page number."""

    class Book(FPDF):
        def header(self) -> None:
            self.set_font("Times", "", 9)
            self.cell(0, 5, header.format(n=self.page_no()), align="C")
            self.ln(14)

        def footer(self) -> None:
            self.set_y(-15)
            self.set_font("Times", "", 9)
            self.cell(0, 5, footer.format(n=self.page_no()), align="C")

    book = Book(format=(148, 210))
    if prepare is not None:
        prepare(book)
    for text in pages:
        book.add_page()
        book.set_font("Times", "", 11)
        book.multi_cell(0, 5.5, text, align="L")
    book.output(str(path))
    return path


def texts(document: Document) -> list[str]:
    return [page.text for page in document.pages]


# PDF: text


def test_pages_paragraphs_and_markers(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [f"{PROSE}\n\n{PROSE}", "Second page."])
    document = load_document(path)
    assert document.path == path
    assert document.title == "a"
    assert document.paged
    assert texts(document) == [f"{PROSE}\n\n{PROSE}", "Second page."]
    assert document.text_with_markers() == (
        f"[page 1]\n{PROSE}\n\n{PROSE}\n\n[page 2]\nSecond page."
    )
    assert document.text_with_markers(only=[2]) == "[page 2]\nSecond page."
    assert document.warnings == ()


def test_source_may_be_a_string(tmp_path: Path) -> None:
    assert load_document(str(make_pdf(tmp_path / "a.pdf", ["Hello."]))).page_count == 1


def test_a_pdf_is_known_by_its_bytes_not_its_suffix(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "download", ["Hello."])
    assert load_document(path).paged


@pytest.mark.parametrize("count", [2, 3, 9])
def test_headers_and_footers_go_and_body_stays(tmp_path: Path, count: int) -> None:
    bodies = [f"Body {i * i} begins. {PROSE}" for i in range(count)]
    document = load_document(make_pdf(tmp_path / "a.pdf", bodies, header="Annual Report", footer="- {n} -"))
    assert texts(document) == [f"Annual Report\n\n{bodies[0]}", *bodies[1:]]  # its first occurrence stays
    assert any("Annual Report" in warning and "--keep-headers" in warning for warning in document.warnings)


def test_a_number_that_counts_along_behind_words_may_be_that_of_an_invoice(tmp_path: Path) -> None:
    document = load_document(make_pdf(tmp_path / "a.pdf", [f"Body {i * i}. {PROSE}" for i in range(6)], header="Invoice {n}"))
    assert [text.split("\n")[0] for text in texts(document)] == [f"Invoice {n}" for n in range(1, 7)]


def test_a_repeated_text_alone_on_its_pages_is_not_furniture(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", ["", "", ""], header="The only text")
    assert texts(load_document(path)) == ["The only text"] * 3


def test_numbers_that_do_not_count_pages_are_kept() -> None:
    days = [3, 9, 12, 20, 31]
    pages = [
        RawPage(
            (Line(f"Day {day}", 50, 90, 40, 50), Line("Body text here", 50, 200, 90, 100)),
            400, 600, "", measured=True,
        )
        for day in days
    ]  # fmt: skip
    assert without_furniture(pages) == pages


def test_a_table_head_close_to_its_table_is_kept() -> None:
    pages = [
        RawPage(
            (Line("Month Rain", 50, 90, 40, 50), Line(f"May {i * 7}", 50, 90, 52, 62)),
            400, 600, "", measured=True,
        )
        for i in range(6)
    ]  # fmt: skip
    assert without_furniture(pages) == pages


@pytest.mark.parametrize(("inside", "left"), [(0, [2, 1, 1, 1]), (2, [2, 1, 1, 1]), (4, [2, 2, 2, 2])])
def test_a_line_that_is_also_inside_of_pages_is_text_where_it_stands_at_an_edge(inside: int, left: list[int]) -> None:
    pages = facing(["or the commands"] * 4)
    body = [Line("or the commands", 50, 125, 300 + 30 * n, 310 + 30 * n) for n in range(inside)]
    between = [Line(f"Text {n * n} between", 50, 200, top, top + 10) for n, top in enumerate(range(90, 270, 30))]
    pages.append(RawPage((*between, *body, Line("The end of it", 50, 200, 500, 510)), 400, 600, "", measured=True))
    assert [len(page.lines) for page in without_furniture(pages)] == [*left, len(pages[-1].lines)]


def test_roman_and_arabic_page_numbers_go() -> None:
    numbers = ["i", "ii", "iii", "iv", "1", "2", "3", "4"]
    pages = [
        RawPage(
            (Line("Body", 50, 90, 90, 100), Line(number, 200, 205, 560, 570)),
            400, 600, number, measured=True,
        )
        for number in numbers
    ]  # fmt: skip
    assert [len(page.lines) for page in without_furniture(pages)] == [1] * 8


def facing(heads: Sequence[str], body: str = "Body text {n} here") -> list[RawPage]:
    """Measured pages with these heads at the top; none on a page whose head is empty."""
    return [
        RawPage(
            (
                *((Line(head, 50 if n % 2 else 150, 50 + 5 * len(head), 30, 40),) if head else ()),
                Line(body.format(n=n * n), 50, 200, 90, 100),
            ),
            400,
            600,
            "",
            measured=True,
        )
        for n, head in enumerate(heads, start=1)
    ]


@pytest.mark.parametrize(
    ("heads", "left"),
    [
        (["The Book", "The Chapter", "The Book", "The Chapter"], [2, 2, 1, 1]),
        (["", "The Chapter", "The Book", "The Chapter", "The Book"], [1, 2, 2, 1, 1]),
        (["The Start 11", "12 The Book", "The Start 13", "14 The Book"], [2, 2, 1, 1]),
        (["Lamps 3", "4 The Book", "Oil 5", "6 The Book", "Oil 7", "8 The Book"], [2, 2, 2, 1, 1, 1]),
    ],
)
def test_heads_that_differ_on_left_and_right_pages_go_after_the_first(heads: list[str], left: list[int]) -> None:
    assert [len(page.lines) for page in without_furniture(facing(heads))] == left


@pytest.mark.parametrize(
    "heads",
    [
        ["1 Introduction", "2 Methods", "3 Results", "4 Discussion"],  # numbered slides
        ["Lamps 3", "4 The Book", "Oil 9", "6 The Sea Book", "Ropes 8", "2 Other"],  # numbers that don't count
        ["Question", "Answer", "Question", "Reply"],
        ["Lamps", "Oil", "Ropes", "Flour"],
    ],
)
def test_heads_that_only_look_like_left_and_right_ones_stay(heads: list[str]) -> None:
    pages = facing(heads)
    assert without_furniture(pages) == pages


def test_page_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def roman(book: FPDF) -> None:
        add_page = book.add_page

        def labelled() -> None:
            add_page()
            if book.page_no() == 1:
                book.set_page_label(label_style="r")
            elif book.page_no() == 3:
                book.set_page_label(label_style="D", label_start=1)

        monkeypatch.setattr(book, "add_page", labelled)

    path = make_pdf(tmp_path / "a.pdf", ["One.", "Two.", "Three.", "Four."], prepare=roman)
    document = load_document(path)
    assert [page.label for page in document.pages] == ["i", "ii", "1", "2"]
    assert [page.number for page in document.pages] == [1, 2, 3, 4]


def test_labels_default_to_numbers(tmp_path: Path) -> None:
    document = load_document(make_pdf(tmp_path / "a.pdf", ["One.", "Two."]))
    assert [page.label for page in document.pages] == ["1", "2"]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("A Study of Lamps", "A Study of Lamps"),
        ("Microsoft Word - draft.doc", "a"),
        ("untitled", "a"),
        ("thesis.dvi", "a"),
        ("", "a"),
    ],
)
def test_title(tmp_path: Path, stated: str, expected: str) -> None:
    path = make_pdf(tmp_path / "a.pdf", ["Text."], prepare=lambda book: book.set_title(stated))
    assert load_document(path).title == expected


def test_hyphens_at_line_ends_are_mended(tmp_path: Path) -> None:
    text = (
        "This is a good exam-\nple of a line, and here is the well-\nknown other kind.\n\n"
        "A well-known word, and known well."
    )
    document = load_document(make_pdf(tmp_path / "a.pdf", [text]))
    assert texts(document) == [
        "This is a good example of a line, and here is the well-known other kind.\n\n"
        "A well-known word, and known well."
    ]


@pytest.mark.parametrize(
    ("line", "next_line", "joined"),
    [
        ("Write to the team at team@security.", "debian.org if you find one", "team@security.debian.org if"),
        ("A copy goes to devel@lists.debian.", "org by using the right field", "devel@lists.debian.org by"),
        ("See the page https://www.debian.org/", "security/faq#contact for details", "https://www.debian.org/security/faq#contact for"),
        ("It lies at https://wiki.debian.org/", "DebianMaintainer) for now", "https://wiki.debian.org/DebianMaintainer)"),
        ("The reports at https://bugs.debian.org", "/cgi-bin/report.cgi are all", "https://bugs.debian.org/cgi-bin/report.cgi are"),
        ("The answer is on https://example.org/well-", "known/security.txt for you", "https://example.org/well-known/security.txt for"),
        ("All the figures: https://doi.org/10.1000/", "182-2017/7 of the year", "https://doi.org/10.1000/182-2017/7 of"),
        ("The page https://www.example.org/docs/", "and the others are gone", "https://www.example.org/docs/ and"),
        ("The page https://www.example.org/docs/", "12 of them are gone now", "https://www.example.org/docs/ 12 of"),
        ("Ask the office, front.desk@example.org.", "Then wait for its answer", "front.desk@example.org. Then"),
        ("It is on some pages of www.example.org/", "e.g. the first of them", "www.example.org/ e.g. the"),
        ("It is on http://www.example.org/images/", "http://www.example.org/two is", "images/ http://www.example.org/two"),
        ("No address stands here but either/", "or.else of no importance", "either/ or.else"),
    ],
)
def test_an_address_that_runs_over_a_line_is_whole(tmp_path: Path, line: str, next_line: str, joined: str) -> None:
    document = load_document(make_pdf(tmp_path / "a.pdf", [f"{line}\n{next_line}\nand here goes the paragraph on.\n"]))
    assert joined in texts(document)[0]


def test_progress_counts_pages_and_may_stop_the_reading(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", ["One.", "Two.", "Three."])
    seen: list[tuple[int, int]] = []
    load_document(path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_document(path, progress=stop)
    assert load_document(path).page_count == 3


def test_threads_may_load_at_once(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", [PROSE] * 5)
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(texts(load_document(path))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[PROSE] * 5] * 4


# PDF: pages that cannot be read, and files that cannot


def test_pages_without_text_are_named(tmp_path: Path) -> None:
    document = load_document(make_pdf(tmp_path / "a.pdf", ["One.", "", "", "Four.", ""]))
    assert document.unreadable_pages == (2, 3, 5)
    assert document.warnings[0] == "3 of 5 pages have no text (scanned or blank?): 2-3, 5"
    assert "[page 2]" not in document.text_with_markers()
    assert document.page_count == 5


def test_all_pages_without_text(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "scan.pdf", ["", ""])
    with pytest.raises(errors.DocumentEmpty, match=r"ocrmypdf scan\.pdf out\.pdf"):
        load_document(path)


def test_mostly_without_text_suggests_ocr(tmp_path: Path) -> None:
    document = load_document(make_pdf(tmp_path / "a.pdf", ["One.", "x", "y"]))
    assert "ocrmypdf --skip-text a.pdf" in document.warnings[-1]


def test_encrypted(tmp_path: Path) -> None:
    path = make_pdf(
        tmp_path / "a.pdf",
        ["Secret."],
        prepare=lambda book: book.set_encryption("owner", user_password="user"),
    )
    with pytest.raises(errors.DocumentEncrypted, match="qpdf --decrypt"):
        load_document(path)


def test_owner_password_alone_does_not_hinder_reading(tmp_path: Path) -> None:
    path = make_pdf(
        tmp_path / "a.pdf", ["Open."], prepare=lambda book: book.set_encryption("owner")
    )
    assert texts(load_document(path)) == ["Open."]


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7\nnothing that follows is a PDF\n")
    with pytest.raises(errors.DocumentDamaged, match="fetch it again"):
        load_document(path)


def test_text_named_pdf_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_text("<html>404</html>")
    with pytest.raises(errors.DocumentDamaged, match="not a PDF"):
        load_document(path)


def test_truncated_is_an_error_or_a_warning(tmp_path: Path) -> None:
    whole = make_pdf(tmp_path / "a.pdf", [f"{i}. {PROSE}" for i in range(30)]).read_bytes()
    cut = tmp_path / "cut.pdf"
    for share in (0.1, 0.5, 0.8, 0.97):
        cut.write_bytes(whole[: int(len(whole) * share)])
        try:
            document = load_document(cut)
        except (errors.DocumentDamaged, errors.DocumentEmpty):
            continue
        assert any("cut short" in warning for warning in document.warnings)


def test_pypdf_is_the_second_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdf")

    def fail(path: Path, data: object, progress: object) -> None:
        raise errors.DocumentDamaged("refused")

    monkeypatch.setattr(pdf_module, "_read_with_pdfium", fail)
    path = make_pdf(tmp_path / "a.pdf", [f"{PROSE}\n\n{PROSE}", "Two."])
    seen: list[tuple[int, int]] = []
    document = load_document(path, progress=lambda done, total: seen.append((done, total)))
    assert PROSE.split()[-1] in document.pages[0].text
    assert document.pages[1].text == "Two."
    assert seen == [(1, 2), (2, 2)]
    assert "pypdf" in document.warnings[0]


def test_pypdf_rescues_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pypdf")
    pypdfium2 = pytest.importorskip("pypdfium2")
    read_page = pdf_module._pdfium_page

    def fail_on_second(pdfium: object, document: object, index: int) -> RawPage:
        if index == 1:
            raise pypdfium2.PdfiumError("Failed to load page.")
        return read_page(pdfium, document, index)

    monkeypatch.setattr(pdf_module, "_pdfium_page", fail_on_second)
    bodies = [f"This is page {name} of three." for name in ("one", "two", "three")]
    document = load_document(make_pdf(tmp_path / "a.pdf", bodies))
    assert texts(document) == bodies
    assert document.warnings == ("Damaged pages, whose text may be incomplete: 2.",)


def test_no_pdf_library_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_pdf(tmp_path / "a.pdf", ["One."])
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(errors.DocumentUnsupported, match="pip install pypdfium2"):
        load_document(path)


def test_every_pdfium_error_has_its_exception() -> None:
    raw = pytest.importorskip("pypdfium2.raw")
    codes = {
        getattr(raw, name)
        for name in dir(raw)
        if name.startswith("FPDF_ERR_") and name != "FPDF_ERR_SUCCESS"
    }
    assert codes == {1, 2, 3, 4, 5, 6}
    assert set(PDFIUM_ERRORS) == codes | {None}
    expected = {
        1: errors.DocumentDamaged,
        2: errors.DocumentNotFound,
        3: errors.DocumentDamaged,
        4: errors.DocumentEncrypted,
        5: errors.DocumentEncrypted,
        6: errors.DocumentDamaged,
        None: errors.DocumentDamaged,
    }
    for code, kind in expected.items():
        error = error_for(Path("in.pdf"), code)
        assert type(error) is kind
        assert str(error).startswith("in.pdf ")
        assert ":" in str(error)  # the next step follows
    assert type(error_for(Path("in.pdf"), 99)) is errors.DocumentDamaged


# Paths


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(errors.DocumentNotFound, match="does not exist"):
        load_document(tmp_path / "no.pdf")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(errors.DocumentNotFound, match="is a directory"):
        load_document(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(errors.DocumentNotFound, match="chmod u\\+r"):
        load_document(path)


def test_no_permission_as_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")

    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(errors.DocumentNotFound, match="chmod u\\+r"):
        load_document(path)


@pytest.mark.parametrize("address", ["http://a.org/b.pdf", "https://a.org/b.pdf", "file:///b.pdf"])
def test_web_address(address: str) -> None:
    with pytest.raises(errors.DocumentUnsupported, match="download it first"):
        load_document(address)


@pytest.mark.parametrize("name", ["a.pdf", "a.txt"])
def test_zero_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(errors.DocumentEmpty, match="0 bytes"):
        load_document(tmp_path / name)


def test_nul_in_the_path() -> None:
    with pytest.raises(errors.DocumentNotFound):
        load_document("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.DocumentUnsupported, match="not a regular file"):
        load_document(tmp_path / "pipe")


# Plain text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Señor Müller, naïve café".encode(encoding))
    document = load_document(path)
    assert texts(document) == ["Señor Müller, naïve café"]
    assert not document.paged
    assert document.text_with_markers() == "Señor Müller, naïve café"


def test_windows_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\x93Quoted\x94 \x96 it\x92s")
    assert texts(load_document(path)) == ["“Quoted” \u2013 it\u2019s"]


def test_broken_utf16_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(errors.DocumentUnsupported):
        read_text(Path("a.txt"), b"\xff\xfea")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=200))
def test_utf8_and_utf16_decode_to_what_was_encoded(text: str) -> None:
    text = text.removeprefix("\ufeff")
    assert decode(text.encode("utf-8-sig")).text == text
    assert decode(text.encode("utf-16")).text == text


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (bytes(range(256)) * 20, "convert it"),
        (b"PK\x03\x04" + b"\0" * 60, "save it as PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0", "ocrmypdf"),
        (b"GGUF\3\0\0\0", "pass it as the model"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "save it as PDF"),
    ],
)
def test_binary_data(tmp_path: Path, data: bytes, hint: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(errors.DocumentUnsupported, match=hint):
        load_document(path)


def test_form_feeds_are_page_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\fTwo.\f\fFour.\f")
    document = load_document(path)
    assert document.paged
    assert texts(document) == ["One.", "Two.", "", "Four."]
    assert document.unreadable_pages == (3,)


def test_white_space_alone_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" \n\t\n")
    with pytest.raises(errors.DocumentEmpty, match="white space"):
        load_document(path)


def test_markdown_keeps_its_lines_and_gives_the_title(tmp_path: Path) -> None:
    source = f"# The Lamp #\n\n{textwrap.fill(PROSE, 72)}\n\n```\ncode  here\n    and here\n```"
    path = tmp_path / "a.md"
    path.write_text(source)
    document = load_document(path)
    assert document.title == "The Lamp"
    assert texts(document) == [source]


def test_hard_wrapped_text_is_unwrapped_and_verse_is_not(tmp_path: Path) -> None:
    verse = "A lamp upon the tower,\nA keeper on the stair,\nThe midnight is his hour"
    wrapped = textwrap.fill(PROSE, 70)
    data = "\r\n\r\n".join([wrapped, verse, wrapped]).replace("\n", "\r\n").encode()
    assert read_text(Path("a.txt"), data).pages == (f"{PROSE}\n\n{verse}\n\n{PROSE}",)
    assert read_text(Path("a.log"), wrapped.encode()).pages == (wrapped,)


# Mending


@given(st.text(max_size=200))
def test_clean_is_idempotent_and_leaves_no_controls(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not any((c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" for c in once)
    assert not any("\ufb00" <= c <= "\ufb06" for c in once)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=200))
def test_clean_leaves_ascii_alone(text: str) -> None:
    assert clean(text) == text


def test_ligatures_and_bullets() -> None:
    assert clean("e\ufb03cient \ufb02our\0 \uf0b7 x² \u00a0½") == "efficient flour • x²  ½"


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ("exam", "ple", "example"),
        ("light", "house", "lighthouse"),  # stands elsewhere
        ("well", "known", "well-known"),  # stands elsewhere
        ("sea", "bird", "sea-bird"),  # neither, but both are words
        ("Anglo", "Saxon", "Anglo-Saxon"),
        ("re", "view", "review"),
    ],
)
def test_rejoin(head: str, tail: str, expected: str) -> None:
    words = frozenset({"lighthouse", "light", "house", "well-known", "sea", "bird", "re", "view"})
    assert rejoin(head, tail, words) == expected


def wrapped_page(blocks: Sequence[str], width: int) -> RawPage:
    """Blocks wrapped at `width` characters of 5 points, half a line apart."""
    lines: list[Line] = []
    y = 50.0
    for block in blocks:
        for row in textwrap.wrap(block, width, break_long_words=False, break_on_hyphens=False):
            lines.append(Line(row, 50, 50 + 5 * len(row), y, y + 10))
            y += 12
        y += 6
    return RawPage(tuple(lines), 400, y + 50, "", measured=True)


words = st.text("abcdefghijklmnop", min_size=1, max_size=9)
sentences = st.lists(words, min_size=1, max_size=60).map(lambda w: " ".join(w).capitalize() + ".")


@pytest.mark.slow
@given(st.lists(sentences, min_size=1, max_size=5), st.integers(30, 70))
def test_wrapping_and_reflow_give_the_paragraphs_back(blocks: list[str], width: int) -> None:
    # The long first block makes the distance between lines known.
    blocks = [" ".join([PROSE] * 3), *blocks]
    page = wrapped_page(blocks, width)
    assert paragraphs(page, vocabulary([page])) == "\n\n".join(blocks)


@pytest.mark.slow
@given(st.lists(st.text(max_size=40), max_size=12))
def test_reflow_loses_no_letters(rows: list[str]) -> None:
    page = page_from_text("\n".join(rows))
    kept = [c for c in paragraphs(page, vocabulary([page])) if c.isalnum()]
    expected = [c for line in page.lines for c in clean(line.text) if c.isalnum()]
    assert kept == expected


def test_indented_paragraphs_without_white_space_between() -> None:
    rows = [
        (62, 350, "The keeper climbed the stair and lit the lamp, and when it was"),
        (50, 340, "burning he went down, and as he went he called to the boy,"),
        (62, 150, "'Is the boat in?'"),
        (62, 352, "Then the boat came in, late, with the mail and with the oil that"),
        (50, 350, "should have come in spring, and everyone went down to meet the"),
        (50, 90, "crew there."),
    ]
    lines = tuple(
        Line(text, left, right, 50 + 12 * i, 60 + 12 * i)
        for i, (left, right, text) in enumerate(rows)
    )
    page = RawPage(lines, 400, 600, "", measured=True)
    first, said, second = paragraphs(page, vocabulary([page])).split("\n\n")
    assert first.endswith("it was burning he went down, and as he went he called to the boy,")
    assert said == "'Is the boat in?'"
    assert second.endswith("to meet the crew there.")


def test_lists_keep_their_lines() -> None:
    rows = ["• oil for the lamp", "• rope, of which there is never enough", "• flour"]
    lines = tuple(
        Line(t, 50, 50 + 5 * len(t), 50 + 12 * i, 60 + 12 * i) for i, t in enumerate(rows)
    )
    page = RawPage(lines, 400, 600, "", measured=True)
    assert paragraphs(page, frozenset(), margin=350.0) == "\n".join(rows)


def test_two_columns_under_a_wide_paragraph_stay_apart() -> None:
    wide = textwrap.wrap(PROSE, 80)
    left = textwrap.wrap(f"{PROSE} {PROSE}", 36)
    right = textwrap.wrap(PROSE.upper(), 36)
    lines = [
        Line(text, x, x + 5 * len(text), y + 12 * i, y + 10 + 12 * i)
        for x, y, column in ((50, 50, wide), (50, 110, left), (260, 110, right))
        for i, text in enumerate(column)
    ]
    page = RawPage(tuple(lines), 500, 600, "", measured=True)
    expected = f"{PROSE}\n\n{PROSE} {PROSE}\n\n{PROSE.upper()}"
    assert paragraphs(page, vocabulary([page]), margin=450.0) == expected


# The model's view


def test_document_without_pages_has_no_markers() -> None:
    document = Document(Path("a.md"), "a", (Page(1, "1", "Text."),), (), paged=False)
    assert document.text_with_markers() == "Text."


def test_long_lists_of_pages_are_cut_short() -> None:
    numbers = tuple(range(1, 60, 2))
    pages = tuple(Page(n, str(n), "") for n in range(1, 61))
    warning = Document(Path("a.pdf"), "a", pages, numbers, paged=True).warnings[0]
    assert warning.endswith("19, 21, 23, ...")


def test_importing_loads_no_pdf_library() -> None:
    code = (
        "import sys, selfextend_local.documents; "
        "assert not {'pypdfium2', 'pypdf', 'fpdf', 'ctypes', 'bs4', 'markdownify', 'mammoth', 'rapidocr', 'sqlite3'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# The exceptions


def test_exception_tree() -> None:
    tree = {
        errors.SelfExtendError: Exception,
        errors.DocumentError: errors.SelfExtendError,
        errors.DocumentNotFound: errors.DocumentError,
        errors.DocumentEncrypted: errors.DocumentError,
        errors.DocumentDamaged: errors.DocumentError,
        errors.DocumentEmpty: errors.DocumentError,
        errors.DocumentUnsupported: errors.DocumentError,
        errors.ReaderTimeout: errors.DocumentError,
        errors.ReaderOutOfMemory: errors.DocumentError,
        errors.ReaderCrashed: errors.DocumentError,
        errors.ReaderFailed: errors.DocumentError,
        errors.LibraryError: errors.SelfExtendError,
        errors.ModelError: errors.SelfExtendError,
        errors.ModelNotFound: errors.ModelError,
        errors.ModelUnsupported: errors.ModelError,
        errors.GroupAttentionError: errors.SelfExtendError,
        errors.ContextOverflow: errors.SelfExtendError,
        errors.MemoryBudgetError: errors.SelfExtendError,
        errors.Interrupted: errors.SelfExtendError,
    }
    for kind, base in tree.items():
        assert kind.__bases__[0] is base
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__


def test_exceptions_with_attributes_survive_pickling() -> None:
    overflow = pickle.loads(pickle.dumps(errors.ContextOverflow("too long", 5000, 4096)))
    assert (str(overflow), overflow.n_tokens, overflow.capacity) == ("too long", 5000, 4096)
    assert overflow.over == 904
    stopped = pickle.loads(pickle.dumps(errors.Interrupted("stopped", 512)))
    assert (str(stopped), stopped.n_done) == ("stopped", 512)


def test_a_hard_wrapped_text(tmp_path: Path) -> None:
    """As Project Gutenberg writes them: Latin-1, lines of 70 characters, a list of chapters that stays one."""
    contents = "   I. A Café in Skagen\n  II. The Herring Fleet\n III. Signe's Début\n"
    path = tmp_path / "book.txt"
    wrapped = "\n\n".join(textwrap.fill(paragraph, 70) for paragraph in prose().split("\n\n"))
    path.write_bytes(f"THE BOOK\n\n{contents}\n\n{wrapped}\n".replace("\n", "\r\n").encode("latin-1"))
    document = load_document(path)
    assert not document.paged
    text = document.text_with_markers()
    assert contents in text
    assert all(paragraph in text for paragraph in prose().split("\n\n"))


def test_lines_of_white_space_and_letters_like_roman_numerals_are_read() -> None:
    """Both stopped the reading of manuals of Debian's TeX packages."""
    from selfextend_local.documents.headers import without_furniture
    from selfextend_local.documents.layout import Line, RawPage
    from selfextend_local.documents.paragraphs import paragraphs, vocabulary

    texts = ("ı", " ", "One line of words.", "ſ")
    lines = tuple(Line(text, 70, 200, 20 + 14 * n, 32 + 14 * n) for n, text in enumerate(texts))
    pages = without_furniture([RawPage(lines, 612, 792, "", measured=True)] * 3)
    assert all("One line of words." in paragraphs(page, vocabulary(pages), 0.0) for page in pages)


def test_a_page_of_code_is_not_nonsense_where_the_document_has_its_words() -> None:
    from selfextend_local.documents.legibility import is_nonsense, nonsense_among

    code = "zzxqq wvkpj qqzzx jkxwv " * 30
    prose = "The water board keeps the pumps of the valley, and its engineers read the gauges each morning before the sluices open. " * 4
    assert is_nonsense(code)
    assert nonsense_among([prose, code]) == [1]
    assert nonsense_among([f"{prose} zzxqq wvkpj qqzzx jkxwv", code]) == []
    assert nonsense_among([code, code]) == [0, 1]
