"""Reading in a process of its own: a bad file costs a failure, never the program, its time or its memory."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.bad_documents import bomb_pdf, damaged_pdf, empty_file, encrypted_pdf, hanging_pdf

from selfextend_local.batch.job import Limits
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.reading import Reading
from selfextend_local.documents import Document

pytestmark = pytest.mark.process

posix = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no limit on memory here")


def read(path: Path, limits: Limits, should_stop: Callable[[], bool] | None = None) -> Document | Failure:
    reading = Reading(limits)
    try:
        return reading.read(path, should_stop)
    finally:
        reading.close()


def test_a_good_document_arrives_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("First page, naïve 中文.\n\fSecond page.\n", encoding="utf-8")
    document = read(path, Limits())
    assert isinstance(document, Document)
    assert (document.path, document.paged) == (path, True)
    assert [page.text for page in document.pages] == ["First page, naïve 中文.", "Second page."]


@pytest.mark.parametrize(
    ("make", "code"),
    [(encrypted_pdf, "document_encrypted"), (damaged_pdf, "document_damaged"), (empty_file, "document_empty")],
)
def test_bad_files_have_their_own_codes(tmp_path: Path, make: Callable[[Path], Path], code: str) -> None:
    failure = read(make(tmp_path / "bad.pdf"), Limits())
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert "bad.pdf" in failure.message


def test_a_missing_file(tmp_path: Path) -> None:
    failure = read(tmp_path / "none.pdf", Limits())
    assert isinstance(failure, Failure) and failure.code == "document_not_found"


def test_a_slow_start_counts_against_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's Python sleeps before it begins: longer than the limit for a document."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text("import time; time.sleep(4)")
    monkeypatch.setenv("PYTHONPATH", str(start))
    path = tmp_path / "a.txt"
    path.write_text("Good text.")
    assert isinstance(read(path, Limits(read_s=3)), Document)


def test_a_document_that_hangs_its_reader_is_given_up(tmp_path: Path) -> None:
    before = _pids()
    failure = read(hanging_pdf(tmp_path / "hang.pdf"), Limits(read_s=2))
    assert isinstance(failure, Failure) and failure.code == "reader_timeout"
    assert "--read-timeout" in failure.message
    assert _pids() == before


@posix
def test_a_bomb_is_stopped_by_the_memory_limit(tmp_path: Path) -> None:
    failure = read(bomb_pdf(tmp_path / "bomb.pdf"), Limits(read_mib=400))
    assert isinstance(failure, Failure) and failure.code in ("reader_crashed", "reader_out_of_memory")
    assert "--read-memory" in failure.message


def test_one_reader_serves_many_and_goes_on_after_each_kind_of_end(tmp_path: Path) -> None:
    good = tmp_path / "a.txt"
    good.write_text("Good text.")
    before = _pids()
    bad = [hanging_pdf(tmp_path / "hang.pdf"), damaged_pdf(tmp_path / "bad.pdf"), empty_file(tmp_path / "empty.txt")]
    reader = Reading(Limits(read_s=15))
    try:
        for path in bad:
            assert isinstance(reader.read(good), Document)
            first = _pids() - before
            assert isinstance(reader.read(good), Document)
            assert _pids() - before == first
            assert isinstance(reader.read(path), Failure)
        assert isinstance(reader.read(good), Document)
        for pid in _pids() - before:  # as the system does when memory runs out
            psutil.Process(pid).kill()
            psutil.Process(pid).wait()
        assert isinstance(reader.read(good), Document)
    finally:
        reader.close()
    assert _pids() == before


def test_a_stop_kills_the_reader(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    failure = read(hanging_pdf(tmp_path / "hang.pdf"), Limits(read_s=300), stop.is_set)
    assert isinstance(failure, Failure) and failure.code == "stopped"


def test_files_beside_the_documents_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no safe path")
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.txt").write_text("Good text.")
    monkeypatch.chdir(tmp_path)
    assert isinstance(read(Path("a.txt"), Limits()), Document)


def _pids() -> set[int]:
    return {child.pid for child in psutil.Process(os.getpid()).children()}
