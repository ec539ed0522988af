"""Reading presentations, workbooks and OpenDocument files: the one module that touches python-pptx and openpyxl.

Knows slides, sheets and the elements of OpenDocument. Gives out Markdown pages. Must not know how a Document is built. The
libraries are imported with the first file of their kind.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.tables import markdown_table
from selfextend_local.errors import DocumentDamaged, DocumentUnsupported

MOST_CELLS = 2_000_000

_ODF = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _TABLE, _DRAW, _OFFICE = (f"{_ODF}{name}:1.0}}" for name in ("text", "table", "drawing", "office"))
_SPACES = re.compile(r"[^\S\n]+")


@dataclass(frozen=True, slots=True)
class OfficeText:
    """A title or "", pages as Markdown with their labels ("" = none), and remarks."""

    title: str
    pages: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _checked(archive: Archive) -> None:
    """Refuse members that no honest file holds, before a library unpacks them."""
    for name in archive.names:
        if name.endswith((".xml", ".rels")):
            archive.read_xml(name)


def read_pptx(path: Path, archive: Archive, data: bytes) -> OfficeText:
    """A presentation: a page a slide, with tables, the data of charts, and the speaker's notes. Raises DocumentDamaged."""
    _checked(archive)
    import pptx

    try:
        slides = list(pptx.Presentation(io.BytesIO(data)).slides)
        pages = tuple("\n\n".join(filter(None, _slide(slide))) for slide in slides)
        hidden = [str(i) for i, slide in enumerate(slides, start=1) if slide._element.get("show") == "0"]
    except Exception as error:  # whatever lxml, the package or a part's class raises
        raise DocumentDamaged(f"{path} is a presentation that can't be read: open it and save it again, or save it as PDF") from error
    notes = (f"Hidden slides are read, too: {', '.join(hidden)}.",) if hidden else ()
    return OfficeText("", pages or ("",), tuple(str(i) for i in range(1, len(pages) + 1)), notes)


def _slide(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield f"# {' '.join(title.text_frame.text.split())}"
    for shape in _shapes(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            yield _shape(shape)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None and frame.text.strip():
        yield f"Notes: {frame.text.strip()}"


def _shapes(shapes: Any) -> Iterator[Any]:
    """Those in groups too, in reading order: by rows, then from left to right."""
    for shape in sorted(shapes, key=lambda s: ((s.top or 0) // 360_000, s.left or 0)):
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        else:
            yield shape


def _shape(shape: Any) -> str:
    if shape.has_text_frame:
        rows = ((paragraph.level, "".join(run.text for run in paragraph.runs)) for paragraph in shape.text_frame.paragraphs)
        return "\n".join(f"{'  ' * level}{text.strip()}" for level, text in rows if text.strip())
    if getattr(shape, "has_table", False):
        return markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
    if getattr(shape, "has_chart", False):
        plots = [plot for plot in shape.chart.plots if len(plot.categories)]
        head = [["", *map(str, plots[0].categories)]] if plots else []
        return markdown_table(head + [[series.name, *map(_value, series.values)] for plot in plots for series in plot.series])
    return ""


def read_xlsx(path: Path, archive: Archive, data: bytes) -> OfficeText:
    """A workbook: a page a sheet, as a table of the values that were shown when it was saved. Raises DocumentDamaged."""
    _checked(archive)
    import openpyxl

    pages, labels, hidden, cells = [], [], [], 0
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in book.worksheets:
            rows = []
            for row in sheet.iter_rows(values_only=True):
                cells += len(row)
                if cells > MOST_CELLS:
                    raise DocumentUnsupported(f"{path} holds more than {MOST_CELLS:,} cells: save the sheet that matters as CSV")
                rows.append([_value(value) for value in row])
            pages.append(markdown_table(rows))
            labels.append(sheet.title)
            if sheet.sheet_state != "visible":
                hidden.append(sheet.title)
        title = book.properties.title or ""
    except DocumentUnsupported:
        raise
    except Exception as error:  # whatever openpyxl's reader raises
        raise DocumentDamaged(f"{path} is a workbook that can't be read: open it and save it again, or save it as CSV") from error
    notes = (f"Hidden sheets are read, too: {', '.join(hidden)}.",) if hidden else ()
    return OfficeText(str(title), tuple(pages) or ("",), tuple(labels) or ("",), notes)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "seconds").removesuffix(" 00:00:00")
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def read_opendocument(path: Path, archive: Archive) -> OfficeText:
    """A text, a workbook or slides of OpenDocument (.odt, .ods, .odp). Raises DocumentDamaged, DocumentUnsupported."""
    try:
        root = ElementTree.fromstring(archive.read_xml("content.xml"))
    except (KeyError, ElementTree.ParseError) as error:
        raise DocumentDamaged(f"{path} is an OpenDocument file that can't be read: open it and save it again") from error
    body = root.find(f"{_OFFICE}body")
    inner = body[0] if body is not None and len(body) else root
    if inner.tag == f"{_OFFICE}spreadsheet":
        sheets = inner.findall(f"{_TABLE}table")
        names = tuple(sheet.get(f"{_TABLE}name", "") for sheet in sheets)
        return OfficeText("", tuple(markdown_table(_rows(path, sheet)) for sheet in sheets) or ("",), names or ("",))
    if inner.tag == f"{_OFFICE}presentation":
        slides = tuple("\n\n".join(filter(None, _blocks(path, slide))) for slide in inner.findall(f"{_DRAW}page"))
        return OfficeText("", slides or ("",), tuple(str(i) for i in range(1, len(slides) + 1)) or ("",))
    pages = "\n\n".join(filter(None, _blocks(path, inner))).split("\f")
    return OfficeText("", tuple(page.strip() for page in pages), ("",) * len(pages))


def _blocks(path: Path, node: Element, depth: int = 0) -> Iterator[str]:
    """The paragraphs, headings, lists and tables below `node`; a form feed where Word or LibreOffice began a page."""
    for child in node:
        name = child.tag
        if name in (f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_OFFICE}forms"):
            continue
        if name == f"{_TEXT}h":
            yield f"{'#' * min(6, int(child.get(f'{_TEXT}outline-level') or 1))} {_line(child)}"
        elif name == f"{_TEXT}p":
            yield from _paragraph(path, child, depth)
        elif name == f"{_TEXT}list":
            yield "\n".join(_items(path, child, depth))
        elif name == f"{_TABLE}table":
            yield markdown_table(_rows(path, child))
        elif name == f"{_TEXT}soft-page-break":
            yield "\f"
        else:
            yield from _blocks(path, child, depth)


def _paragraph(path: Path, node: Element, depth: int) -> Iterator[str]:
    yield _line(node)
    for note in node.iter(f"{_TEXT}note"):
        citation, body = note.find(f"{_TEXT}note-citation"), note.find(f"{_TEXT}note-body")
        if body is not None:
            yield f"[{'' if citation is None else _line(citation)}] {' '.join(filter(None, _blocks(path, body, depth)))}"
    for box in node.iter(f"{_DRAW}text-box"):
        yield from _blocks(path, box, depth)


def _items(path: Path, node: Element, depth: int) -> Iterator[str]:
    for item in node.findall(f"{_TEXT}list-item"):
        first, *rest = list(filter(None, _blocks(path, item, depth + 1))) or [""]
        yield f"{'  ' * depth}- {first}"
        yield from rest


def _line(node: Element) -> str:
    """The text of a paragraph, in one line; notes and text boxes apart."""
    return _SPACES.sub(" ", "".join(_inline(node))).strip()


def _inline(node: Element) -> Iterator[str]:
    yield node.text or ""
    for child in node:
        if child.tag == f"{_TEXT}s":
            yield " " * min(100, int(child.get(f"{_TEXT}c") or 1))
        elif child.tag == f"{_TEXT}tab":
            yield " "
        elif child.tag == f"{_TEXT}line-break":
            yield "\n"
        elif child.tag == f"{_TEXT}soft-page-break":
            yield "\f"
        elif child.tag == f"{_TEXT}note":
            citation = child.find(f"{_TEXT}note-citation")
            yield f"[{'' if citation is None else _line(citation)}]"
        elif child.tag not in (f"{_OFFICE}annotation", f"{_DRAW}text-box"):
            yield from _inline(child)
        yield child.tail or ""


def _rows(path: Path, table: Element) -> list[list[str]]:
    rows: list[list[str]] = []
    cells = 0
    for row in table.iter(f"{_TABLE}table-row"):
        values: list[str] = []
        for cell in row:
            if cell.tag in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                text = " ".join(filter(None, _blocks(path, cell)))
                # The empty rest of a row is written as one cell, repeated.
                values += [text] * (min(int(cell.get(f"{_TABLE}number-columns-repeated") or 1), 10_000) if text else 1)
        cells += len(values)
        if cells > MOST_CELLS:
            raise DocumentUnsupported(f"{path} holds more than {MOST_CELLS:,} cells: save the sheet that matters as CSV")
        rows.append(values)
    return rows


