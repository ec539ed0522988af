"""From a path to a Document.

Knows which reader suits a file, and the order of the steps: read, recognise, drop page
furniture, form paragraphs. Must not know formats, encodings or the libraries that read
them, and never reaches for the network.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.characters import clean
from selfextend_local.documents.document import Document, Page
from selfextend_local.documents.docx import read_docx
from selfextend_local.documents.epub import Chapter, read_epub
from selfextend_local.documents.html import read_html
from selfextend_local.documents.kinds import HEAD, Kind, is_pdf, is_zip, open_zip, refuse_office, written_kind
from selfextend_local.documents.labels import fit_labels
from selfextend_local.documents.legibility import nonsense_among
from selfextend_local.documents.mail import read_mail
from selfextend_local.documents.office import read_opendocument, read_pptx, read_xlsx
from selfextend_local.documents.tables import read_csv
from selfextend_local.documents.text import decode_markup, read_text, without_base64
from selfextend_local.documents.written import is_notebook, read_fb2, read_notebook, read_rtf
from selfextend_local.errors import (
    DocumentDamaged,
    DocumentEmpty,
    DocumentNotFound,
    DocumentUnsupported,
)

from . import paragraphs
from .headers import left_out, without_furniture

if TYPE_CHECKING:
    from selfextend_local.documents.pdf import RawPdf

Progress = Callable[[int, int], None]
STANDARD_INPUT = "-"
_INPUT_NAME = Path("standard input")

_LARGEST = 256 * 2**20  # bytes of anything but a PDF file
_LARGEST_HTML = 16 * 2**20
_NAMED = 12  # pages
_LONGEST_EXAMPLE = 60
_SCAN_CHARS = 20  # a page with fewer is probably an image
_ADDRESS = re.compile(r"[a-z][a-z0-9+.\-]+:/", re.IGNORECASE)
_PRODUCER_TITLE = re.compile(r"(microsoft \w+ - .*|untitled.*|.*\.\w{2,5})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Source:
    """What is read: its path, a name for messages and the default title, and the bytes if they aren't at the path."""

    path: Path
    name: Path
    data: bytes | None = None

    def head(self) -> bytes:
        if self.data is not None:
            return self.data[:HEAD]
        with self.path.open("rb") as file:
            return file.read(HEAD)

    def read(self) -> bytes:
        """All of it, or DocumentUnsupported."""
        if self.data is not None:
            return self.data
        if self.path.stat().st_size > _LARGEST:
            raise DocumentUnsupported(f"{self.name} is larger than {_LARGEST >> 20} MiB: split it first")
        return self.path.read_bytes()


def load_document(
    source: str | os.PathLike[str], *, progress: Progress | None = None, ocr: bool = False, keep_headers: bool = False
) -> Document:
    """Read a PDF, EPUB, FictionBook, DOCX, PPTX, XLSX, OpenDocument, RTF, HTML, mail, notebook, CSV, Markdown or text file.

    The content says which it is, then the suffix.

    Args:
        source: a local path, ``~`` is expanded; "-" is standard input, up to 256 MiB.
        progress: called as ``progress(done, total)`` after each PDF page or EPUB chapter, both in pages, and again from
            the start for the pages of a PDF that are recognised. What it raises stops the reading and reaches the caller.
        ocr: recognise the text of PDF pages that have none, or whose text layer is nonsense (needs the extra ``ocr``; seconds a page).
        keep_headers: leave running heads and feet, page numbers and line numbers in the text of a PDF.

    Raises:
        DocumentNotFound: no such file, a directory, or not readable; nothing is piped to standard input.
        DocumentEncrypted: it needs a password, or is under copy protection.
        DocumentDamaged: it can't be parsed.
        DocumentEmpty: no text in it: zero bytes, or only scanned pages.
        DocumentUnsupported: a web address, binary data, a zip bomb, not a regular file; or `ocr` isn't installed.
    """
    if os.fspath(source) == STANDARD_INPUT:
        return load_bytes(standard_input(), progress=progress, ocr=ocr, keep_headers=keep_headers)
    path = _readable_file(source)
    return _loaded(_Source(path, path), progress, ocr, keep_headers)


def load_bytes(data: bytes, *, progress: Progress | None = None, ocr: bool = False, keep_headers: bool = False) -> Document:
    """As `load_document` of standard input that held `data`."""
    return _loaded(_Source(Path(STANDARD_INPUT), _INPUT_NAME, data), progress, ocr, keep_headers)


def _loaded(file: _Source, progress: Progress | None, ocr: bool, keep_headers: bool) -> Document:
    try:
        return _read(file, progress, ocr, keep_headers)
    except RecursionError as error:
        raise DocumentUnsupported(f"{file.name} holds parts within parts, too deep to be read: save it as PDF or text") from error


def _read(file: _Source, progress: Progress | None, ocr: bool, keep_headers: bool) -> Document:
    head = file.head()
    if is_pdf(file.name, head):
        return _pdf_document(file, progress, ocr, keep_headers)
    data = file.read()
    refuse_office(file.name, data)
    opened = open_zip(file.name, data) if is_zip(head) else None
    if opened is not None:
        kind, archive = opened
        return _archived_document(file, kind, archive, data, progress)
    return _READERS[written_kind(file.name, head)](file, data)


def standard_input() -> bytes:
    """All of standard input. Raises DocumentNotFound, DocumentEmpty, DocumentUnsupported."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise DocumentNotFound("Nothing is piped to standard input: use e.g. --doc - < report.txt")
    data = sys.stdin.buffer.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise DocumentUnsupported(f"{_INPUT_NAME} is larger than {_LARGEST >> 20} MiB: save it to a file and split it")
    if not data:
        raise DocumentEmpty(f"{_INPUT_NAME} is empty (0 bytes): did the command before the pipe fail?")
    return data


def _readable_file(source: str | os.PathLike[str]) -> Path:
    """`source` as a path that can be opened and holds at least one byte."""
    given = os.fspath(source)
    path = Path(os.path.expanduser(given))
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DocumentNotFound(f"{path} is a directory: name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise DocumentUnsupported(f"{path} is not a regular file: copy its data to one")
        with path.open("rb"):
            pass
    except PermissionError as error:
        raise DocumentNotFound(
            f"{path} may not be read by this user: change its permissions, "
            f"e.g. chmod u+r {path.name}"
        ) from error
    except (OSError, ValueError) as error:
        if _ADDRESS.match(given):
            raise DocumentUnsupported(
                f"{given} is a web address and this program stays offline: "
                f"download it first, e.g. curl -LO {given}"
            ) from error
        raise DocumentNotFound(f"{path} does not exist: check the name and folder") from error
    if not status.st_size:
        raise DocumentEmpty(f"{path} is empty (0 bytes): was its download interrupted?")
    return path


def _pdf_document(file: _Source, progress: Progress | None, ocr: bool, keep_headers: bool) -> Document:
    from selfextend_local.documents.pdf import read_pdf

    raw = read_pdf(file.name, progress, data=file.data)
    if ocr:
        raw = _recognised(file, raw, progress)
    bare = list(raw.pages) if keep_headers else without_furniture(raw.pages)
    words = paragraphs.vocabulary(bare)
    margins = paragraphs.right_margins(bare)
    texts = [paragraphs.paragraphs(page, words, margins.get(page.width, 0.0)) for page in bare]
    pages = _pages(texts, fit_labels([page.label for page in bare]))
    unreadable = tuple(page.number for page in pages if not _has_words(page.text))
    if len(unreadable) == len(pages):
        raise DocumentEmpty(
            f"{file.name} has no text on any of its {len(pages)} pages (a scan?): "
            f"recognise the text: --ocr, or ocrmypdf {file.name.name} out.pdf"
        )
    notes = (
        *(() if ocr else _scan_notes(file, pages, unreadable)),
        *raw.notes,
        *_nonsense_notes(file, pages),
        *_header_notes(left_out(raw.pages, bare)),
        *_watermark_notes(raw),
        *_label_notes(raw, pages),
    )
    return Document(file.path, _pdf_title(raw.title) or file.name.stem, pages, unreadable, paged=True, notes=notes)


def _recognised(file: _Source, raw: RawPdf, progress: Progress | None) -> RawPdf:
    """`raw`, with the pages recognised that have no text, or nonsense; a note names them."""
    from selfextend_local.documents.ocr import recognised

    texts = ["\n".join(line.text for line in page.lines) for page in raw.pages]
    nonsense = frozenset(nonsense_among(texts))
    blank = [i + 1 for i, text in enumerate(texts) if not _has_words(text) or i in nonsense]
    if not blank:
        return raw
    pages = recognised(file.name, raw.pages, blank, data=file.data, progress=progress)
    read = ", ".join(raw.pages[i - 1].label or str(i) for i in blank if pages[i - 1].lines)
    notes = (f"Recognised from pictures (OCR), so they may hold errors: pages {read}.",) if read else ()
    return replace(raw, pages=tuple(pages), notes=(*raw.notes, *notes))


def _nonsense_notes(file: _Source, pages: Sequence[Page]) -> tuple[str, ...]:
    nonsense = [pages[i].number for i in nonsense_among([page.text for page in pages])]
    if not nonsense:
        return ()
    shown = Document(file.path, "", tuple(pages), (), paged=True).names(nonsense, most=_NAMED)
    which = "all pages" if len(nonsense) == len(pages) else f"pages {shown}"
    return (
        f"The text of {which} can't be read: the file's fonts say wrongly, or not at all, which letters they show. "
        f"Recognise it from the pictures instead: --ocr, or ocrmypdf --force-ocr {file.name.name} out.pdf",
    )


def _header_notes(removed: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    if not removed:
        return ()
    text, times = removed[0]
    shown = text if len(text) <= _LONGEST_EXAMPLE else f"{text[:_LONGEST_EXAMPLE]}..."
    more = f", and {len(removed) - 1} others" if len(removed) > 1 else ""
    pages = "page" if times == 1 else "pages"
    example = f'"{shown}" ({times} more {pages}){more}'
    return (f"Running heads or feet are in the text only once, e.g. {example}; --keep-headers keeps them all.",)


def _watermark_notes(raw: RawPdf) -> tuple[str, ...]:
    marks = Counter(" ".join(mark.split()) for page in raw.pages for mark in page.watermarks)
    if not marks:
        return ()
    shown = ", ".join(f'"{mark}" ({times} {"page" if times == 1 else "pages"})' for mark, times in marks.most_common(3))
    return (f"Slanted text was left out as a watermark: {shown}.",)


def _label_notes(raw: RawPdf, pages: Sequence[Page]) -> tuple[str, ...]:
    stated = [page.label for page in raw.pages if page.label]
    if len(set(stated)) == len(stated):
        return ()
    named = next((page.label for page in pages if " sheet " in page.label), "")
    if named:
        return (f'Several pages bear the same number, so some are told apart by their sheet: "{named}".',)
    return ("Several pages bear the same number, so pages are counted from 1.",)


def _scan_notes(file: _Source, pages: Sequence[Page], unreadable: Sequence[int]) -> tuple[str, ...]:
    """How to get at pages that are, or may be, pictures."""
    command = f"--ocr, or ocrmypdf --skip-text {file.name.name} out.pdf"
    sparse = sum(len(page.text) < _SCAN_CHARS for page in pages)
    if sparse * 2 > len(pages) > 1:
        return (f"Most pages hold almost no text (a scan?): recognise it: {command}",)
    return (f"If these pages are scans, recognise their text: {command}",) if unreadable else ()


def _pdf_title(stated: str) -> str:
    """The metadata title, or "" when it was left there by the program that made it."""
    title = " ".join(clean(stated).split())
    return "" if _PRODUCER_TITLE.fullmatch(title) else title


def _epub_document(file: _Source, archive: Archive, progress: Progress | None) -> Document:
    book = read_epub(file.name, archive, progress)
    pages = _pages([chapter.text for chapter in book.chapters], fit_labels(_chapter_labels(book.chapters)))
    return _written_document(file, book.title, pages, book.notes)


def _chapter_labels(chapters: Sequence[Chapter]) -> list[str]:
    """Chapters of one title are numbered by their places, "Notes 4"; the further files of a chapter by themselves, "One 2"."""
    repeated = {title for title, times in Counter(c.title for c in chapters if not c.goes_on).items() if times > 1}
    labels: list[str] = []
    beginning, files = "", 1
    for number, chapter in enumerate(chapters, start=1):
        if chapter.goes_on:
            files += 1
            labels.append(f"{beginning} {files}")
        else:
            beginning, files = f"{chapter.title} {number}".strip() if chapter.title in repeated else chapter.title, 1
            labels.append(beginning)
    return labels


def _archived_document(file: _Source, kind: Kind, archive: Archive, data: bytes, progress: Progress | None) -> Document:
    if kind is Kind.EPUB:
        return _epub_document(file, archive, progress)
    if kind is Kind.DOCX:
        word = read_docx(file.name, archive, data)
        return _written_document(file, word.title, _pages(word.pages), word.notes)
    if kind is Kind.OPENDOCUMENT:
        found = read_opendocument(file.name, archive)
    else:
        found = (read_pptx if kind is Kind.PPTX else read_xlsx)(file.name, archive, data)
    pages = tuple(clean(page) for page in found.pages)
    return _written_document(file, found.title, _pages(pages, fit_labels(found.labels)), found.notes)


def _html_document(file: _Source, data: bytes) -> Document:
    if len(data) > _LARGEST_HTML:
        raise DocumentUnsupported(f"{file.name} is HTML of more than {_LARGEST_HTML >> 20} MiB: save it as plain text")
    markup = decode_markup(file.name, data)
    html = read_html(markup.text)
    return _written_document(file, html.title, _pages([html.text]), _remarks(markup.note))


def _text_document(file: _Source, data: bytes) -> Document:
    text = read_text(file.name, data)
    return _written_document(file, "", _pages(text.pages), text.notes)


def _mail_document(file: _Source, data: bytes) -> Document:
    try:
        mail = read_mail(data)
    except Exception as error:  # the standard library raises many kinds for odd headers
        raise DocumentDamaged(f"{file.name} is a mail that can't be read: open it, and save it as PDF or text") from error
    return _written_document(file, mail.title, _pages([mail.text]), mail.notes)


def _rtf_document(file: _Source, data: bytes) -> Document:
    return _written_document(file, "", _pages([clean(read_rtf(file.name, data))]))


def _notebook_document(file: _Source, data: bytes) -> Document:
    text = decode_markup(file.name, data).text
    if not is_notebook(text):
        return _text_document(file, data)
    prose, _ = without_base64(read_notebook(file.name, text))
    return _written_document(file, "", _pages([clean(prose)]))


def _fb2_document(file: _Source, data: bytes) -> Document:
    title, sections = read_fb2(file.name, data)
    if not sections:
        return _text_document(file, data)
    chapters = [Chapter(name, text) for name, text in sections]
    return _written_document(file, title, _pages([c.text for c in chapters], fit_labels(_chapter_labels(chapters))))


def _csv_document(file: _Source, data: bytes) -> Document:
    decoded = decode_markup(file.name, data)
    return _written_document(file, "", _pages([clean(read_csv(decoded.text))]), _remarks(decoded.note))


_READERS: dict[Kind, Callable[[_Source, bytes], Document]] = {
    Kind.HTML: _html_document,
    Kind.TEXT: _text_document,
    Kind.MAIL: _mail_document,
    Kind.RTF: _rtf_document,
    Kind.NOTEBOOK: _notebook_document,
    Kind.FB2: _fb2_document,
    Kind.CSV: _csv_document,
}


def _remarks(*notes: str) -> tuple[str, ...]:
    return tuple(filter(None, notes))


def _written_document(file: _Source, title: str, pages: tuple[Page, ...], notes: tuple[str, ...] = ()) -> Document:
    """A document from a file that holds text, and no pictures of it."""
    unreadable = tuple(page.number for page in pages if not page.text.strip())
    if len(unreadable) == len(pages):
        raise DocumentEmpty(f"{file.name} holds no text, or only white space: check that it is the right file")
    title = clean(title).strip() or _heading(pages[0].text) or file.name.stem
    return Document(file.path, title, pages, unreadable, paged=len(pages) > 1, notes=notes)


def _heading(text: str) -> str:
    """The Markdown heading that a text begins with, or ""."""
    line = text.partition("\n")[0]
    return line[1:].rstrip().rstrip("#").strip() if line[:2] in ("# ", "#\t") else ""


def _pages(texts: Sequence[str], labels: Sequence[str] | None = None) -> tuple[Page, ...]:
    labels = labels or fit_labels([""] * len(texts))
    return tuple(Page(n, label, text) for n, (label, text) in enumerate(zip(labels, texts, strict=True), start=1))


def _has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)
