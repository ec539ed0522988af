"""From a path to a Document.

Knows which reader suits a file, and the order of the steps: read, drop page
furniture, form paragraphs. Must not know the PDF libraries or encodings (pdf.py
and text.py do), and never reaches for the network.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from selfextend_local.documents import reflow
from selfextend_local.documents.characters import clean
from selfextend_local.documents.document import Document, Page
from selfextend_local.documents.furniture import without_furniture
from selfextend_local.documents.pdf import Progress, read_pdf
from selfextend_local.documents.text import read_text
from selfextend_local.errors import (
    DocumentEmpty,
    DocumentNotFound,
    DocumentUnsupported,
)

_PDF_MAGIC = b"%PDF-"
_MAGIC_WITHIN = 1024  # PDF readers allow this much junk before the magic bytes
_LARGEST_TEXT = 256 * 2**20
_SCAN_CHARS = 20  # a page with fewer is probably an image
_ADDRESS = re.compile(r"[a-z][a-z0-9+.\-]+:/", re.IGNORECASE)
_HEADING = re.compile(r"#\s+(.+?)\s*#*$", re.MULTILINE)
_PRODUCER_TITLE = re.compile(r"(microsoft \w+ - .*|untitled.*|.*\.\w{2,5})", re.IGNORECASE)


def load_document(source: str | os.PathLike[str], *, progress: Progress | None = None) -> Document:
    """Read a PDF, Markdown or plain text file.

    Args:
        source: a local path; ``~`` is expanded.
        progress: called as ``progress(done, total)`` after each PDF page, both in
            pages. What it raises stops the reading and reaches the caller.

    Raises:
        DocumentNotFound: no such file, a directory, or not readable.
        DocumentEncrypted: a PDF that needs a password.
        DocumentDamaged: a PDF that cannot be parsed.
        DocumentEmpty: no text in it: zero bytes, or only scanned pages.
        DocumentUnsupported: a web address, binary data, not a regular file.
    """
    path = _readable_file(source)
    if _is_pdf(path):
        return _pdf_document(path, progress)
    return _text_document(path)


def _readable_file(source: str | os.PathLike[str]) -> Path:
    """`source` as a path that can be opened and holds at least one byte."""
    given = os.fspath(source)
    path = Path(given).expanduser()
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


def _is_pdf(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix.lower() == ".pdf" or _PDF_MAGIC in file.read(_MAGIC_WITHIN)


def _pdf_document(path: Path, progress: Progress | None) -> Document:
    raw = read_pdf(path, progress)
    bare = without_furniture(raw.pages)
    words = reflow.vocabulary(bare)
    margins = reflow.right_margins(bare)
    pages = tuple(
        Page(
            number,
            page.label or str(number),
            reflow.paragraphs(page, words, margins.get(page.width, 0.0)),
        )
        for number, page in enumerate(bare, start=1)
    )
    unreadable = tuple(page.number for page in pages if not _has_words(page.text))
    if len(unreadable) == len(pages):
        raise DocumentEmpty(
            f"{path} has no text on any of its {len(pages)} pages (a scan?): "
            f"recognise the text first, e.g. ocrmypdf {path.name} out.pdf"
        )
    notes = raw.notes
    sparse = sum(len(page.text) < _SCAN_CHARS for page in pages)
    if sparse * 2 > len(pages) > 1:
        hint = (
            "Most pages hold almost no text (a scan?): "
            f"recognise it first, e.g. ocrmypdf --skip-text {path.name} out.pdf"
        )
        notes = (*notes, hint)
    title = _pdf_title(raw.title) or path.stem
    return Document(path, title, pages, unreadable, paged=True, notes=notes)


def _pdf_title(stated: str) -> str:
    """The metadata title, or "" when it was left there by the program that made it."""
    title = " ".join(clean(stated).split())
    return "" if _PRODUCER_TITLE.fullmatch(title) else title


def _text_document(path: Path) -> Document:
    if path.stat().st_size > _LARGEST_TEXT:
        raise DocumentUnsupported(
            f"{path} is larger than {_LARGEST_TEXT >> 20} MiB: split it first"
        )
    texts = read_text(path, path.read_bytes())
    paged = len(texts) > 1
    pages = tuple(Page(n, str(n), text) for n, text in enumerate(texts, start=1))
    unreadable = tuple(page.number for page in pages if not page.text.strip())
    if len(unreadable) == len(pages):
        raise DocumentEmpty(f"{path} holds only white space: check that it is the right file")
    heading = _HEADING.match(texts[0])
    title = heading[1] if heading else path.stem
    return Document(path, title, pages, unreadable, paged=paged)


def _has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)
