"""What a file is: by its content first, by its suffix only where the content doesn't say.

Knows first bytes and the names in a zip file. Must not read a document.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum
from pathlib import Path

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.docx import body_name
from selfextend_local.documents.epub import CONTAINER
from selfextend_local.documents.mail import is_mail
from selfextend_local.errors import DocumentDamaged, DocumentEncrypted, DocumentUnsupported

HEAD = 4096  # bytes that tell a kind

_PDF_MAGIC = b"%PDF-"
_PDF_MAGIC_WITHIN = 1024  # PDF readers allow this much junk before the magic bytes
_ZIP_MAGIC = b"PK\x03\x04"
_OFFICE_MAGIC = b"\xd0\xcf\x11\xe0"
_EPUB_MIMETYPE = b"mimetypeapplication/epub+zip"
_BEFORE_HTML = re.compile(r"\s+|<!--.*?-->|<\?[^>]*>", re.DOTALL)
_HTML_TAG = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".xht"})
_TEXT_SUFFIXES = frozenset({".md", ".markdown", ".rst", ".tex", ".html", ".htm"})


class Kind(Enum):
    """The kinds of documents that we read."""

    PDF = "PDF"
    EPUB = "EPUB"
    DOCX = "DOCX"
    PPTX = "PPTX"
    XLSX = "XLSX"
    OPENDOCUMENT = "OpenDocument"
    RTF = "RTF"
    MAIL = "mail"
    NOTEBOOK = "notebook"
    FB2 = "FictionBook"
    CSV = "CSV"
    HTML = "HTML"
    TEXT = "text"


_RTF_MAGIC = b"{\\rtf"
_PARTS = (("ppt/presentation.xml", Kind.PPTX), ("xl/workbook.xml", Kind.XLSX), ("content.xml", Kind.OPENDOCUMENT))
_BY_SUFFIX = {".docx": Kind.DOCX, ".pptx": Kind.PPTX, ".xlsx": Kind.XLSX}
_APPLE = ("Index/Document.iwa", "Index/Presentation.iwa", "Index/Tables/DataList.iwa", "Index.zip")


def is_pdf(path: Path, head: bytes) -> bool:
    """Whether a file that begins with `head` is a PDF, or claims to be one and is nothing else."""
    suffix = path.suffix.lower()
    if head.startswith((_ZIP_MAGIC, _OFFICE_MAGIC)):
        return False
    if head.startswith(_PDF_MAGIC) or suffix == ".pdf":
        return True
    # A text about PDF files may name the magic bytes near its top.
    return suffix not in _TEXT_SUFFIXES and _PDF_MAGIC in head[:_PDF_MAGIC_WITHIN]


def is_pdf_file(path: Path) -> bool:
    """As `is_pdf`, of the file's own first bytes. Raises OSError."""
    with path.open("rb") as file:
        return is_pdf(path, file.read(HEAD))


def is_html(path: Path, head: bytes) -> bool:
    """Whether a file that begins with `head`, and isn't binary, is HTML."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if wide else "latin-1", "ignore").removeprefix(codecs.BOM_UTF8.decode("latin-1"))
    return path.suffix.lower() in _HTML_SUFFIXES or _begins_html(text)


def _begins_html(text: str) -> bool:
    at = 0
    while (skipped := _BEFORE_HTML.match(text, at)) is not None:
        at = skipped.end()
    return _HTML_TAG.match(text, at) is not None


def written_kind(path: Path, head: bytes) -> Kind:
    """The kind of a file that begins with `head` and is neither a PDF nor a zip file."""
    suffix = path.suffix.lower()
    if head.lstrip().startswith(_RTF_MAGIC):
        return Kind.RTF
    if is_mail(head, suffix):
        return Kind.MAIL
    if b"<FictionBook" in head:
        return Kind.FB2
    if suffix == ".ipynb":
        return Kind.NOTEBOOK
    if suffix in (".csv", ".tsv"):
        return Kind.CSV
    return Kind.HTML if is_html(path, head) else Kind.TEXT


def is_zip(head: bytes) -> bool:
    """Whether a file begins like a zip file, as EPUB and DOCX do."""
    return head.startswith(_ZIP_MAGIC)


def open_zip(path: Path, data: bytes) -> tuple[Kind, Archive] | None:
    """The archive if it is a book or an Office document, and which; None if it is another kind of zip file.

    Raises:
        DocumentDamaged: it was one once.
        DocumentUnsupported: it may be a zip bomb.
    """
    suffix = path.suffix.lower()
    is_epub = _EPUB_MIMETYPE in data[:HEAD] or suffix == ".epub"
    try:
        archive = Archive(path, data)
    except DocumentDamaged:
        if is_epub or suffix in _BY_SUFFIX:
            raise
        return None
    if body_name(archive) is not None:
        return Kind.DOCX, archive
    if is_epub or CONTAINER in archive.names:
        return Kind.EPUB, archive
    for part, kind in _PARTS:
        if archive.find(part):
            return kind, archive
    if any(name in archive.names for name in _APPLE):
        raise DocumentUnsupported(f"{path} is an Apple Pages, Numbers or Keynote file: export it as PDF, or as DOCX")
    return (Kind.DOCX, archive) if suffix == ".docx" else None


def refuse_office(path: Path, data: bytes) -> None:
    """Raise DocumentEncrypted for a DOCX with a password, which looks like an old Office file."""
    if data.startswith(_OFFICE_MAGIC) and "EncryptedPackage".encode("utf-16-le") in data:
        raise DocumentEncrypted(f"{path} has a password: open it in Word and save it without one")
    if data.startswith(_OFFICE_MAGIC) and ("__substg1.0_".encode("utf-16-le") in data or path.suffix.lower() == ".msg"):
        raise DocumentUnsupported(f"{path} is an Outlook message: save it as .eml, PDF or text")
    if data.startswith(_OFFICE_MAGIC):
        raise DocumentUnsupported(f"{path} is an old Office file: save it as DOCX, or save it as PDF or text")
