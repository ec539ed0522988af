"""Presentations, workbooks, OpenDocument, RTF, CSV, mails and other small formats, made here and read back."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from selfextend_local.documents import load_document
from selfextend_local.documents.formulas import lowered, raised
from selfextend_local.documents.tables import markdown_table
from selfextend_local.errors import DocumentDamaged, DocumentUnsupported

ODF = " ".join(f'xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{m}:1.0"' for n, m in
               (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing")))  # fmt: skip


def opendocument(path: Path, body: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        file.writestr("content.xml", f"<office:document-content {ODF}><office:body>{body}</office:body></office:document-content>")
    return path


def test_a_presentation_is_a_page_a_slide(tmp_path: Path) -> None:
    pptx = pytest.importorskip("pptx")
    show = pptx.Presentation()
    first, second = (show.slides.add_slide(show.slide_layouts[i]) for i in (1, 5))
    first.shapes.title.text, first.placeholders[1].text = "Plan", "Buy a pump\nSell the old one"
    first.notes_slide.notes_text_frame.text = "Say it slowly"
    second.shapes.title.text = "Costs"
    table = second.shapes.add_table(2, 2, 0, 0, 914400, 914400).table
    for i, text in enumerate(("item", "euros", "pump", "650")):
        table.cell(i // 2, i % 2).text = text
    second._element.set("show", "0")
    show.save(tmp_path / "a.pptx")
    document = load_document(tmp_path / "a.pptx")
    assert [page.text for page in document.pages] == [
        "# Plan\n\nBuy a pump\nSell the old one\n\nNotes: Say it slowly",
        "# Costs\n\n| item | euros |\n| --- | --- |\n| pump | 650 |",
    ]
    assert document.paged and document.warnings == ("Hidden slides are read, too: 2.",)


def test_a_workbook_is_a_page_a_sheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Costs"
    book.active.append(["item", "euros"])
    book.active.append(["pump | spare", 12.5])
    book.create_sheet("Names").append(["Anna"])
    book.save(tmp_path / "a.xlsx")
    document = load_document(tmp_path / "a.xlsx")
    assert [(page.label, page.text) for page in document.pages] == [
        ("Costs", "| item | euros |\n| --- | --- |\n| pump \\| spare | 12.5 |"), ("Names", "Anna")]  # fmt: skip


def test_opendocument_text(tmp_path: Path) -> None:
    path = opendocument(tmp_path / "a.odt", """<office:text><text:h text:outline-level="2">Report</text:h>
      <text:p>The fee<text:s/>is<text:tab/>650<text:note><text:note-citation>1</text:note-citation><text:note-body>
      <text:p>Since May.</text:p>
      </text:note-body></text:note> euros.</text:p><text:list><text:list-item><text:p>one</text:p></text:list-item></text:list>
      <text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:soft-page-break/><text:p>Page two.</text:p></office:text>""")
    document = load_document(path)
    assert [page.text for page in document.pages] == ["## Report\n\nThe fee is 650[1] euros.\n\n[1] Since May.\n\n- one", "Page two."]
    assert document.title == "Report" or document.title == "a"


def test_opendocument_sheets_and_slides(tmp_path: Path) -> None:
    def cell(text: str) -> str:
        return f"<table:table-cell><text:p>{text}</text:p></table:table-cell>"

    row = f"<table:table-row>{cell('a')}{cell('b')}<table:table-cell table:number-columns-repeated='16000'/></table:table-row>"
    table = f'<table:table table:name="S">{row}{row}</table:table>'
    sheet = opendocument(tmp_path / "a.ods", f"<office:spreadsheet>{table}</office:spreadsheet>")
    assert load_document(sheet).pages[0].text == "| a | b |\n| --- | --- |\n| a | b |"
    slide = "<draw:page><draw:frame><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame></draw:page>"
    slides = opendocument(tmp_path / "a.odp", f"<office:presentation>{slide.format('one')}{slide.format('two')}</office:presentation>")
    assert [page.text for page in load_document(slides).pages] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.rtf", rb"{\rtf1\ansi The caf\'e9 costs \b 5\b0  euros.\par Second line.}", "The café costs 5 euros.\n\nSecond line."),
        ("a.csv", b"name;euros\nAnna;12\n", "| name | euros |\n| --- | --- |\n| Anna | 12 |"),
        ("a.csv", b"just one line of prose, with a comma\nand another\n", "just one line of prose, with a comma\nand another"),
        ("a.md", b"See ![x](data:image/png;base64," + b"QUJD" * 40 + b") here.", "See ![x]((data)) here."),
        ("a.txt", b"Before.\n" + b"\n".join([b"QUJDREVG" * 8] * 12) + b"\nQUJD=\nAfter.\n", "Before.\n\nAfter."),
        ("a.py", b"def f():\n    return 1\n", "def f():\n    return 1"),
    ],
)
def test_small_formats(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert load_document(tmp_path / name).pages[0].text == text


def test_a_notebook_without_its_pictures(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["1+1"], "outputs": [{"output_type": "execute_result", "data": {"text/plain": ["2"]}}]},
             {"cell_type": "markdown", "source": "# Two\n![p](data:image/png;base64," + "QUJD" * 40 + ")"}]  # fmt: skip
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert load_document(tmp_path / "a.ipynb").pages[0].text == "```\n1+1\n```\n\n```\n2\n```\n\n# Two\n![p]((data))"
    (tmp_path / "b.ipynb").write_text('{"cells": 3, "cell_type": 1}')
    with pytest.raises(DocumentDamaged, match="open it in Jupyter"):
        load_document(tmp_path / "b.ipynb")


@pytest.mark.parametrize("name", ["a.pptx", "a.xlsx", "a.odt"])
def test_office_files_with_nothing_right_in_them_are_damaged(tmp_path: Path, name: str) -> None:
    part = {"a.pptx": "ppt/presentation.xml", "a.xlsx": "xl/workbook.xml", "a.odt": "content.xml"}[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(part, "<a>not<b>")
    (tmp_path / name).write_bytes(buffer.getvalue())
    with pytest.raises(DocumentDamaged, match="save it again"):
        load_document(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"%!PS-Adobe-3.0\n", "ps2pdf"),
        (b"AT&TFORM\0\0", "DjVu"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"GIF89a\0\0", "ocrmypdf"),
        (b"\x7fELF\2", "program"),
    ],
)
def test_what_is_no_document_is_named(tmp_path: Path, data: bytes, advice: str) -> None:
    (tmp_path / "a").write_bytes(data * 20)
    with pytest.raises(DocumentUnsupported, match=advice):
        load_document(tmp_path / "a")


@pytest.mark.parametrize(
    ("before", "text", "want"),
    [("10", "6", "^6"), ("10", "-3", "^-3"), ("x", "2", "^2"), ("cm", "3", "^3"), ("1950", "3", "[3]"), ("words", "12", "[12]"),
     ("said.", "4", "[4]"), ("1", "st", "st"), ("M", "me", "me"), ("x", "n", "^n"), ("a", "n+1", "^(n+1)"), ("name", "*", "*"),
     ("claim", "[7]", "[7]"), ("1000", "3", "^3"), ("see", "2,3", "[2,3]")],
)  # fmt: skip
def test_raised_text(before: str, text: str, want: str) -> None:
    assert raised(before, text) == want


def test_lowered_text() -> None:
    assert (lowered("CO", "2"), lowered("101", "2"), lowered("x", "i")) == ("2", "_2", "i")


def test_a_table_without_its_empty_edges() -> None:
    assert markdown_table([["", ""], ["", "a", "b"], ["", "c", ""], []]) == "| a | b |\n| --- | --- |\n| c |  |"
    assert markdown_table([]) == markdown_table([["", " "]]) == ""
