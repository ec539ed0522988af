"""Documents whose parts lie within parts, or come by the ten thousand: read in a time that grows with them, or refused in a sentence."""

from __future__ import annotations

import contextlib
import io
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import selfextend_cli

import selfextend_local
from selfextend_local.documents import load_document
from selfextend_local.errors import DocumentError

pytestmark = pytest.mark.process

ODF = " ".join(f'xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{m}:1.0"' for n, m in
               (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"), ("style", "style")))  # fmt: skip
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
TYPES = """<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
    <Default Extension="xml" ContentType="application/xml"/></Types>"""
RELATIONS = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{}</Relationships>'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def packed(**members: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def odt(body: str, styles: str = "") -> bytes:
    content = (
        f"<office:document-content {ODF}>{styles}<office:body><office:text>{body}</office:text></office:body></office:document-content>"
    )
    return packed(**{"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def docx(body: str, **more: str) -> bytes:
    kinds = {"word/numbering.xml": "numbering", "word/header1.xml": "header"}
    inner = "".join(f'<Relationship Id="r{i}" Type="{OFFICE}/{kinds[name]}" Target="{name[5:]}"/>' for i, name in enumerate(more))
    package = f'<Relationship Id="a" Type="{OFFICE}/officeDocument" Target="word/document.xml"/>'
    return packed(**{
        "[Content_Types].xml": TYPES, "_rels/.rels": RELATIONS.format(package), "word/_rels/document.xml.rels": RELATIONS.format(inner),
        "word/document.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>", **more,
    })  # fmt: skip


def epub(chapter: str, contents: str) -> bytes:
    return packed(**{
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="a.opf"/></rootfiles></container>',
        "a.opf": '<package><manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml"/>'
                 '<item id="t" href="t.ncx" media-type="application/x-dtbncx+xml"/></manifest>'
                 '<spine><itemref idref="c"/></spine></package>',
        "c.xhtml": f"<html><body>{chapter}</body></html>", "t.ncx": f"<ncx><navMap>{contents}</navMap></ncx>",
    })  # fmt: skip


def within(before: str, after: str, depth: int, inner: str = "x") -> str:
    return before * depth + inner + after * depth


def each(form: str, count: int) -> str:
    return "".join(form.format(number) for number in range(count))


def workbook(gap: int) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["=A1"])
    book.save(made := io.BytesIO())
    with zipfile.ZipFile(made) as file:
        members = {name: file.read(name) for name in file.namelist()}
    return packed(**members | {"xl/worksheets/sheet1.xml": members["xl/worksheets/sheet1.xml"].replace(b"</f>", b"</f>" + b" " * gap)})


TABLE = ("<table:table><table:table-row><table:table-cell><text:p>a</text:p>", "</table:table-cell></table:table-row></table:table>")
NOTE = ("<text:p>a<text:note><text:note-body>", "</text:note-body></text:note></text:p>")
BOX = ("<text:p>a<draw:frame><draw:text-box>", "</draw:text-box></draw:frame></text:p>")
FUNCTION = ("<m:func><m:fName><m:r><m:t>f</m:t></m:r></m:fName><m:e>", "</m:e></m:func>")
TERM = "<m:r><m:t>x</m:t></m:r>"

NESTED: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "tables of OpenDocument": (".odt", lambda n: odt(within(*TABLE, n))),
    "notes of OpenDocument": (".odt", lambda n: odt(within(*NOTE, n, "<text:p>x</text:p>"))),
    "text boxes of OpenDocument": (".odt", lambda n: odt(within(*BOX, n, "<text:p>x</text:p>"))),
    "notes and text boxes in turn": (".odt", lambda n: odt(within(NOTE[0] + BOX[0], BOX[1] + NOTE[1], n // 2, "<text:p>x</text:p>"))),
    "lists of OpenDocument": (
        ".odt",
        lambda n: odt(within("<text:list><text:list-item>", "</text:list-item></text:list>", n, "<text:p>x</text:p>")),
    ),
    "functions of Word": (".docx", lambda n: docx(f"<w:p><m:oMath>{within(*FUNCTION, n, TERM)}</m:oMath></w:p>")),
    "formulas of a page": (".html", lambda n: f"<html><p>{within('<math><msqrt><mi>a</mi>', '</msqrt></math>', n)}</p></html>".encode()),
    "tables of a page": (".html", lambda n: f"<html>{within('<table><tr><td>a', '</td></tr></table>', n)}</html>".encode()),
    "lists of a page": (".html", lambda n: f"<html>{within('<ul><li>a', '</li></ul>', n)}</html>".encode()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
def test_one_level_more_does_not_double_the_work(name: str, tmp_path: Path) -> None:
    suffix, make = NESTED[name]
    short, long = (min(seconds(tmp_path, suffix, make(depth)) for _ in range(2)) for depth in (10, 18))
    assert long < max(0.1, 8 * short)


NUMBERING = f"""<w:numbering {WORD}><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="9999999"><w:numFmt w:val="decimal"/>
    <w:lvlText w:val="%1."/>
    </w:lvl></w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>"""
NUMBERED = '<w:p><w:pPr><w:numPr><w:ilvl w:val="9999999"/><w:numId w:val="1"/></w:numPr></w:pPr><w:r><w:t>a</w:t></w:r></w:p>'
SCRIPT = b'<html><script type="math/tex">%s</script>'
POINT = '<navPoint><navLabel><text>a</text></navLabel><content src="c.xhtml#a{0}"/></navPoint>'

LONG: dict[str, tuple[str, int, Callable[[int], bytes]]] = {
    "raised nothings": (".html", 3_000, lambda n: b"<html><p>a" + b"<sup></sup>" * n),
    "formulas beside each other": (".html", 1_000, lambda n: b"<html><div>" + b"<math><mi>x</mi></math> " * n + b"</div>"),
    "formulas in wrappers": (".html", 4_000, lambda n: SCRIPT % within("{\\displaystyle ", "}", n).encode()),
    "a long word before a raised figure": (".html", 10_000, lambda n: b"<html><p>" + b"a" * n + b"!<sup>2</sup> b"),
    "a style without an end": (".html", 2_000, lambda n: b'<html><p style="' + b"text-decoration: " * n + b'">a</p>'),
    "anchors of a chapter": (".epub", 500, lambda n: epub(each('<p id="a{}">text</p>', n), each(POINT, n))),
    "points within points": (".epub", 1_000, lambda n: epub("<p>text</p>", within("<navPoint>", "</navPoint>", n))),
    "raised without an end": (".rtf", 2_000, lambda n: b"{\\rtf1 a" + b"\\u-8176?b" * n + b"}"),
    "struck without an end": (".rtf", 2_000, lambda n: b"{\\rtf1 a" + b"\\u-8175?b" * n + b"}"),
    "space behind a formula": (".xlsx", 10_000, workbook),
    "numbers of the millionth level": (".docx", 10, lambda n: docx(NUMBERED * n, **{"word/numbering.xml": NUMBERING})),
    "one long row": (".csv", 1_000, lambda n: b"a;b\n" * n + b"c;" * n + b"d\n"),
    "paragraphs within paragraphs of a header": (".docx", 500, lambda n: docx(
        "<w:p/>", **{"word/header1.xml": f"<w:hdr {WORD}>{within('<w:p><w:r><w:t>a</w:t></w:r>', '</w:p>', n)}</w:hdr>"})),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_four_times_as_many_do_not_take_sixteen_times_as_long(name: str, tmp_path: Path) -> None:
    suffix, count, make = LONG[name]
    long = seconds(tmp_path, suffix, make(4 * count))
    if long > 0.3:
        assert min(long, seconds(tmp_path, suffix, make(4 * count))) < 10 * max(seconds(tmp_path, suffix, make(count)) for _ in range(2))


def seconds(folder: Path, suffix: str, data: bytes) -> float:
    path = folder / f"a{suffix}"
    path.write_bytes(data)
    started = time.process_time()
    with contextlib.suppress(DocumentError):
        load_document(path)
    return time.process_time() - started


def zipped_by(kind: int, damage: Callable[[bytes], bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as file:
        file.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        file.writestr("META-INF/container.xml", "<container>" + "a" * 500 + "</container>")
    return damage(out.getvalue())


def far_away(data: bytes) -> bytes:
    """The first member begins 2^63 bytes into the file."""
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 42] + b"\xff\xff\xff\xff" + data[at + 46 :]


ODD: dict[str, tuple[str, bytes]] = {
    "deep lists of OpenDocument": (".odt", odt(within("<text:list><text:list-item>", "</text:list-item></text:list>", 2_000))),
    "deep formulas of a page": (".html", f"<html><p>{within('<math><mrow>', '</mrow></math>', 2_000)}</p></html>".encode()),
    "deep formulas of Word": (".docx", docx(f"<w:p><m:oMath>{within(*FUNCTION, 2_000, TERM)}</m:oMath></w:p>")),
    "deep parts of a mail": (
        ".eml", b"From: a\nTo: b\n" + each('Content-Type: multipart/mixed; boundary="{0}"\n\n--{0}\n', 2_000).encode()),
    "numbers that are none": (".odt", odt('<text:h text:outline-level="x">a</text:h><text:p>b<text:s text:c="-"/></text:p>'
                              '<table:table><table:table-row><table:table-cell table:number-columns-repeated="many"><text:p>c</text:p>'
                              "</table:table-cell></table:table-row></table:table>",
                              '<text:list-style style:name="L"><text:list-level-style-number text:level="x"'
                              ' style:num-format="1"/></text:list-style>')),
    "a number of 5,000 digits": (".odt", odt(f'<text:h text:outline-level="{"9" * 5000}">a</text:h>')),
    "figures that are no numbers": (
        ".html", "<table><tr><td colspan='²'>a</td><th colspan='99'>b</th></tr></table><ol start='½'><li>c</ol>".encode()),
    "numbers of 5,000 digits": (".html", f"<html><table><tr><td colspan='{'9' * 5000}'>a</td></tr></table><h{'9' * 5000}>b</h1>".encode()),
    "an encoding that nobody knows": (".odt", packed(**{"content.xml": b'<?xml version="1.0" encoding="x-none"?><a/>'})),
    "an encoding of many bytes": (".odt", packed(**{"content.xml": b'<?xml version="1.0" encoding="big5"?><a/>'})),
    "a package in no encoding": (
        ".docx", packed(**{"_rels/.rels": b'<?xml version="1.0" encoding="x-none"?><a/>', "word/document.xml": "<a/>"})),
    "LZMA that is none": (".epub", zipped_by(zipfile.ZIP_LZMA, lambda data: data.replace(data[150:170], b"\xff" * 20))),
    "BZIP2 that is none": (".epub", zipped_by(zipfile.ZIP_BZIP2, lambda data: data.replace(b"BZh9", b"BZhX"))),
    "a member beyond the end": (".epub", zipped_by(zipfile.ZIP_STORED, far_away)),
    "a mail with odd headers": (
        ".eml", b"From: a\nMIME-Version: 1\nContent-Type: text/plain; charset*=''x%; name*0*=\"\nContent-Disposition: ;;=\"\n\nx"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_no_program_writes_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Not an error of another kind: the reader's process would call it a bug of ours."""
    suffix, data = ODD[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    try:
        assert load_document(path).pages
    except DocumentError as error:
        assert ": " in str(error)


def position_of(digits: str, path: Path) -> Path:
    run = f'<w:r><w:rPr><w:position w:val="{digits}"/></w:rPr><w:t> of words</w:t></w:r>'
    path.with_suffix(".docx").write_bytes(docx(f"<w:p><w:r><w:t>A line</w:t></w:r>{run}</w:p>"))
    return path.with_suffix(".docx")


def baseline_of(digits: str, path: Path) -> Path:
    import pptx

    deck = pptx.Presentation()
    shapes = deck.slides.add_slide(deck.slide_layouts[5]).shapes
    shapes.title.text_frame.text = "A line"
    run = shapes.title.text_frame.paragraphs[0].add_run()
    run.text = " of words"
    run._r.get_or_add_rPr().set("baseline", digits)
    deck.save(str(path.with_suffix(".pptx")))
    return path.with_suffix(".pptx")


@pytest.mark.slow
@pytest.mark.parametrize("digits", ["9" * 5000, "-25000", "1.5", "²", "x", ""])
@pytest.mark.parametrize("write", [position_of, baseline_of])
def test_a_place_that_is_no_number_costs_no_words(write: Callable[[str, Path], Path], digits: str, tmp_path: Path) -> None:
    text = "".join(page.text for page in load_document(write(digits, tmp_path / "a")).pages)
    assert "A line" in text and "of words" in text


def test_no_text_becomes_a_number_before_its_length_is_known() -> None:
    """Python refuses to read 4,301 digits, with a ValueError that nobody expects behind `isdecimal`."""
    package = Path(str(selfextend_local.__file__)).parent
    files = [path for folder in (package, Path(str(selfextend_cli.__file__)).parent) for path in folder.rglob("*.py")]
    lines = [(path.name, line.strip()) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    reads = [(name, line) for name, line in lines if re.search(r"is(decimal|digit)\(\)", line) and re.search(r"\bint\(", line)]
    own = {("chat_template.py", "yield Content(int(place[1])) if place[1].isdecimal() else Mark(place[1])")}
    assert len(reads) > 5
    assert [read for read in reads if "len(" not in read[1] and read not in own] == []
