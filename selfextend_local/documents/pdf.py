"""Reading PDF files: the one module that touches pypdfium2 and pypdf.

Knows both libraries, their errors, and that PDFium is not thread-safe. Gives out
plain lines with boxes. Must not mend words, drop page furniture or build a
Document. pypdf is the second try, for files and pages that PDFium gives up on.
Neither library is imported before the first PDF is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selfextend_local.documents.characters import HYPHEN_MARKS, SOFT_HYPHEN
from selfextend_local.documents.layout import Line, RawPage, page_from_text
from selfextend_local.errors import (
    DocumentDamaged,
    DocumentEncrypted,
    DocumentError,
    DocumentNotFound,
    DocumentUnsupported,
)

Progress = Callable[[int, int], None]

# PDFium's FPDF_ERR_* codes. None: PDFium said no more than that it failed.
PDFIUM_ERRORS: MappingProxyType[int | None, type[DocumentError]] = MappingProxyType(
    {
        None: DocumentDamaged,
        1: DocumentDamaged,  # unknown
        2: DocumentNotFound,  # file not found or could not be opened
        3: DocumentDamaged,  # not a PDF, or corrupted
        4: DocumentEncrypted,  # password required or incorrect
        5: DocumentEncrypted,  # unsupported security scheme
        6: DocumentDamaged,  # page not found or content error
    }
)

_NEXT_STEP: dict[type[DocumentError], str] = {
    DocumentEncrypted: "is encrypted: remove the password first, "
    "e.g. qpdf --decrypt --password=SECRET in.pdf out.pdf",
    DocumentNotFound: "cannot be opened: check its name and permissions",
    DocumentDamaged: "is damaged or is not a PDF: fetch it again, or try to repair it, "
    "e.g. qpdf in.pdf out.pdf",
}

_DRAWN_SCALE = 200 / 72  # dots a point; recognition gains little beyond 200 a inch
_DRAWN_MOST = 4000  # dots along the longer side, whatever size the page claims

# Re-entrant, since the progress callback runs while it is held.
_PDFIUM_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class RawPdf:
    """What a PDF file holds: pages in order, its metadata title, and remarks."""

    title: str
    pages: tuple[RawPage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page as a picture: its number from 1, the pixels (height, width, 3; uint8, blue first), and pixels a point."""

    number: int
    pixels: Any
    scale: float


def read_pdf(path: Path, progress: Progress | None = None, *, data: bytes | None = None) -> RawPdf:
    """Read every page of a PDF.

    Args:
        path: an existing, readable file; with `data` only a name for messages.
        progress: called as ``progress(done, total)`` after each page.
        data: the file's bytes, if it isn't to be read from `path`.

    Raises:
        DocumentEncrypted: a password is needed.
        DocumentDamaged: neither library can read it.
        DocumentNotFound: the file cannot be opened.
        DocumentUnsupported: pypdfium2 and pypdf are both missing.
    """
    try:
        pdf = _read_with_pdfium(path, data, progress)
    except (DocumentDamaged, ImportError) as first:
        pdf = _second_try(path, data, progress, first)
    if not _has_end_mark(path, data):
        note = "The file has no end mark (%%EOF): it may be cut short and lack pages."
        pdf = RawPdf(pdf.title, pdf.pages, (*pdf.notes, note))
    return pdf


def error_for(path: Path, code: int | None) -> DocumentError:
    """The exception for a PDFium error code, with the next step in its message."""
    kind = PDFIUM_ERRORS.get(code, DocumentDamaged)
    return kind(f"{path} {_NEXT_STEP[kind]}")


def page_images(path: Path, numbers: Iterable[int], *, data: bytes | None = None) -> Iterator[PageImage]:
    """The pages with these numbers (from 1) as pictures, one after another, for a file that `read_pdf` has read.

    Raises DocumentDamaged if a page can't be drawn.
    """
    pdfium = import_module("pypdfium2")
    for number in numbers:
        # Opened anew for each page, so that the lock isn't held while the caller looks at the picture.
        with _PDFIUM_LOCK:
            document = _opened(pdfium, path, data)
            try:
                page = document[number - 1]
                scale = min(_DRAWN_SCALE, _DRAWN_MOST / max(*page.get_size(), 1.0))
                pixels = page.render(scale=scale).to_numpy().copy()
            except pdfium.PdfiumError as error:
                raise error_for(path, 6) from error
            finally:
                document.close()
        yield PageImage(number, pixels, scale)


def _opened(pdfium: Any, path: Path, data: bytes | None) -> Any:
    try:
        return pdfium.PdfDocument(path if data is None else data)
    except pdfium.PdfiumError as error:
        raise error_for(path, error.err_code) from error


def _read_with_pdfium(path: Path, data: bytes | None, progress: Progress | None) -> RawPdf:
    pdfium = import_module("pypdfium2")
    with _PDFIUM_LOCK:
        document = _opened(pdfium, path, data)
        try:
            total = len(document)
            if not total:
                raise error_for(path, 6)
            pages, failed = [], []
            for i in range(total):
                try:
                    pages.append(_pdfium_page(pdfium, document, i))
                except pdfium.PdfiumError:
                    pages.append(_rescued(path, data, i, document.get_page_label(i)))
                    failed.append(i + 1)
                if progress is not None:
                    progress(i + 1, total)
            title = str(document.get_metadata_dict().get("Title", ""))
        finally:
            document.close()
    if len(failed) == total:
        raise error_for(path, 6)
    return RawPdf(title, tuple(pages), _damage_notes(failed))


def _damage_notes(failed: list[int]) -> tuple[str, ...]:
    if not failed:
        return ()
    numbers = ", ".join(map(str, failed))
    return (f"Damaged pages, whose text may be incomplete: {numbers}.",)


def _pdfium_page(pdfium: Any, document: Any, index: int) -> RawPage:
    label = document.get_page_label(index)
    page = document[index]
    try:
        textpage = page.get_textpage()
        try:
            left, bottom, right, top = page.get_bbox()
            spans = list(_spans(pdfium, textpage))
            lines = tuple(_measured(textpage, span, top) for span in spans)
            if _is_turned(lines):
                return page_from_text("\n".join(s.text for s in spans), label)
            return RawPage(lines, right - left, top - bottom, label, measured=True)
        finally:
            textpage.close()
    finally:
        page.close()


@dataclass(frozen=True, slots=True)
class _Span:
    """A line's text and the indices of its first and last visible characters."""

    text: str
    first: int
    last: int


def _spans(pdfium: Any, textpage: Any) -> Iterator[_Span]:
    text: list[str] = []
    first = last = -1
    chars = _characters(pdfium, textpage)
    for i, char in enumerate([*chars, "\n"]):
        divided = char in HYPHEN_MARKS
        if char not in "\r\n":
            text.append(SOFT_HYPHEN if divided else char)
            if char != " ":
                first, last = (i if first < 0 else first), i
        # PDFium swallows the line break after a hyphen that divides a word.
        if char in "\r\n" or (divided and _drops_below(textpage, i, len(chars))):
            if first >= 0:
                yield _Span("".join(text).strip(), first, last)
            text, first, last = [], -1, -1


def _characters(pdfium: Any, textpage: Any) -> Sequence[str]:
    """The page's characters, each at the index by which PDFium knows its box."""
    count = textpage.count_chars()
    text: str = textpage.get_text_range() if count else ""
    if len(text) == count:
        return text
    # The fast way left out a glyph without a Unicode value, and so shifted the rest.
    unicode_at = pdfium.raw.FPDFText_GetUnicode
    return [_char(unicode_at(textpage, i)) for i in range(count)]


def _char(code: int) -> str:
    return chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else ""


def _drops_below(textpage: Any, index: int, count: int) -> bool:
    """Whether the character after `index` stands on a lower line, or elsewhere."""
    if index + 1 >= count:
        return True
    _, bottom, _, top = textpage.get_charbox(index, loose=True)
    _, next_bottom, _, next_top = textpage.get_charbox(index + 1, loose=True)
    return bool(min(top, next_top) - max(bottom, next_bottom) < 0.5 * (top - bottom))


def _measured(textpage: Any, span: _Span, page_top: float) -> Line:
    left, low_a, _, high_a = textpage.get_charbox(span.first, loose=True)
    _, low_b, right, high_b = textpage.get_charbox(span.last, loose=True)
    top, bottom = page_top - max(high_a, high_b), page_top - min(low_a, low_b)
    return Line(span.text, left, right, top, bottom)


def _is_turned(lines: tuple[Line, ...]) -> bool:
    """Whether the text runs up or down the page, so that boxes mean nothing to us."""
    long = [x for x in lines if len(x.text) > 9]
    turned = [x for x in long if x.right - x.left < x.height]
    return len(turned) * 2 > len(long)


def _second_try(path: Path, data: bytes | None, progress: Progress | None, first: Exception) -> RawPdf:
    try:
        pypdf = import_module("pypdf")
    except ImportError:
        if isinstance(first, DocumentError):
            raise first from None
        raise DocumentUnsupported(
            f"{path} is a PDF and no PDF reader is installed: run pip install pypdfium2"
        ) from first
    try:
        reader = pypdf.PdfReader(path if data is None else BytesIO(data))
        total = len(reader.pages)
        labels = reader.page_labels
        title = str((reader.metadata and reader.metadata.title) or "")
    except pypdf.errors.FileNotDecryptedError as second:
        raise error_for(path, 4) from second
    except Exception as second:  # pypdf raises far more than its own PyPdfError
        raise error_for(path, 3) from second
    if not total:
        raise error_for(path, 3)
    pages = []
    for i in range(total):
        pages.append(_pypdf_page(reader, i, labels[i]))
        if progress is not None:
            progress(i + 1, total)
    note = "PDFium could not read this file; pypdf could, with less exact paragraphs."
    return RawPdf(title, tuple(pages), (note,))


def _pypdf_page(reader: Any, index: int, label: str) -> RawPage:
    """One page through pypdf; an empty page if it fails."""
    try:
        return page_from_text(reader.pages[index].extract_text(), label)
    except Exception:  # pypdf raises far more than its own PyPdfError
        return page_from_text("", label)


def _rescued(path: Path, data: bytes | None, index: int, label: str) -> RawPage:
    """A page that PDFium failed on, through pypdf if that can open the file."""
    try:
        reader = import_module("pypdf").PdfReader(path if data is None else BytesIO(data))
    except Exception:  # as above, or pypdf is not installed
        return page_from_text("", label)
    return _pypdf_page(reader, index, label)


def _has_end_mark(path: Path, data: bytes | None) -> bool:
    if data is not None:
        return b"%%EOF" in data[-2048:]
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 2048))
        return b"%%EOF" in file.read()
