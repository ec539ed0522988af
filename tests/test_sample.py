"""The sample document: its bytes, its size, and its facts on their pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fpdf")

from selfextend_local.documents import Document, load_document
from selfextend_local.errors import SelfExtendError
from selfextend_local.sample import SAMPLE_FACTS, SAMPLE_READING, Fact, write_sample
from selfextend_local.sample.__main__ import main


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return load_document(write_sample(tmp_path_factory.mktemp("sample") / "sample.pdf"))


@pytest.mark.slow
def test_length(sample: Document) -> None:
    # About 1.37 SmolLM2 tokens a word: 13,256 tokens with the markers.
    assert sample.page_count == 40
    assert 9_500 <= len(sample.text_with_markers().split()) <= 9_800
    assert [warning.partition(" are ")[0] for warning in sample.warnings] == ["Running heads or feet"]


@pytest.mark.slow
@pytest.mark.parametrize("fact", SAMPLE_FACTS, ids=lambda f: f.answer)
def test_each_fact_stands_on_its_page_and_nowhere_else(sample: Document, fact: Fact) -> None:
    assert [p.number for p in sample.pages if fact.answer in p.text] == [fact.page]


@pytest.mark.slow
def test_the_question_that_needs_reading_is_said_in_other_words_on_its_page(sample: Document) -> None:
    page = sample.pages[SAMPLE_READING.page - 1].text
    assert f"Old {SAMPLE_READING.answer} Fell looked after the boat" in " ".join(page.split())
    assert "takes care of" not in sample.text_with_markers()


def test_three_facts_are_early() -> None:
    assert sum(2 <= fact.page <= 6 for fact in SAMPLE_FACTS) >= 3


@pytest.mark.slow
def test_pages_extract_cleanly(sample: Document) -> None:
    text = sample.text_with_markers()
    assert text.count("Report for 1987") == 1  # the running header, where it comes first
    assert text.isascii()
    assert "\n[page 3]\nForeword by the Warden\n\nThis is the thirty-first report" in text
    assert "The Weather in Figures ... 34\n" in sample.pages[1].text
    assert "\n| December | 3 | 9 | 107 | 4 |\n" in sample.pages[33].text
    assert all(page.text.count("\n\n") >= 2 for page in sample.pages[2:8])


def test_contents_list_names_the_right_pages(sample: Document) -> None:
    rows = [row.split(" ... ") for row in sample.pages[1].text.split("\n") if " ... " in row]
    assert len(rows) == 23
    for title, number in rows:
        assert sample.pages[int(number) - 1].text.startswith(f"{title}\n")


@pytest.mark.slow
def test_command_writes_the_same_bytes_each_time(
    sample: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.pdf"
    assert main([str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "page 3: What is the pass key of the north vault? 48213" in captured.err
    assert out.read_bytes() == sample.path.read_bytes()


def test_command_reports_an_unwritable_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfextend_local.sample.book.report_pdf", lambda: b"%PDF-")
    assert main([str(tmp_path / "no" / "out.pdf")]) == 1
    assert "choose another place" in capsys.readouterr().err


def test_missing_fpdf2_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(SelfExtendError, match="pip install fpdf2"):
        write_sample(tmp_path / "out.pdf")


def test_importing_the_facts_loads_no_pdf_library() -> None:
    code = (
        "import sys, selfextend_local.sample; "
        "assert not {'fpdf', 'pypdfium2', 'pypdf'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_folder_holds_twelve_documents_and_three_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path / "reports")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(paths) == 15
    assert {p.suffix for p in paths} == {".md", ".txt", ".html", ".epub", ".docx", ".pdf"}
    for path in paths:
        if path.name.startswith("broken"):
            with pytest.raises(SelfExtendError):
                load_document(path)
        else:
            assert 200 < len(load_document(path).text_with_markers().split()) < 600
