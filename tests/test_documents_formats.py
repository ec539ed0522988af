"""EPUB, DOCX, HTML, standard input and recognised scans, from files made here; and files made to do harm."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from selfextend_local import errors
from selfextend_local.documents import Document, load_document
from selfextend_local.documents import archive as archive_module

HTML = b"<!DOCTYPE html><html><head><title>Lamps</title></head><body><h1>The lamp</h1><p>It burns oil.</p></body></html>"
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def texts(document: Document) -> list[str]:
    return [page.text for page in document.pages]


def labels(document: Document) -> list[str]:
    return [page.label for page in document.pages]


def write_zip(path: Path, members: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name == "mimetype" else None)
    return path


def chapter(body: str, title: str = "") -> str:
    return f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head><body>{body}</body></html>'


def make_epub(
    path: Path, chapters: Sequence[tuple[str, str]], *, spine: Sequence[int] | None = None, more: Mapping[str, str | bytes] | None = None
) -> Path:
    """A book of (file name, XHTML); `spine` gives the order of reading, `more` further or other members."""
    items = "".join(f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, (name, _) in enumerate(chapters))
    order = "".join(f'<itemref idref="c{i}"/>' for i in (range(len(chapters)) if spine is None else spine))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>The Keeper</dc:title></metadata>"
        f'<manifest>{items}<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        f'<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/></manifest><spine>{order}</spine></package>'
    )
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package,
        **{f"OEBPS/{name}": text for name, text in chapters if text},
        **(more or {}),
    }
    return write_zip(path, {name: data for name, data in members.items() if data != "absent"})


def make_docx(path: Path, body: str, *, title: str = "", more: Mapping[str, str | bytes] | None = None) -> Path:
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": f'<Types xmlns="{types}"><Default Extension="rels" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r1" '
        f'Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "docProps/core.xml": f'<p xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></p>',
        **(more or {}),
    }
    return write_zip(path, {name: data for name, data in members.items() if data != "absent"})


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


# HTML


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(
        """<!DOCTYPE html><html><head><title> Lamps &amp;
        oil </title><style>p {color: red}</style><script>var x = "<p>script</p>";</script></head><body>
        <nav><a href="/">Home</a></nav><h1>The lamp</h1><p>It <b>burns</b> <a href="http://a.b">oil
        of</a> fish.<p>Second, not closed &mdash; snake_case * 4.<br>After a break.
        <ul><li>one<li>two<ol><li>deep</ol></ul><h2>Table</h2>
        <table><tr><th>May<th>June<tr><td>1<td>2</table><pre>code  here
  kept</pre><!-- comment --><p hidden>hidden<p style="display: none">hidden<p aria-hidden="true">hidden</body></html>"""
    )
    document = load_document(path)
    assert document.title == "Lamps & oil"
    assert not document.paged
    assert texts(document) == [
        "# The lamp\n\nIt burns oil of fish.\n\nSecond, not closed — snake_case * 4.\nAfter a break.\n\n"
        "- one\n- two\n  1. deep\n\n## Table\n\n| May | June |\n| --- | --- |\n| 1 | 2 |\n\n```\ncode  here\n  kept\n```"
    ]


@pytest.mark.parametrize("name", ["page", "page.txt", "page.md", "page.html"])
def test_html_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\n<!-- saved -->" + HTML)
    document = load_document(path)
    assert (document.title, texts(document)) == ("Lamps", ["# The lamp\n\nIt burns oil."])


def test_markdown_that_begins_with_a_tag_stays_markdown(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text('<p align="center">logo</p>\n\n# Lamp\n\nA <b> tag.')
    assert texts(load_document(path)) == ['<p align="center">logo</p>\n\n# Lamp\n\nA <b> tag.']


@pytest.mark.parametrize(
    "data",
    [
        '<html><meta charset="koi8-r"><p>Маяк'.encode("koi8-r"),
        '<?xml version="1.0" encoding="windows-1251"?><html><p>Маяк'.encode("cp1251"),
        "\ufeff<html><p>Маяк".encode("utf-16-le"),
        "\ufeff<html><p>Маяк".encode(),
        '<html><meta charset="utf-16"><p>Маяк'.encode(),
        '<html><meta charset="koi8-r"><p>Маяк'.encode(),
        '<html><meta charset="iso-2022-jp"><p>灯台'.encode("iso-2022-jp"),
        '<html><meta charset="no-such-thing"><p>caf\xe9'.encode("latin-1"),
        '<html><meta charset="punycode"><p>caf\xe9'.encode("latin-1"),
    ],
)
def test_html_encodings(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.html").write_bytes(data)
    assert texts(load_document(tmp_path / "a.html"))[0] in ("Маяк", "灯台", "café")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("markup", "kept"),
    [
        ("<div>" * 10_000 + "deep" + "</div>" * 10_000, "deep"),
        ("<ul><li>" * 5_000 + "deep", "deep"),
        ("<b><i>" * 10_000 + "deep", "deep"),
        ("first<a" * 30_000, "first<a"),
        ("<div a='" * 20_000 + "last", "last"),
        ("first<!-- >" * 30_000 + "last", "last"),
        ("<p>x" * 10_000, "x\n\nx"),
        ("<![CDATA[first]]>" + "<![" * 10_000 + "last", "last"),
        ("<p>before</p><script>" + "<script>" * 10_000, "before"),
    ],
)
def test_hostile_html_is_read_without_hanging(tmp_path: Path, markup: str, kept: str) -> None:
    (tmp_path / "a.html").write_text(f"<html>{markup}")
    assert kept in texts(load_document(tmp_path / "a.html"))[0]


def test_html_without_text(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body><script>app()</script></body></html>")
    with pytest.raises(errors.DocumentEmpty, match="holds no text"):
        load_document(tmp_path / "a.html")


# EPUB


def test_epub_chapters_come_in_the_order_of_the_spine(tmp_path: Path) -> None:
    ncx = (
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>The Lamp</text></navLabel>'
        '<content src="two%20b.xhtml#top"/><navPoint><navLabel><text>Within</text></navLabel><content src="two%20b.xhtml#b"/></navPoint>'
        "</navPoint></navMap></ncx>"
    )
    path = make_epub(
        tmp_path / "book",  # no suffix: known by its content
        [
            ("one.xhtml", chapter("<h2>The [Sea], again</h2><p>Waves.</p>")),
            ("two%20b.xhtml", ""),
            ("three.xhtml", chapter("<p>No heading.</p>")),
        ],
        spine=[1, 0, 2],
        more={"OEBPS/two b.xhtml": chapter("<p>Oil.</p>"), "OEBPS/toc.ncx": ncx},
    )
    seen: list[tuple[int, int]] = []
    document = load_document(path, progress=lambda done, total: seen.append((done, total)))
    assert document.title == "The Keeper"
    assert document.paged
    assert labels(document) == ["The Lamp", "The Sea again", "The Sea again 2"]
    assert texts(document) == ["Oil.", "## The [Sea], again\n\nWaves.", "No heading."]
    assert document.text_with_markers().startswith("[page The Lamp]\nOil.")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_epub_3_contents_repeated_titles_and_a_cover(tmp_path: Path) -> None:
    nav = '<nav><a href="a.xhtml">Notes</a><a href="b.xhtml">Notes</a></nav>'
    names = ["cover.xhtml", "a.xhtml", "b.xhtml"]
    path = make_epub(
        tmp_path / "a.epub",
        [(name, chapter(f"<p>{name[0] * (i > 0)}</p>")) for i, name in enumerate(names)],
        more={"OEBPS/nav.xhtml": chapter(nav)},
    )
    document = load_document(path)
    assert labels(document) == ["Notes 1", "Notes 2"]
    assert document.warnings == ()


def test_epub_with_a_broken_table_of_contents(tmp_path: Path) -> None:
    path = make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("<h1>Lamp</h1>"))], more={"OEBPS/toc.ncx": "<ncx>&nbsp;"})
    assert labels(load_document(path)) == ["Lamp"]


def test_epub_that_lacks_a_chapter_says_so(tmp_path: Path) -> None:
    path = make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("<p>A.</p>")), ("b.xhtml", "")])
    document = load_document(path)
    assert texts(document) == ["A."]
    assert "b.xhtml" in document.warnings[0]


def test_epub_without_a_spine(tmp_path: Path) -> None:
    path = make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("<p>A.</p>"))], spine=[])
    with pytest.raises(errors.DocumentDamaged, match="spine"):
        load_document(path)


def test_epub_without_a_container_or_package(tmp_path: Path) -> None:
    chapters = [("a.xhtml", chapter("<p>A.</p>"))]
    assert texts(load_document(make_epub(tmp_path / "a.epub", chapters, more={"META-INF/container.xml": "absent"}))) == ["A."]
    with pytest.raises(errors.DocumentDamaged, match=r"package file \(\.opf\)"):
        load_document(make_epub(tmp_path / "b.epub", chapters, more={"OEBPS/book.opf": "absent"}))
    with pytest.raises(errors.DocumentDamaged, match="isn't valid XML"):
        load_document(make_epub(tmp_path / "c.epub", chapters, more={"OEBPS/book.opf": "<package>"}))


def encryption(algorithm: str, name: str) -> str:
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:enc="http://www.w3.org/2001/04/xmlenc#">'
        f'<enc:EncryptedData><enc:EncryptionMethod Algorithm="{algorithm}"/><enc:CipherData><enc:CipherReference URI="{name}"/>'
        "</enc:CipherData></enc:EncryptedData></encryption>"
    )


def test_copy_protection_is_named_and_scrambled_fonts_are_fine(tmp_path: Path) -> None:
    chapters = [("a.xhtml", chapter("<p>A.</p>"))]
    drm = encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OEBPS/a.xhtml")
    with pytest.raises(errors.DocumentEncrypted, match="DRM"):
        load_document(make_epub(tmp_path / "a.epub", chapters, more={"META-INF/encryption.xml": drm}))
    font = encryption("http://www.idpf.org/2008/embedding", "OEBPS/font.otf")
    assert texts(load_document(make_epub(tmp_path / "b.epub", chapters, more={"META-INF/encryption.xml": font}))) == ["A."]


# DOCX


def test_docx(tmp_path: Path) -> None:
    body = (
        paragraph("The Lamp", "Heading1")
        + paragraph("It burns oil.")
        + f'<w:tbl>{"".join(f"<w:tr><w:tc>{paragraph(a)}</w:tc><w:tc>{paragraph(b)}</w:tc></w:tr>" for a, b in ["ab", "cd"])}</w:tbl>'
    )
    document = load_document(make_docx(tmp_path / "a", body, title="Lamps"))
    assert (document.title, document.paged) == ("Lamps", False)
    assert "It burns oil." in texts(document)[0]
    assert "| a | b |" in texts(document)[0].replace("\n\n", "")


def test_docx_page_breaks_make_pages(tmp_path: Path) -> None:
    new_page = '<w:p><w:r><w:t>end</w:t><w:br w:type="page"/><w:t>begin</w:t></w:r></w:p>'
    document = load_document(make_docx(tmp_path / "a.docx", paragraph("One.") + new_page + paragraph("Two.")))
    assert document.paged
    assert texts(document) == ["One.\n\nend", "begin\n\nTwo."]
    assert document.title == "a"


def test_docx_without_its_text(tmp_path: Path) -> None:
    with pytest.raises(errors.DocumentDamaged, match=r"word/document\.xml is missing"):
        load_document(make_docx(tmp_path / "a.docx", "", more={"word/document.xml": "absent"}))


@pytest.mark.parametrize("part", ["<w:document", "<w:sdt>" * 20_000 + "</w:sdt>" * 20_000, ""])
def test_docx_with_broken_or_very_deep_xml(tmp_path: Path, part: str) -> None:
    data = f'<w:document xmlns:w="{WORD}"><w:body>{part}</w:body></w:document>' if part.startswith("<w:sdt") else part
    with pytest.raises((errors.DocumentDamaged, errors.DocumentEmpty)):
        load_document(make_docx(tmp_path / "a.docx", "", more={"word/document.xml": data}))


def test_docx_with_a_password(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le"))
    with pytest.raises(errors.DocumentEncrypted, match="password"):
        load_document(path)


# Zip files


def test_a_pdf_or_book_under_another_name(tmp_path: Path) -> None:
    path = make_epub(tmp_path / "a.pdf", [("a.xhtml", chapter("<p>A.</p>"))])
    assert texts(load_document(path)) == ["A."]


@pytest.mark.parametrize("name", ["a.epub", "a.docx"])
@pytest.mark.parametrize("cut", [0.3, 0.9, 0.99])
def test_truncated_zip(tmp_path: Path, name: str, cut: float) -> None:
    path = tmp_path / name
    (make_docx(path, paragraph("x")) if name.endswith("docx") else make_epub(path, [("a.xhtml", chapter("x"))]))
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(errors.DocumentDamaged, match="damaged zip"):
        load_document(path)


def test_every_damaged_byte_is_an_error_of_ours_or_no_harm(tmp_path: Path) -> None:
    whole = make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("<p>A.</p>"))]).read_bytes()
    for place in range(30, len(whole), 7):
        (tmp_path / "b.epub").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_document(tmp_path / "b.epub")
        except errors.DocumentError as error:
            assert ":" in str(error)


def test_other_zip_files(tmp_path: Path) -> None:
    with pytest.raises(errors.DocumentUnsupported, match="no document that is read here"):
        load_document(write_zip(tmp_path / "a.zip", {"notes.txt": "words"}))


@pytest.mark.slow
@pytest.mark.parametrize("size", [100 * 2**20, 60 * 2**20])
def test_zip_bomb(tmp_path: Path, size: int) -> None:
    bomb = make_epub(tmp_path / "a.epub", [("a.xhtml", "absent")], more={"OEBPS/a.xhtml": b" " * size})
    assert bomb.stat().st_size < 2**20
    with pytest.raises(errors.DocumentUnsupported, match="zip bomb"):
        load_document(bomb)
    with pytest.raises(errors.DocumentUnsupported, match="zip bomb"):
        load_document(make_docx(tmp_path / "a.docx", paragraph("x"), more={"word/styles.xml": b" " * size}))


@pytest.mark.slow
def test_nested_zip_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"zeros": bytes(50 * 2**20)}).read_bytes()
    path = make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("<p>A.</p>"))], more={f"OEBPS/{i}.zip": inner for i in range(3)})
    opened: list[int] = []
    real = zipfile.ZipFile

    def counted(file: io.BytesIO) -> zipfile.ZipFile:
        opened.append(1)
        return real(file)

    monkeypatch.setattr(archive_module.zipfile, "ZipFile", counted)
    assert texts(load_document(path)) == ["A."]
    assert len(opened) == 1


def test_xml_entities_are_refused(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><package>&b;</package>'
    with pytest.raises(errors.DocumentUnsupported, match="XML entities"):
        load_document(make_epub(tmp_path / "a.epub", [("a.xhtml", chapter("x"))], more={"OEBPS/book.opf": laughs}))
    for text in (laughs.encode(), laughs.encode("utf-16")):
        with pytest.raises(errors.DocumentUnsupported, match="XML entities"):
            load_document(make_docx(tmp_path / "a.docx", "", more={"word/document.xml": text}))


def test_unknown_binary_names_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(errors.DocumentUnsupported, match="PDF, EPUB, DOCX, PPTX, XLSX, ODT, RTF, HTML, mail, Markdown and plain text"):
        load_document(tmp_path / "a.bin")


# Standard input


def piped(data: bytes) -> tuple[str, str]:
    code = (
        "from selfextend_local.documents import load_document\n"
        "from selfextend_local.errors import DocumentError\n"
        "try:\n"
        "    d = load_document('-')\n"
        "    print(d.path, '|', d.title, '|', d.paged, '|', d.pages[0].text)\n"
        "except DocumentError as error:\n"
        "    print(type(error).__name__, '|', error)\n"
    )
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip(), done.stderr.decode()


@pytest.mark.process
def test_standard_input_of_any_kind(tmp_path: Path) -> None:
    fpdf = pytest.importorskip("fpdf")
    pdf = fpdf.FPDF()
    pdf.add_page()
    pdf.set_font("Times", "", 12)
    pdf.multi_cell(0, 6, "The text of the page.")
    for data, expected in [
        (b"Plain text.", "- | standard input | False | Plain text."),
        (HTML, "- | Lamps | False | # The lamp\n\nIt burns oil."),
        (bytes(pdf.output()), "- | standard input | True | The text of the page."),
        (make_epub(tmp_path / "a", [("a.xhtml", chapter("<p>A.</p>"))]).read_bytes(), "- | The Keeper | False | A."),
        (make_docx(tmp_path / "b", paragraph("B.")).read_bytes(), "- | standard input | False | B."),
        (b"%PDF-1.7 broken", "DocumentDamaged | standard input is damaged or is not a PDF"),
        (b"", "DocumentEmpty | standard input is empty"),
        (bytes(500), "DocumentUnsupported | standard input is none of PDF"),
    ]:
        out, err = piped(data)
        assert out.startswith(expected)
        assert "Traceback" not in err


def test_standard_input_that_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"never read")))
    with pytest.raises(errors.DocumentNotFound, match="Nothing is piped"):
        load_document("-")


# Scans


def scanned(path: Path) -> Path:
    """A PDF of a page with text and a page that is a picture of text."""
    fpdf = pytest.importorskip("fpdf")
    image = pytest.importorskip("PIL.Image").new("RGB", (1240, 1754), "white")
    from PIL import ImageDraw, ImageFont

    for i, row in enumerate(["The lamp in the tower was lit at dusk by the keeper,", "who had climbed the stairs with 4711 cans of oil."]):
        ImageDraw.Draw(image).text((120, 150 + 52 * i), row, fill="black", font=ImageFont.load_default(36))
    pdf = fpdf.FPDF(format="A4")
    pdf.add_page()
    pdf.set_font("Times", "", 12)
    pdf.multi_cell(0, 6, "A page that has a text layer, as most pages have.")
    pdf.add_page()
    pdf.image(image, 0, 0, 210, 297)
    pdf.output(str(path))
    return path


@pytest.mark.slow
def test_a_scanned_page_is_named_with_a_way_to_recognise_it(tmp_path: Path) -> None:
    document = load_document(scanned(tmp_path / "scan.pdf"))
    assert document.unreadable_pages == (2,)
    assert "no text (scanned or blank?): 2" in document.warnings[0]
    assert "ocrmypdf --skip-text scan.pdf out.pdf" in document.warnings[1]


def test_text_recognition_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfextend_local.documents import ocr

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    ocr._engine.cache_clear()
    with pytest.raises(errors.DocumentUnsupported, match=r"selfextend-local\[ocr\]"):
        load_document(scanned(tmp_path / "scan.pdf"), ocr=True)


def test_recognised_page(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    seen: list[tuple[int, int]] = []
    document = load_document(scanned(tmp_path / "scan.pdf"), ocr=True, progress=lambda done, total: seen.append((done, total)))
    assert document.pages[1].text == (
        "The lamp in the tower was lit at dusk by the keeper, who had climbed the stairs with 4711 cans of oil."
    )
    assert document.unreadable_pages == ()
    assert "(OCR)" in document.warnings[0] and "pages 2" in document.warnings[0]
    assert seen == [(1, 2), (2, 2), (1, 1)]
