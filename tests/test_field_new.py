"""Twenty situations more, of the kinds in tests/data/field/README.md: each file is made here, and has one right outcome."""

# ruff: noqa: E501  (the markup of the files)
from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from fpdf import FPDF

from selfextend_local.documents import Document, load_document
from selfextend_local.documents.glyphs import logical

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
ODF = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{full}:1.0"' for name, full in
               (("office", "office"), ("text", "text"), ("style", "style"), ("table", "table"), ("fo", "xsl-fo-compatible")))  # fmt: skip


def text_of(document: Document) -> str:
    return "\n\n".join(page.text for page in document.pages)


def read(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_document(path)


def packed(path: Path, **members: str) -> Document:
    """A zip file; "__" in a name stands for a slash, "_dot_" for a dot."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return load_document(path)


def docx(path: Path, body: str, **parts: str) -> Document:
    return packed(path, word__document_dot_xml=f"<w:document {W}><w:body>{body}</w:body></w:document>", **parts)


def paragraph(text: str, properties: str = "", run: str = "") -> str:
    return f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:rPr>{run}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def pages(path: Path, *drawn: list[tuple[float, float, str, float]]) -> Document:
    """A PDF whose pages have texts at x, y from the upper left corner, of a size."""
    pdf = FPDF(unit="pt", format=(500, 700))
    for page in drawn:
        pdf.add_page()
        for x, y, text, size in page:
            pdf.set_font("helvetica", size=size)
            pdf.text(x, y, text)
    pdf.output(str(path))
    return load_document(path)


PROSE = ("The board met in the old hall and heard the report of its", "engineer on the pumps, the sluices and the gauges of the valley.",
         "Nobody spoke against the plan, and it was carried that evening.")  # fmt: skip


def test_sections_under_a_running_head_stay(tmp_path: Path) -> None:
    def page(n: int) -> list[tuple[float, float, str, float]]:
        body = [(60, 120 + 14 * i, line, 11) for i, line in enumerate(PROSE)]
        return [(60, 40, "Deed No. 4711", 9), (60, 90, f"Section {n}", 11), *body, (240, 670, f"{n}/6", 9)]

    document = pages(tmp_path / "deed.pdf", *map(page, range(1, 7)))
    assert [f"Section {n}" in p.text for n, p in enumerate(document.pages, start=1)] == [True] * 6
    assert text_of(document).count("Deed No. 4711") == 1


def test_what_is_carried_forward_stays(tmp_path: Path) -> None:
    def page(n: int) -> list[tuple[float, float, str, float]]:
        rows = [(60, 80 + 20 * i, f"{n:02}.{i + 1:02}. rent of hall {i}", 11) for i in range(5)]
        return [*rows, *((400, y, f"{n}{i}0.00", 11) for i, (_, y, _, _) in enumerate(rows)),
                (60, 660, "Carried forward:", 11), (400, 660, f"{1250 * n:,}.00", 11)]  # fmt: skip

    document = pages(tmp_path / "ledger.pdf", *map(page, range(1, 6)))
    assert [f"Carried forward:  {1250 * n:,}.00" in p.text for n, p in enumerate(document.pages, start=1)] == [True] * 5


def test_text_that_a_reader_struck_out_is_marked_or_named(tmp_path: Path) -> None:
    pdf = FPDF(unit="pt", format=(500, 700))
    pdf.add_page()
    pdf.set_font("helvetica", size=12)
    pdf.text(60, 100, "The fee is 900 euros a year, due in May.")
    before, struck = pdf.get_string_width("The fee is "), pdf.get_string_width("900 euros")
    left, right = 60 + before, 60 + before + struck
    pdf.add_text_markup_annotation("StrikeOut", "", (left, 612, right, 612, left, 596, right, 596))
    pdf.output(str(tmp_path / "fee.pdf"))
    document = load_document(tmp_path / "fee.pdf")
    assert "~~900 euros~~" in text_of(document) or '"900 euros"' in " ".join(document.notes)


def test_a_footnote_stays_on_its_page_and_its_number_is_told_apart(tmp_path: Path) -> None:
    first = [(60, 100, "The lease of 1843", 12), (154, 95, "2", 7), (160, 100, " was renewed.", 12), (60, 640, "2", 6), (65, 644, "Annex B, page 9.", 9)]
    document = pages(tmp_path / "lease.pdf", first, [(60, 100, "The second page.", 12)])
    assert "1843[2] was renewed." in document.pages[0].text and "Annex B, page 9." in document.pages[0].text


def test_three_columns_under_a_heading_that_runs_across(tmp_path: Path) -> None:
    lines = [[f"{name} line {n} of this column" for n in range(1, 13)] for name in ("First", "Second", "Third")]
    drawn: list[tuple[float, float, str, float]] = [(40, 60, "The valley and its water: a short history of the board and its pumps", 14)]
    for n in range(12):
        drawn += [(40 + 150 * column, 100 + 13 * n, lines[column][n], 10) for column in range(3)]
    text = text_of(pages(tmp_path / "three.pdf", drawn)).replace("\n", " ")
    places = [text.index(f"{name} line {n} ") for name in ("First", "Second", "Third") for n in range(1, 13)]
    assert text.startswith("The valley") and places == sorted(places)


def test_hyphens_of_numbers_and_compounds_stay_at_the_end_of_a_line(tmp_path: Path) -> None:
    lines = ("Whoever wants to know more about the pumps calls 030-555-", "0199 at noon. The machine has a two-year warranty, the A320-",
             "200 has none, and the minutes were kept under the pre-", "1990 rules which the chair of the board had once made for a co-",
             "operative of farmers, whose cooperative spirit nobody doubted.")  # fmt: skip
    text = text_of(pages(tmp_path / "h.pdf", [(60, 100 + 14 * i, line, 12) for i, line in enumerate(lines)]))
    assert all(word in text for word in ("030-555-0199", "A320-200", "pre-1990", "a cooperative of farmers"))


@pytest.mark.parametrize(
    ("visual", "read_as"),
    [
        ("ח 15.3.2024 םויב", "ביום 15.3.2024 ח"),
        ("(12.5%) תיביר", "ריבית (12.5%)"),
        ("+49 30 1234-567 :ןופלט", "טלפון: +49 30 1234-567"),
        ("10:30-11:45 העש", "שעה 10:30-11:45"),
        ("-5° הרוטרפמט", "טמפרטורה -5°"),
        ("12/345 'סמ קית", "תיק מס' 12/345"),
    ],
)
def test_numbers_among_hebrew_keep_their_order(visual: str, read_as: str) -> None:
    assert logical(list(visual)) == read_as


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16-le", "The lease begins on 1 May and costs 650 euros a month.\n" * 3),
        ("utf-16-be", "Договор вступает в силу с момента подписания.\n" * 3),
        ("cp866", "Договор вступает в силу с момента подписания сторонами и действует пять лет.\n" * 3),
        ("cp850", "Die Prüfung der Bücher ergab für das Geschäftsjahr größere Rückstände: siehe Anhang.\n" * 3),
        ("cp1254", "Sözleşme, imzalandığı gün yürürlüğe girer ve beş yıl geçerlidir; ücret ayrıca ödenir.\n" * 3),
        ("tis-620", "สัญญานี้มีผลบังคับใช้ตั้งแต่วันที่ลงนามและมีอายุห้าปีนับจากวันนั้น\n" * 3),
    ],
)
def test_old_encodings_are_read_right(tmp_path: Path, encoding: str, text: str) -> None:
    document = read(tmp_path / "contract.txt", text.encode(encoding))
    assert text.split("\n")[0] in text_of(document)


NUMBERING = f"""<w:numbering {W}><w:abstractNum w:abstractNumId="1">
<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="Part %1."/></w:lvl>
<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="(%2)"/></w:lvl>
<w:lvl w:ilvl="2"><w:start w:val="1"/><w:numFmt w:val="decimalZero"/><w:lvlText w:val="%1-%3"/></w:lvl></w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="1"/></w:num>
<w:num w:numId="2"><w:abstractNumId w:val="1"/><w:lvlOverride w:ilvl="1"><w:startOverride w:val="4"/></w:lvlOverride></w:num></w:numbering>"""


def test_clauses_with_letters_roman_numbers_and_a_new_start(tmp_path: Path) -> None:
    def clause(text: str, level: int, number: int = 1) -> str:
        return paragraph(text, f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')

    body = clause("Scope", 0) + clause("goods", 1) + paragraph("Between.") + clause("services", 1) + clause("Price", 0)
    body += clause("net", 1) + clause("rows", 2) + clause("gross", 1, 2)
    text = text_of(docx(tmp_path / "c.docx", body, word__numbering_dot_xml=NUMBERING))
    for expected in ("Part I. Scope", "(a) goods", "(b) services", "Part II. Price", "(a) net", "II-01 rows", "(d) gross"):
        assert expected in text


def test_word_signs_boxes_and_choices(tmp_path: Path) -> None:
    box = '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><mc:Choice Requires="wps"><w:drawing>'
    inner = f"<w:txbxContent>{paragraph('Boxed words.')}</w:txbxContent>"
    body = (
        "<w:p><w:r><w:t>self</w:t><w:noBreakHyphen/><w:t>propelled, co</w:t><w:softHyphen/><w:t>operative</w:t></w:r></w:p>"
        "<w:p><w:sdt><w:sdtPr/><w:sdtContent><w:r><w:t>☒ accepted</w:t></w:r></w:sdtContent></w:sdt></w:p>"
        f"<w:p><w:r>{box}{inner}</w:drawing></mc:Choice><mc:Fallback><w:pict>{inner}</w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>"
        '<w:p><w:r><w:sym w:font="Wingdings" w:char="F0FE"/><w:t> paid</w:t></w:r></w:p>'
    )
    text = text_of(docx(tmp_path / "signs.docx", body))
    assert "self-propelled, cooperative" in text.replace("\u2011", "-").replace("\u00ad", "")
    assert "☒ accepted" in text and text.count("Boxed words.") == 1
    assert any(sign in text for sign in ("☑ paid", "☒ paid", "[x] paid"))


def test_powers_by_a_style_and_by_position(tmp_path: Path) -> None:
    styles = f'<w:styles {W}><w:style w:type="character" w:styleId="Power"><w:rPr><w:vertAlign w:val="superscript"/></w:rPr></w:style></w:styles>'
    runs = '<w:p><w:r><w:t>10</w:t></w:r><w:r><w:rPr><w:rStyle w:val="Power"/></w:rPr><w:t>6</w:t></w:r><w:r><w:t> cells, 10</w:t></w:r>'
    runs += '<w:r><w:rPr><w:position w:val="8"/><w:sz w:val="14"/></w:rPr><w:t>7</w:t></w:r><w:r><w:t> more</w:t></w:r></w:p>'
    text = text_of(docx(tmp_path / "power.docx", runs, word__styles_dot_xml=styles))
    assert "10^6 cells" in text and "10^7 more" in text


def test_an_epub_in_utf_16_with_spaces_in_names(tmp_path: Path) -> None:
    container = '<container><rootfiles><rootfile full-path="My Book/p.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    package = """<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Mills</dc:title></metadata><manifest>
        <item id="a" href="text/one%20%C3%A9.xhtml" media-type="application/xhtml+xml"/>
        <item id="b" href="text/two.htm" media-type="text/html"/></manifest><spine><itemref idref="a"/><itemref idref="b" linear="no"/></spine></package>"""
    one = '<?xml version="1.0" encoding="utf-16"?><html><body><h1>One</h1><p>The café burned.</p></body></html>'.encode("utf-16")
    path = tmp_path / "mills.epub"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("mimetype", "application/epub+zip"), ("META-INF/container.xml", container), ("My Book/p.opf", package),
                              ("My Book/text/one é.xhtml", one), ("My Book/text/two.htm", "<h1>Two</h1><p>Answers: 42.")):  # fmt: skip
            archive.writestr(name, content)
    document = load_document(path)
    assert "The café burned." in text_of(document) and "Answers: 42." in text_of(document)
    assert [page.label for page in document.pages] == ["One", "Two"]


def test_a_workbook_shows_what_its_cells_show(tmp_path: Path) -> None:
    import datetime

    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    rows = [("Item", "Share", "Due", "Paid", "Sum"), ("Hall", 0.195, datetime.date(2024, 3, 15), True, 1234.5), ("Boat", 0.07, None, False, "=E2*2")]
    for row in rows:
        sheet.append(row)
    for cell, form in (("B2", "0.0%"), ("B3", "0%"), ("C2", "DD.MM.YYYY"), ("E2", '#,##0.00 "€"')):
        sheet[cell].number_format = form
    book.save(tmp_path / "b.xlsx")
    document = load_document(tmp_path / "b.xlsx")
    text = text_of(document)
    assert "| Hall | 19.5% | 2024-03-15 | TRUE | 1,234.50 € |" in text.replace("15.03.2024", "2024-03-15")
    assert "| 7% |" in text
    assert "=E2*2" in text or "formula" in " ".join(document.notes)  # no value was saved with it


def test_slides_keep_words_apart_and_say_what_is_drawn(tmp_path: Path) -> None:
    import pptx

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Rates\vof the board"
    frame = slide.placeholders[1].text_frame
    frame.text = "First line\vsecond line"
    raised = frame.add_paragraph()
    raised.add_run().text = "10"
    power = raised.add_run()
    power.text = "6"
    power._r.get_or_add_rPr().set("baseline", "30000")
    raised.add_run().text = " cells"
    struck = frame.add_paragraph().add_run()
    struck.text = "900 euros"
    struck._r.get_or_add_rPr().set("strike", "sngStrike")
    deck.save(tmp_path / "d.pptx")
    text = text_of(load_document(tmp_path / "d.pptx"))
    assert "# Rates of the board" in text
    assert "linesecond" not in text and "First line" in text and "second line" in text
    assert "10^6 cells" in text and "~~900 euros~~" in text


def test_rtf_keeps_powers_and_what_is_struck_or_hidden(tmp_path: Path) -> None:
    rtf = r"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}
\pard 10{\super 6} cells of 1950{\super 3}\par
The fee is {\strike 900 euros} 650 euros.{\v secret}\par
Gr\'fc\'dfe, \u8364? 5 \emdash  \ldblquote yes\rdblquote\par
\trowd\cellx1000\cellx2000 Hall\cell 19.5\cell\row
}"""
    text = text_of(read(tmp_path / "a.rtf", rtf))
    assert "10^6 cells of 1950[3]" in text and "~~900 euros~~ 650 euros." in text
    assert "secret" not in text and "Grüße, € 5" in text
    assert "Hall" in text and "Hall19.5" not in text


def test_notebooks_of_before_and_tables_of_output(tmp_path: Path) -> None:
    old = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "heading", "level": 2, "source": "Pumps"},
        {"cell_type": "code", "input": ["print(4.2)"], "outputs": [{"output_type": "stream", "text": "4.2\n"}]}]}], "cell_type": "", "cells_": 0}  # fmt: skip
    text = text_of(read(tmp_path / "old.ipynb", json.dumps(old)))
    assert "Pumps" in text and "print(4.2)" in text and "4.2\n" in text
    html = "<table><tr><th>pump</th><th>hours</th></tr><tr><td>north</td><td>48</td></tr></table>"
    new = {"nbformat": 4, "cells": [{"cell_type": "code", "source": "show()", "outputs": [{"output_type": "display_data", "data": {"text/html": html}}]},
        {"cell_type": "markdown", "source": "![a](attachment:x.png)", "attachments": {"x.png": {"image/png": "iVBOR" * 40}}}]}  # fmt: skip
    text = text_of(read(tmp_path / "new.ipynb", json.dumps(new)))
    assert "north | 48" in text and "iVBOR" not in text


def test_csv_from_a_german_excel(tmp_path: Path) -> None:
    text = text_of(read(tmp_path / "a.csv", "\ufeffsep=;\r\nPosten;Betrag;Notiz\r\nHalle;1.234,50;\"zwei\r\nZeilen\"\r\nBoot;-7,00;ohne\r\n"))
    assert "| Halle | 1.234,50 | zwei Zeilen |" in text and "| Posten | Betrag | Notiz |" in text and "sep=" not in text


def test_an_odt_keeps_powers_numbers_and_what_is_struck(tmp_path: Path) -> None:
    styles = """<office:automatic-styles><style:style style:name="T1" style:family="text"><style:text-properties style:text-position="super 58%"/></style:style>
      <style:style style:name="T2" style:family="text"><style:text-properties style:text-line-through-style="solid"/></style:style>
      <style:style style:name="T3" style:family="text"><style:text-properties text:display="none"/></style:style>
      <text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1" style:num-suffix="."/></text:list-style>
      </office:automatic-styles>"""
    body = """<text:p>10<text:span text:style-name="T1">6</text:span> cells,
      <text:span text:style-name="T2">900 euros</text:span> 650 euros<text:span text:style-name="T3">secret</text:span>.</text:p>
      <text:list text:style-name="L1"><text:list-item><text:p>Scope</text:p></text:list-item><text:list-item><text:p>Price</text:p></text:list-item></text:list>"""
    document = packed(tmp_path / "a.odt", mimetype="application/vnd.oasis.opendocument.text",
        content_dot_xml=f"<office:document-content {ODF}>{styles}<office:body><office:text>{body}</office:text></office:body></office:document-content>")  # fmt: skip
    text = text_of(document)
    assert "10^6 cells, ~~900 euros~~ 650 euros." in text
    assert "1. Scope" in text and "2. Price" in text


def test_html_forms_lists_and_breaks(tmp_path: Path) -> None:
    page = """<html><body><form><p>Name: <input type="text" value="Ottilie Brandt"> <input type=hidden value=token77>
      <input type=checkbox checked> married <input type="checkbox"> widowed <input type=password value=pw99></p>
      <p>Colour: <select><option>Red<option selected>Blue</select></p><textarea>Please ring twice.</textarea></form>
      <ol start="5"><li>five<li>six</ol><ol type="a"><li>alpha<li>beta</ol>
      <table><tr><th>Pump<th>Note<tr><td>north<td>runs<br>well</table><details><summary>More</summary>folded words</details></body></html>"""
    text = text_of(read(tmp_path / "form.html", page))
    assert "Name: Ottilie Brandt" in text and "[x] married [ ] widowed" in text and "Please ring twice." in text
    assert "Blue" in text and "Red" not in text and "token77" not in text and "pw99" not in text
    assert "5. five" in text and "6. six" in text and "a. alpha" in text.replace("a) alpha", "a. alpha")
    assert "runs well" in text and "folded words" in text


def test_a_mail_that_forwards_another_in_windows_1252(tmp_path: Path) -> None:
    inner = ("From: x@example.org\r\nSubject: =?utf-8?q?Pr=C3=BCfung?=\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=windows-1252\r\n"
             "Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>The fee is 650 =80 =96 not =\r\n<s>900</s>.</p>\r\n")  # fmt: skip
    mail = ("From: a@example.org\r\nTo: b@example.org\r\nSubject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n"
            f"--q\r\nContent-Type: text/plain\r\n\r\nSee below.\r\n--q\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--q--\r\n")  # fmt: skip
    text = text_of(read(tmp_path / "f.eml", mail))
    assert "See below." in text and "The fee is 650 € – not ~~900~~." in text and "Prüfung" in text


def test_narrow_spaces_between_hebrew_words_stay() -> None:
    import numpy as np

    from selfextend_local.documents.glyphs import UPRIGHT, Glyphs, lines_by_direction

    text, right, boxes = "אבג דהו זחט", 400.0, []
    for c in text:
        width = 1.0 if c == " " else 6.0
        boxes.append((right - width, 112.0, right, 100.0))
        right -= width
    glyphs = Glyphs(np.array([ord(c) for c in text], np.uint16), np.array(boxes, np.float32), np.zeros(len(text), np.float32))
    assert [line.text for line in lines_by_direction(glyphs, 500, 700)[UPRIGHT]] == [text]
