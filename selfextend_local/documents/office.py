"""Reading presentations, workbooks and OpenDocument files: the one module that touches python-pptx and openpyxl.

Knows slides, sheets and the elements of OpenDocument. Gives out Markdown pages. Must not know how a Document is built. The
libraries are imported with the first file of their kind.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.formulas import raised
from selfextend_local.documents.numerals import counted
from selfextend_local.documents.tables import markdown_table
from selfextend_local.documents.trees import ParseError, outermost, parse_xml
from selfextend_local.errors import DocumentDamaged, DocumentUnsupported

MOST_CELLS = 2_000_000
_NO_RESULT = re.compile(rb"</f>\s*(?:<v>\s*</v>\s*|<v\s*/>\s*)?</c>")
# A format of numbers, such as #,##0.00 "€": what stands before, the digits, what stands behind.
_NUMBER_FORM = re.compile(r"""((?:"[^"]*"|\\.|[-$€£¥+( ])*)([#0?,]+(?:\.[#0?]+)?)((?:"[^"]*"|\\.|[$€£¥%) ])*)""")
_LONGEST_FORM = 255  # characters of a format of numbers, by the standard
_BRACKETED = re.compile(r"\[(?:\$([^\]-]*))?[^\]]*\]")  # [$€-407] is a currency, [Red] a colour
_UNSHOWN = re.compile(r"_.|\*.")  # room as wide as a character, a character that fills the cell

_ODF = "{urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _TABLE, _DRAW, _OFFICE, _STYLE = (f"{_ODF}{name}:1.0}}" for name in ("text", "table", "drawing", "office", "style"))
_WHITE = re.compile(r"\s+")  # one space, by the standard
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
        rows = ((paragraph.level, _shown_runs(paragraph)) for paragraph in shape.text_frame.paragraphs)
        return "\n".join(f"{'  ' * level}{text.strip()}" for level, text in rows if text.strip())
    if getattr(shape, "has_table", False):
        return markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
    if getattr(shape, "has_chart", False):
        plots = [plot for plot in shape.chart.plots if len(plot.categories)]
        head = [["", *map(str, plots[0].categories)]] if plots else []
        return markdown_table(head + [[series.name, *map(_value, series.values)] for plot in plots for series in plot.series])
    return ""


def _shown_runs(paragraph: Any) -> str:
    """The words of a paragraph, with what is raised or struck told apart."""
    text = ""
    for node in paragraph._p:
        kind = str(node.tag).rpartition("}")[2]
        if kind == "br":
            text += " "
        elif kind in ("r", "fld"):
            words = "".join(part.text or "" for part in node if str(part.tag).endswith("}t"))
            look: Any = next((part for part in node if str(part.tag).endswith("}rPr")), {})
            baseline = look.get("baseline", "").rstrip("%")
            if baseline.isdecimal() and baseline.strip("0"):
                words = raised(text[-12:], words)
            text += f"~~{words}~~" if look.get("strike", "noStrike") != "noStrike" and words.strip() else words
    return text.replace("\v", " ")


def read_xlsx(path: Path, archive: Archive, data: bytes) -> OfficeText:
    """A workbook: a page a sheet, as a table of the values that were shown when it was saved. Raises DocumentDamaged."""
    _checked(archive)
    import openpyxl

    pages, labels, hidden, cells = [], [], [], 0
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in book.worksheets:
            rows = []
            for row in sheet.iter_rows():
                cells += max(1, len(row))
                if cells > MOST_CELLS:
                    raise DocumentUnsupported(f"{path} holds more than {MOST_CELLS:,} cells: save the sheet that matters as CSV")
                rows.append([_value(cell.value, cell.number_format if cell.value is not None else "") for cell in row])
            pages.append(markdown_table(rows))
            labels.append(sheet.title)
            if sheet.sheet_state != "visible":
                hidden.append(sheet.title)
        title = book.properties.title or ""
    except DocumentUnsupported:
        raise
    except Exception as error:  # whatever openpyxl's reader raises
        raise DocumentDamaged(f"{path} is a workbook that can't be read: open it and save it again, or save it as CSV") from error
    notes = [f"Hidden sheets are read, too: {', '.join(hidden)}."] if hidden else []
    bare = sum(len(_NO_RESULT.findall(archive.read(name))) for name in archive.names if name.startswith("xl/worksheets/"))
    if bare:
        what = "A formula has no result" if bare == 1 else f"{bare:,} formulas have no results"
        notes.append(f"{what} in the file, so those cells are empty here: open it in a spreadsheet program and save it again.")
    return OfficeText(str(title), tuple(pages) or ("",), tuple(labels) or ("",), tuple(notes))


def _value(value: Any, form: str = "") -> str:
    """A value as its cell shows it: with percent signs, currencies and thousands apart, but not rounded."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "seconds").removesuffix(" 00:00:00")
    if isinstance(value, int | float):
        return _number(value, form)
    return str(value)


def _number(value: float, form: str) -> str:
    plain = f"{value:.15g}" if isinstance(value, float) else str(value)
    if len(form) > _LONGEST_FORM:
        return plain
    positive = _BRACKETED.sub(lambda m: m[1] or "", form.split(";")[0])
    match = _NUMBER_FORM.fullmatch(_UNSHOWN.sub("", positive))
    if match is None or form == "General" or "e" in plain:
        return plain
    before, digits, after = (part.replace('"', "").replace("\\", "") for part in match.groups())
    if "%" in after or "%" in before:
        plain = f"{Decimal(plain) * 100:f}"
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    whole, _, decimals = plain.partition(".")
    decimals = decimals.ljust(len(digits.partition(".")[2].rstrip("#?")), "0")
    whole = f"{Decimal(whole):,}" if "," in digits and whole.lstrip("-").isdecimal() else whole
    return f"{before}{whole}{'.' if decimals else ''}{decimals}{after}"


def read_opendocument(path: Path, archive: Archive) -> OfficeText:
    """A text, a workbook or slides of OpenDocument (.odt, .ods, .odp). Raises DocumentDamaged, DocumentUnsupported."""
    try:
        root = parse_xml(archive.read_xml("content.xml"))
    except (KeyError, ParseError) as error:
        raise DocumentDamaged(f"{path} is an OpenDocument file that can't be read: open it and save it again") from error
    looks = _Looks(path)
    looks.learn(root)
    if "styles.xml" in archive.names:
        with suppress(ParseError):
            looks.learn(parse_xml(archive.read_xml("styles.xml")))
    body = root.find(f"{_OFFICE}body")
    inner = body[0] if body is not None and len(body) else root
    if inner.tag == f"{_OFFICE}spreadsheet":
        sheets = inner.findall(f"{_TABLE}table")
        names = tuple(sheet.get(f"{_TABLE}name", "") for sheet in sheets)
        return OfficeText("", tuple(markdown_table(_rows(looks, sheet)) for sheet in sheets) or ("",), names or ("",))
    if inner.tag == f"{_OFFICE}presentation":
        slides = tuple("\n\n".join(filter(None, _blocks(looks, slide))) for slide in inner.findall(f"{_DRAW}page"))
        return OfficeText("", slides or ("",), tuple(str(i) for i in range(1, len(slides) + 1)) or ("",))
    pages = "\n\n".join(filter(None, _blocks(looks, inner))).split("\f")
    return OfficeText("", tuple(page.strip() for page in pages), ("",) * len(pages))


@dataclass(frozen=True, slots=True)
class _Form:
    """How a level of a list counts: a number's form, what stands around it, and the first."""

    form: str
    prefix: str
    suffix: str
    start: int

    def label(self, n: int) -> str:
        return f"{self.prefix}{counted(n, self.form)}{self.suffix}"


@dataclass
class _Looks:
    """What the styles of an OpenDocument file say: which text is raised, struck or hidden, and how lists count."""

    path: Path
    lists: dict[str, dict[int, _Form]] = field(default_factory=dict)
    counts: dict[tuple[str, int], int] = field(default_factory=dict)
    _texts: dict[str, tuple[bool, bool, bool]] = field(default_factory=dict)

    def learn(self, root: Element) -> None:
        for style in root.iter(f"{_STYLE}style"):
            for look in style.findall(f"{_STYLE}text-properties"):
                place = look.get(f"{_STYLE}text-position", "").split(" ")[0]
                is_raised = place == "super" or place.rstrip("%").isdecimal() and place != "0%"
                struck = look.get(f"{_STYLE}text-line-through-style", "none") != "none"
                hidden = look.get(f"{_TEXT}display") == "none"
                self._texts[style.get(f"{_STYLE}name", "")] = is_raised, struck, hidden
        for style in root.iter(f"{_TEXT}list-style"):
            levels = self.lists.setdefault(style.get(f"{_STYLE}name", ""), {})
            for level in style.findall(f"{_TEXT}list-level-style-number"):
                if form := level.get(f"{_STYLE}num-format", ""):
                    prefix, suffix = level.get(f"{_STYLE}num-prefix", ""), level.get(f"{_STYLE}num-suffix", "")
                    levels[_count(level, "level")] = _Form(form, prefix, suffix, _count(level, "start-value"))

    def shown(self, node: Element, before: str, text: str) -> str:
        """The text of a span as it reads behind `before`."""
        is_raised, struck, hidden = self._texts.get(node.get(f"{_TEXT}style-name", ""), (False, False, False))
        if hidden or not text.strip():
            return "" if hidden else text
        text = raised(before[-12:], text) if is_raised else text
        return f"~~{text}~~" if struck else text


def _count(node: Element, name: str, space: str = _TEXT) -> int:
    """A number that an attribute states; 1 if it states none."""
    stated = node.get(f"{space}{name}", "")
    return int(stated) if stated.isdecimal() and len(stated) < 7 else 1


def _blocks(looks: _Looks, node: Element, depth: int = 0) -> Iterator[str]:
    """The paragraphs, headings, lists and tables below `node`; a form feed where Word or LibreOffice began a page."""
    for child in node:
        name = child.tag
        if name in (f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_OFFICE}forms"):
            continue
        if name == f"{_TEXT}h":
            yield f"{'#' * min(6, _count(child, 'outline-level'))} {_line(looks, child)}"
        elif name == f"{_TEXT}p":
            yield from _paragraph(looks, child, depth)
        elif name == f"{_TEXT}list":
            yield "\n".join(_items(looks, child, depth))
        elif name == f"{_TABLE}table":
            yield markdown_table(_rows(looks, child))
        elif name == f"{_TEXT}soft-page-break":
            yield "\f"
        else:
            yield from _blocks(looks, child, depth)


def _paragraph(looks: _Looks, node: Element, depth: int) -> Iterator[str]:
    yield _line(looks, node)
    apart = list(outermost(node, f"{_TEXT}note", f"{_DRAW}text-box"))
    for note in apart:
        citation, body = note.find(f"{_TEXT}note-citation"), note.find(f"{_TEXT}note-body")
        if body is not None:
            yield f"[{'' if citation is None else _line(looks, citation)}] {' '.join(filter(None, _blocks(looks, body, depth)))}"
    for box in apart:
        if box.tag == f"{_DRAW}text-box":
            yield from _blocks(looks, box, depth)


def _items(looks: _Looks, node: Element, depth: int, style: str = "") -> Iterator[str]:
    style = node.get(f"{_TEXT}style-name", style)
    form = looks.lists.get(style, {}).get(depth + 1)
    goes_on = node.get(f"{_TEXT}continue-numbering") == "true" or bool(node.get(f"{_TEXT}continue-list"))
    n = looks.counts.get((style, depth), 0) if goes_on else 0
    for item in node.findall(f"{_TEXT}list-item"):
        given = item.get(f"{_TEXT}start-value", "")
        n = int(given) if given.isdecimal() and len(given) < 7 else n + 1 if n or form is None else form.start
        inner = [part for child in item for part in _item_parts(looks, child, depth, style)]
        first, *rest = list(filter(None, inner)) or [""]
        yield f"{'  ' * depth}{'-' if form is None else form.label(n)} {first}"
        yield from rest
    looks.counts[style, depth] = n


def _item_parts(looks: _Looks, child: Element, depth: int, style: str) -> Iterator[str]:
    if child.tag == f"{_TEXT}list":
        yield "\n".join(_items(looks, child, depth + 1, style))
    else:
        holder = Element("item")
        holder.append(child)
        yield from _blocks(looks, holder, depth + 1)


def _line(looks: _Looks, node: Element) -> str:
    """The text of a paragraph, in one line; notes and text boxes apart."""
    return _SPACES.sub(" ", "".join(_inline(looks, node))).strip()


def _inline(looks: _Looks, node: Element) -> Iterator[str]:
    before = _WHITE.sub(" ", node.text or "")
    yield before
    for child in node:
        if child.tag == f"{_TEXT}s":
            yield " " * min(100, _count(child, "c"))
        elif child.tag == f"{_TEXT}tab":
            yield " "
        elif child.tag == f"{_TEXT}line-break":
            yield "\n"
        elif child.tag == f"{_TEXT}soft-page-break":
            yield "\f"
        elif child.tag == f"{_TEXT}note":
            citation = child.find(f"{_TEXT}note-citation")
            yield f"[{'' if citation is None else _line(looks, citation)}]"
        elif child.tag not in (f"{_OFFICE}annotation", f"{_DRAW}text-box"):
            yield looks.shown(child, before, "".join(_inline(looks, child)))
        tail = _WHITE.sub(" ", child.tail or "")
        before = tail or before
        yield tail


def _rows(looks: _Looks, table: Element) -> list[list[str]]:
    rows: list[list[str]] = []
    cells = 0
    for row in outermost(table, f"{_TABLE}table-row"):
        values: list[str] = []
        for cell in row:
            if cell.tag in (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                text = " ".join(filter(None, _blocks(looks, cell)))
                # The empty rest of a row is written as one cell, repeated.
                values += [text] * (min(_count(cell, "number-columns-repeated", _TABLE), 10_000) if text else 1)
        cells += len(values)
        if cells > MOST_CELLS:
            raise DocumentUnsupported(f"{looks.path} holds more than {MOST_CELLS:,} cells: save the sheet that matters as CSV")
        rows.append(values)
    return rows


