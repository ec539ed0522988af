"""What people put into a PDF after it was made: form values, text boxes, sticky notes, attached files.

Knows PDFium's functions for annotations and forms. Gives out lines where a viewer shows them, and sentences for what has no
place on the page. Must not know layout.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

from selfextend_local.documents.characters import clean
from selfextend_local.documents.layout import Line

_PLACEHOLDER = re.compile(r"please wait|adobe (?:acrobat )?reader|viewer may not be able", re.IGNORECASE)
_HIDDEN = 0x02 | 0x20  # flags of an annotation: hidden, not shown on a screen
_MOST_NAMED = 8
_LONGEST = 200


def filled_in(raw: Any, page: Any, forms: Any, box: tuple[float, float, float, float]) -> list[Line]:
    """Form values and text boxes as lines; box boundaries are left, bottom, right, top of the page's visible part, in points."""
    lines: list[Line] = []
    left, bottom, right, top = box
    for annotation, kind in _annotations(raw, page):
        if kind == raw.FPDF_ANNOT_WIDGET and forms is not None:
            text = _field(raw, forms.raw, annotation)
        elif kind in (raw.FPDF_ANNOT_FREETEXT, raw.FPDF_ANNOT_STAMP):
            text = _string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
        else:
            continue
        rect = raw.FS_RECTF()
        if not text or not raw.FPDFAnnot_GetRect(annotation, rect):
            continue
        sides = sorted((rect.left, rect.right)), sorted((top - rect.top, top - rect.bottom))
        (x0, x1), (y0, y1) = sides
        if x1 < left or x0 > right or y1 < 0 or y0 > top - bottom:
            continue
        parts = [part for row in text.splitlines() if (part := clean(row).strip())]
        step = (y1 - y0) / max(1, len(parts))
        # A field is often taller than its text, so only its middle counts.
        inset = max(0.0, (step - 14) / 2)
        for n, part in enumerate(parts):
            y = y0 + n * step
            lines.append(Line(part, x0 - left, x1 - left, y + inset, y + step - inset))
    return lines


def remarks(pdfium: Any, document: Any) -> tuple[str, ...]:
    """Sentences on what the pages don't show: XFA forms, attached files. Prepares the document's form values."""
    raw = pdfium.raw
    kind = document.get_formtype()
    if kind != raw.FORMTYPE_NONE:
        document.init_forms()
    found: list[str] = []
    if kind in (raw.FORMTYPE_XFA_FULL, raw.FORMTYPE_XFA_FOREGROUND) and _is_placeholder(document):
        found.append("It is an XFA form, whose text only Adobe's programs can show: open it there and print it to a PDF first.")
    names = [clean(document.get_attachment(i).get_name()).strip() for i in range(document.count_attachments())]
    if names:
        shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        found.append(f"It holds attached files, which aren't read ({shown}): save them from a PDF viewer and name them as documents.")
    return tuple(found)


def notes_remark(notes: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """One sentence on what readers wrote or struck out, given as page label and text; none if there is nothing."""
    if not notes:
        return ()
    shown = "; ".join(f"page {label}: {text}" for label, text in notes[:_MOST_NAMED])
    more = f" and {len(notes) - _MOST_NAMED} more" if len(notes) > _MOST_NAMED else ""
    return (f"Marks of readers, which are no part of the text: {shown}{more}.",)


def _is_placeholder(document: Any) -> bool:
    if len(document) > 2:
        return False
    page = document[0]
    try:
        textpage = page.get_textpage()
        text = textpage.get_text_range()
        textpage.close()
    finally:
        page.close()
    return bool(_PLACEHOLDER.search(text)) or len(text.split()) < 5


def sticky_notes(raw: Any, page: Any) -> list[str]:
    """What comments on this page say that have no place in its text."""
    commented = (raw.FPDF_ANNOT_TEXT, raw.FPDF_ANNOT_HIGHLIGHT, raw.FPDF_ANNOT_UNDERLINE, raw.FPDF_ANNOT_STRIKEOUT, raw.FPDF_ANNOT_CARET)
    texts = []
    for annotation, kind in _annotations(raw, page):
        if kind in commented:
            text = " ".join(clean(_string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")).split())
            if text:
                texts.append(f'"{text if len(text) <= _LONGEST else text[:_LONGEST] + "..."}"')
    return texts


def struck_out(raw: Any, page: Any, textpage: Any) -> list[str]:
    """What readers struck out on this page, as sentences."""
    found = []
    for annotation, kind in _annotations(raw, page):
        if kind == raw.FPDF_ANNOT_STRIKEOUT:
            parts = (textpage.get_text_bounded(*box) for box in _marked(raw, annotation))
            words = " ".join(clean(" ".join(parts)).split())
            if words:
                found.append(f'struck out: "{words if len(words) <= _LONGEST else words[:_LONGEST] + "..."}"')
    return found


def _marked(raw: Any, annotation: Any) -> Iterator[tuple[float, float, float, float]]:
    """The boxes that a mark covers, a line each: left, bottom, right, top, less a rim that the lines beside reach into."""
    quad = raw.FS_QUADPOINTSF()
    for i in range(raw.FPDFAnnot_CountAttachmentPoints(annotation)):
        if raw.FPDFAnnot_GetAttachmentPoints(annotation, i, quad):
            left, *_, right = sorted((quad.x1, quad.x2, quad.x3, quad.x4))
            bottom, *_, top = sorted((quad.y1, quad.y2, quad.y3, quad.y4))
            rim = min(2.0, (top - bottom) / 4)
            yield left, bottom + rim, right, top - rim


def _annotations(raw: Any, page: Any) -> Iterator[tuple[Any, int]]:
    """The visible annotations of a page and their kinds."""
    for i in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, i)
        if not annotation:
            continue
        try:
            if not raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN:
                yield annotation, raw.FPDFAnnot_GetSubtype(annotation)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _field(raw: Any, form: Any, annotation: Any) -> str:
    """What a form field shows: its value, or a box that is ticked or not."""
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        return "[x]" if raw.FPDFAnnot_IsChecked(form, annotation) else "[ ]"
    if kind in (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
        if kind == raw.FPDF_FORMFIELD_TEXTFIELD and raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & (1 << 13):
            return ""  # a password
        return _string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
    return ""


def _string(function: Any, *arguments: Any) -> str:
    """What a function of PDFium writes as UTF-16."""
    size = function(*arguments, None, 0)
    if size <= 2:
        return ""
    units = (ctypes.c_ushort * (size // 2 + 1))()
    function(*arguments, units, size)
    return bytes(units)[: size - 2].decode("utf-16-le", "replace")
