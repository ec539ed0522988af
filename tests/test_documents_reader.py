"""Documents are read in a process of their own: no file ends, fills or hangs the program that asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.bad_documents import encrypted_pdf, form_loop_pdf, hanging_pdf, label_loop_pdf

from selfextend_local.chat.listener import Listener
from selfextend_local.chat.settings import ChatSettings
from selfextend_local.chat.sources import read_source
from selfextend_local.documents import reader_process
from selfextend_local.documents.load import load_document
from selfextend_local.documents.marking import mark
from selfextend_local.documents.reader import Reader, ReadLimits, mark_page, read_document
from selfextend_local.errors import (
    DocumentEncrypted,
    DocumentError,
    DocumentNotFound,
    Interrupted,
    ReaderCrashed,
    ReaderFailed,
    ReaderOutOfMemory,
    ReaderTimeout,
)

pytestmark = pytest.mark.process

FIELD = Path(__file__).parent / "data" / "field"
limited = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no limit on memory here")


class _Stopping(Listener):
    """Hears progress, and stops when told to."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.heard: list[tuple[int, int]] = []

    @contextmanager
    def progress(self, what: str, unit: str = "tokens") -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: self.heard.append((done, total))

    @contextmanager
    def stopping(self) -> Iterator[Callable[[], bool]]:
        yield self.stop.is_set


@pytest.mark.parametrize("name", ["pdf-invoices.pdf", "epub-notes.epub", "mail.eml", "text-ru-koi8.txt"])
def test_a_document_is_the_same_as_when_it_is_read_here(name: str) -> None:
    assert read_document(FIELD / name) == load_document(FIELD / name)


def test_how_it_is_to_be_read_travels() -> None:
    path = FIELD / "pdf-running-head-only.pdf"
    assert read_document(path, keep_headers=True) == load_document(path, keep_headers=True) != load_document(path)


def test_a_picture_is_the_same_as_when_it_is_drawn_here() -> None:
    path = FIELD / "pdf-hyphens.pdf"
    assert mark_page(path, None, "cooperative") == mark(path, None, "cooperative")
    with pytest.raises(DocumentError, match="isn't on pdf-hyphens.pdf"):
        mark_page(path, None, "zebra")


def test_errors_arrive_as_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DocumentEncrypted, match="remove the password first"):
        read_document(encrypted_pdf(tmp_path / "e.pdf"))
    with pytest.raises(DocumentNotFound, match="none.pdf"):
        read_document(tmp_path / "none.pdf")


def test_standard_input_is_read(tmp_path: Path) -> None:
    code = "from selfextend_local.documents.reader import read_document as r; d = r('-'); print(d.path, d.title, d.pages[0].text)"
    done = subprocess.run([sys.executable, "-c", code], input="# A title\n\nText.", capture_output=True, text=True, check=True)
    assert done.stdout == "- A title # A title\n\nText.\n"


def test_a_file_that_ends_its_reader_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ReaderCrashed, match=r"loop.pdf made the reader crash \(SIGSEGV\)"):
        read_source(str(label_loop_pdf(tmp_path / "loop.pdf")))


@limited
@pytest.mark.parametrize("make", [form_loop_pdf, hanging_pdf])
def test_a_file_that_fills_the_memory_or_hangs_is_a_sentence(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    settings, before = ChatSettings(read_timeout=5, read_memory=700), _children()
    with pytest.raises((ReaderTimeout, ReaderCrashed, ReaderOutOfMemory), match="--read-"):
        read_source(str(make(tmp_path / "bad.pdf")), None, settings)
    assert _children() <= before


def test_a_stop_ends_the_reading_at_once(tmp_path: Path) -> None:
    listener, before = _Stopping(), _children()
    threading.Timer(1, listener.stop.set).start()
    with pytest.raises(Interrupted, match="Stopped while reading"):
        read_source(str(hanging_pdf(tmp_path / "hang.pdf")), None, ChatSettings(read_timeout=3600), listener)
    assert _children() <= before


def test_progress_is_heard_and_begins_the_time_anew(tmp_path: Path) -> None:
    from fpdf import FPDF

    pdf = FPDF()
    for _ in range(30):
        pdf.add_page()
        pdf.set_font("helvetica")
        pdf.cell(text="A page.")
    pdf.output(str(tmp_path / "long.pdf"))
    listener = _Stopping()
    assert read_source(str(tmp_path / "long.pdf"), None, None, listener).whole.page_count == 30
    assert listener.heard[-1] == (30, 30)
    assert listener.heard == sorted(listener.heard)


def test_an_error_of_ours_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("can't add fish to bicycles")

    monkeypatch.setattr(reader_process, "load_document", broken)
    request = {"do": "read", "path": "a.txt", "data": None, "how": {}, "reports": False}
    answer = reader_process.answered(request)
    assert answer == {"error": "ReaderFailed", "message": "TypeError: can't add fish to bicycles"}

    reader = Reader(ReadLimits())
    monkeypatch.setattr(reader._child, "ask", lambda *_: answer)
    with pytest.raises(ReaderFailed, match="a.txt can't be read .*This is a bug"):
        reader.read("a.txt")


def _children() -> set[int]:
    return {child.pid for child in psutil.Process(os.getpid()).children()}
