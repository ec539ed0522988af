"""Reading PDF files: the one module that touches pypdfium2 and pypdf.

Knows both libraries, their errors, and that PDFium is not thread-safe. Gives out
plain lines with boxes. Must not mend words, drop page furniture or build a
Document. pypdf is the second try, for files and pages that PDFium gives up on.
Neither library is imported before the first PDF is read.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from selfextend_local.documents import widgets
from selfextend_local.documents.columns import in_reading_order
from selfextend_local.documents.glyphs import DOWN, SLANTED, UP, UPRIGHT, VERTICAL, Glyphs, is_from_right, lines_by_direction, majority
from selfextend_local.documents.hidden_layers import without_hidden_layers
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

_DRAWN_DOTS = 200  # an inch; recognition gains little beyond
logging.getLogger("pypdfium2").setLevel(logging.ERROR)  # warns of XFA forms, which we name ourselves
logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # repeats what a file says, escape codes included

_LONGEST_WATERMARK = 60  # characters
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
    for number in numbers:
        # Opened anew for each page, so that the lock isn't held while the caller looks at the picture.
        with opened_pdf(path, data) as (_, document):
            image = drawn(document[number - 1], number, _DRAWN_DOTS)
        yield image


@contextmanager
def opened_pdf(path: Path, data: bytes | None = None) -> Iterator[tuple[Any, Any]]:
    """pypdfium2 and the document, for one thread at a time; its errors are DocumentErrors."""
    pdfium = import_module("pypdfium2")
    with _PDFIUM_LOCK:
        document = _opened(pdfium, path, data)
        try:
            yield pdfium, document
        except pdfium.PdfiumError as error:
            raise error_for(path, 6) from error
        finally:
            document.close()


def drawn(page: Any, number: int, dots: float) -> PageImage:
    """A page of pypdfium2 as a picture of so many dots an inch, or fewer if it is very large."""
    scale = min(dots / 72, _DRAWN_MOST / max(*page.get_size(), 1.0))
    return PageImage(number, page.render(scale=scale).to_numpy()[:, :, :3].copy(), scale)


def _opened(pdfium: Any, path: Path, data: bytes | None) -> Any:
    try:
        return pdfium.PdfDocument(path if data is None else data)
    except pdfium.PdfiumError as error:
        raise error_for(path, error.err_code) from error


def _read_with_pdfium(path: Path, data: bytes | None, progress: Progress | None) -> RawPdf:
    pdfium = import_module("pypdfium2")
    data = without_hidden_layers(path, data) or data
    with _PDFIUM_LOCK:
        document = _opened(pdfium, path, data)
        try:
            total = len(document)
            if not total:
                raise error_for(path, 6)
            remarks = widgets.remarks(pdfium, document)
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
        except pdfium.PdfiumError as error:
            raise error_for(path, 6) from error
        finally:
            document.close()
    if len(failed) == total:
        raise error_for(path, 6)
    comments = [(page.label or str(n), text) for n, page in enumerate(pages, start=1) for text in page.comments]
    return RawPdf(title, tuple(pages), (*_damage_notes(failed), *remarks, *widgets.notes_remark(comments)))


def _damage_notes(failed: list[int]) -> tuple[str, ...]:
    if not failed:
        return ()
    numbers = ", ".join(map(str, failed))
    return (f"Damaged pages, whose text may be incomplete: {numbers}.",)


def _pdfium_page(pdfium: Any, document: Any, index: int) -> RawPage:
    label = document.get_page_label(index)
    page = document[index]
    try:
        left, bottom, right, top = page.get_bbox()
        width, height = right - left, top - bottom
        filled = widgets.filled_in(pdfium.raw, page, document.formenv, (left, bottom, right, top))
        notes = widgets.sticky_notes(pdfium.raw, page)
        textpage = page.get_textpage()
        try:
            notes += widgets.struck_out(pdfium.raw, page, textpage)
            glyphs = glyphs_of(pdfium, textpage, left, bottom, width, height)
        finally:
            textpage.close()
    finally:
        page.close()
    found = lines_by_direction(glyphs, width, height)
    if filled:
        found[UPRIGHT] = [*found.get(UPRIGHT, []), *filled]
    return replace(_laid_out(found, width, height, label), comments=tuple(notes))


def _laid_out(found: dict[int, list[Line]], width: float, height: float, label: str) -> RawPage:
    """A page of what runs the way that most of it runs, the rest beside it."""
    main = majority(found)
    slanted = found.pop(SLANTED, [])
    pages: dict[int, RawPage] = {}
    for way, lines in found.items():
        sides = (height, width) if way in (UP, DOWN, VERTICAL) else (width, height)
        if is_from_right("".join(x.text for x in lines)):  # seen in a mirror, such a page is like any other
            lines = [replace(x, left=sides[0] - x.right, right=sides[0] - x.left) for x in lines]
        pages[way] = RawPage(tuple(in_reading_order(lines)), *sides, label, measured=True)
    body = pages.pop(main, RawPage((), width, height, label, measured=True))
    watermarks, beside = _slanted_text(slanted, body)
    return replace(body, beside=(*pages.values(), *beside), watermarks=watermarks)


def _slanted_text(lines: list[Line], body: RawPage) -> tuple[tuple[str, ...], tuple[RawPage, ...]]:
    """Watermarks, and pages of what else is slanted (the labels of a chart). Slanted characters have no boxes of their own."""
    text = " ".join(x.text for x in lines)
    if not text:
        return (), ()
    if len(text) <= _LONGEST_WATERMARK and body.lines:
        return (text,), ()
    return (), (page_from_text(text, body.label),)


def glyphs_of(pdfium: Any, textpage: Any, left: float, bottom: float, width: float, height: float) -> Glyphs:
    """The characters within the visible part of the page, by calls that PDFium answers straight into arrays."""
    calls = _calls(pdfium)
    count = max(textpage.count_chars(), 0)
    page = ctypes.cast(textpage.raw, ctypes.c_void_p).value
    units = np.zeros(count + 1, np.uint16)
    got = calls.text(page, 0, count, units.ctypes.data) if count else 1
    codes = units[:count]
    if got - 1 != count:
        # A glyph without a Unicode value is left out by the fast way, which shifts the rest.
        codes = np.fromiter((code if code < 0x10000 else 0 for code in map(calls.code, repeat(page), range(count))), np.uint16, count)
    boxes = np.zeros((count, 4), np.float32)
    start = boxes.ctypes.data
    deque(map(calls.box, repeat(page), range(count), range(start, start + 16 * count, 16)), maxlen=0)
    angles = _angles(calls, page, codes, boxes)
    flat = np.flatnonzero((boxes[:, 1] - boxes[:, 3] < 0.01) & (codes > 32))
    for i in flat.tolist():  # a font that doesn't say how tall it is
        x0, y0, x1, y1 = textpage.get_charbox(i)
        boxes[i] = x0, max(y1, y0 + 1), x1, y0
    boxes -= np.array([left, bottom, left, bottom], np.float32)
    across, along = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    inside = (across > -1) & (across < width + 1) & (along > -1) & (along < height + 1)
    return Glyphs(codes[inside], boxes[inside], angles[inside])


def _angles(calls: _Calls, page: int | None, codes: Any, boxes: Any) -> Any:
    """How far each character is turned, in degrees against the clock; asked for all of them only where one of many is."""
    count = len(codes)
    angles = np.zeros(count, np.float32)
    ends = np.concatenate(([True], (np.abs(np.diff(boxes[:, 3])) > 0.5))) if count else np.zeros(0, bool)
    asked = np.flatnonzero(ends & (codes > 32))
    if any(map(calls.angle, repeat(page), asked.tolist())):
        angles[:] = np.fromiter(map(calls.angle, repeat(page), range(count)), np.float32, count)
        angles = (360 - np.degrees(angles)) % 360
    return angles


@dataclass(frozen=True, slots=True)
class _Calls:
    """PDFium's functions without ctypes' checks of each argument: a page has thousands of characters."""

    text: Callable[..., int]
    code: Callable[..., int]
    box: Callable[..., int]
    angle: Callable[..., float]


@lru_cache(maxsize=1)
def _calls(pdfium: Any) -> _Calls:
    page, index, address = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p

    def bare(function: Any, result: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *arguments)(ctypes.cast(function, ctypes.c_void_p).value or 0)

    raw = pdfium.raw
    return _Calls(
        bare(raw.FPDFText_GetText, ctypes.c_int, page, index, ctypes.c_int, address),
        bare(raw.FPDFText_GetUnicode, ctypes.c_uint, page, index),
        bare(raw.FPDFText_GetLooseCharBox, ctypes.c_int, page, index, address),
        bare(raw.FPDFText_GetCharAngle, ctypes.c_float, page, index),
    )


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
