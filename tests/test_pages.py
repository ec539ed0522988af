"""Pictures of pages with a passage marked: what is found, where the boxes are, and what is said when it isn't there."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from selfextend_cli.main import group
from support.bad_documents import encrypted_pdf

from selfextend_local.documents.marking import Box, Marked, mark
from selfextend_local.errors import DocumentDamaged, DocumentEncrypted, DocumentError, DocumentNotFound, DocumentUnsupported

FIELD = Path(__file__).parent / "data" / "field"


def _pdf(path: Path, *pages: str) -> Path:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("helvetica", size=12)
    for text in pages:
        pdf.add_page()
        pdf.multi_cell(0, text=text)
    pdf.output(str(path))
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    texts = "The first page speaks of sheep.", "The key of the north vault is 48213.\nAnother line.", "The north vault."
    return _pdf(tmp_path / "report.pdf", *texts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "lines"),
    [
        ("pdf-hyphens.pdf", "cooperative bought a self-propelled machine", 3),
        ("pdf-hyphens.pdf", "coopera-\ntive bought", 2),
        ("pdf-rotate90.pdf", "paid the full price on that day. The boat sank", 2),
        ("pdf-chromium-rtl.pdf", "החוזה נכנס לתוקף ביום", 1),
        ("pdf-chromium-cjk-vertical.pdf", "三十日以内に支払うもの", 1),
        ("pdf-table-columnwise.pdf", "| 04/11/2024 | River Timber | 23 |", 3),
        ("pdf-form-filled.pdf", "Ottilie Brandt", 1),
        ("pdf-superscript.pdf", "10^6 cells. Inhabitants in 1950[3] rose", 1),
        ("pdf-columns-rowwise.pdf", "ran for nine years without a fault", 2),
    ],
)
def test_a_passage_is_found_as_it_was_read(file: str, text: str, lines: int) -> None:
    found = mark(FIELD / file, None, text)
    assert len(found.hits[0]) == lines
    assert all(0 <= b.left < b.right <= found.width and 0 <= b.top < b.bottom <= found.height for hit in found.hits for b in hit)


def test_case_accents_ligatures_and_quotes_do_not_matter(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "a.pdf", 'The "café" is the ofﬁcial one.'.replace("ﬁ", "fi"))
    assert len(mark(path, "1", "the “Cafe” is the ofﬁcial").hits) == 1


@pytest.mark.parametrize(
    ("text", "places"), [("15", 1), ("1.5", 1), ("150", 1), ("10 6", 0), ("106", 1), ("50", 0), ("art", 1), ("vault", 2)]
)
def test_no_number_is_cut_and_whole_words_come_first(tmp_path: Path, text: str, places: int) -> None:
    path = _pdf(tmp_path / "a.pdf", "15 and 1.5 and 150 and 106 of the art, in part. vaulted vault, Vault")
    if not places:
        with pytest.raises(DocumentError, match="isn't on"):
            mark(path, "1", text)
    else:
        assert len(mark(path, "1", text).hits) == places


@pytest.mark.slow
def test_the_marks_are_where_the_text_is(report: Path) -> None:
    plain, marked = mark(report, "2"), mark(report, "2", "north vault")
    assert plain.hits == () and len(marked.hits) == 1
    before, after = (Image.open(BytesIO(m.png)).convert("RGB") for m in (plain, marked))
    assert before.size == after.size
    assert abs(before.width - marked.width * marked.scale) < 1.5 and abs(before.height - marked.height * marked.scale) < 1.5
    box = marked.hits[0][0]
    changed = [
        (x, y) for x in range(before.width) for y in range(before.height) if before.getpixel((x, y)) != after.getpixel((x, y))
    ]
    xs, ys = [x / marked.scale for x, _ in changed], [y / marked.scale for _, y in changed]
    found = Box(min(xs), min(ys), max(xs), max(ys))
    assert all(abs(a - b) < 3 for a, b in zip((found.left, found.top, found.right, found.bottom), _sides(box), strict=True))
    dark = [before.getpixel(p) for p in changed if sum(before.getpixel(p)) < 200]  # type: ignore[arg-type]
    assert dark


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


def test_without_a_page_the_first_is_taken_and_the_others_are_named(report: Path) -> None:
    found = mark(report, None, "north vault")
    assert (found.number, found.elsewhere) == (2, ("3",))


def test_one_of_several_texts_is_enough(report: Path) -> None:
    assert len(mark(report, "2", ["no such thing", "Another line."]).hits) == 1


@pytest.mark.parametrize(
    ("page", "text", "message"),
    [
        ("1", "north vault", "isn't on page 1 of report.pdf, but on page 2, 3: name that page"),
        ("2", "the key of the south vault", "isn't on page 2 of report.pdf. Nearest, on page 2: \"The key of the north vault\""),
        (None, "key of the south vault", 'isn\'t on report.pdf. Nearest, on page 2: "key of the north vault"'),
        (None, "zebra", "isn't on report.pdf, nor is any of its words"),
        ("9", "", "has no letter or figure"),
        ("9", "north", "has no page '9': it has 3, labelled 1-3"),
    ],
)
def test_what_is_not_there_is_said_with_what_is_nearest(report: Path, page: str | None, text: str, message: str) -> None:
    with pytest.raises(DocumentError) as error:
        mark(report, page, text)
    assert message in str(error.value)


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no pages")
    with pytest.raises(DocumentUnsupported, match="no PDF"):
        mark(text, "1")
    with pytest.raises(DocumentNotFound):
        mark(tmp_path / "none.pdf", "1")
    with pytest.raises(DocumentNotFound):
        mark(tmp_path, "1")
    with pytest.raises(DocumentEncrypted):
        mark(encrypted_pdf(tmp_path / "e.pdf"), "1")
    damaged = tmp_path / "d.pdf"
    damaged.write_bytes(b"%PDF-1.7\n" + bytes(500))
    with pytest.raises(DocumentDamaged):
        mark(damaged, "1")


@pytest.mark.slow
def test_the_command_writes_a_picture(report: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.png"
    result = CliRunner().invoke(group, ["pages", str(report), "--find", "NORTH vault", "-o", str(target)])
    assert result.exit_code == 0
    assert result.output.strip() == f"{target}: page 2, 1 place marked. It also stands on page 3."
    assert Image.open(target).format == "PNG"


@pytest.mark.slow
def test_the_command_names_its_picture(report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(group, ["pages", str(report), "--page", "3"]).exit_code == 0
    assert (tmp_path / "report-p3.png").is_file()


@pytest.mark.slow
def test_the_command_prints_boxes(report: Path) -> None:
    result = CliRunner().invoke(group, ["pages", str(report), "--find", "north vault", "--json"])
    said = json.loads(result.output)
    found: Marked = mark(report, "2", "north vault")
    assert (said["page"], said["label"], said["also_on"], said["picture"]) == (2, "2", ["3"], None)
    assert said["hits"] == [{"boxes": [[round(side, 2) for side in _sides(found.hits[0][0])]]}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Say which page"),
        (["--find", "zebra"], 1, "error: \"zebra\" isn't on report.pdf"),
        (["--page", "1", "-o", "{folder}/none/p.png"], 1, "can't be written"),
        (["--page", "1", "-o", "{folder}/report.pdf"], 2, "the document itself"),
    ],
)
def test_mistakes_are_a_sentence(report: Path, arguments: list[str], code: int, message: str) -> None:
    words = [word.format(folder=report.parent) for word in arguments]
    result = CliRunner().invoke(group, ["pages", str(report), *words])
    assert result.exit_code == code and message in result.output
    assert report.read_bytes().startswith(b"%PDF")
