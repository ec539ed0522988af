"""Small formats of text: notebooks (.ipynb), FictionBook (.fb2), RTF.

Knows their structure; striprtf reads RTF. Must not know how a Document is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from selfextend_local.documents.formulas import raised
from selfextend_local.documents.html import read_html
from selfextend_local.documents.trees import ParseError, parse_xml
from selfextend_local.errors import DocumentDamaged

_FB2 = {"title": "h2", "subtitle": "h3", "emphasis": "em", "v": "p", "text-author": "p", "cite": "blockquote", "epigraph": "blockquote"}


def read_rtf(path: Path, data: bytes) -> str:
    """The text of an RTF file. Raises DocumentDamaged."""
    from striprtf import striprtf

    to_text: Any = striprtf.rtf_to_text
    try:
        text = _on_line(str(to_text(_with_marks(data.decode("latin-1")), encoding="cp1252", errors="ignore")))
    except Exception as error:  # the library raises what its parser runs into
        raise DocumentDamaged(f"{path} is an RTF file that can't be read: open it and save it as DOCX") from error
    return "\n\n".join(line.strip() for line in text.split("\n") if line.strip())


_RTF = re.compile(r"\\([a-z]+)(-?\d+)? ?|\\'[0-9a-fA-F]{2}|\\[^a-z]|[{}]|[^\\{}\r\n]+|[\r\n]+")
_RAISED, _STRUCK, _END = "\ue010", "\ue011", "\ue012"  # for private use
_MARKED = re.compile(f"([^{_RAISED}{_END}]{{0,12}}){_RAISED}([^{_RAISED}{_END}]*){_END}")


@dataclass(frozen=True, slots=True)
class _Look:
    """How a stretch of RTF is shown."""

    raised: bool = False
    struck: bool = False
    hidden: bool = False


def _with_marks(rtf: str) -> str:
    """RTF with marks around what is raised or struck, and without what is hidden: striprtf knows of none."""
    parts: list[str] = []
    outer: list[_Look] = []
    look = shown = _Look()
    for token in _RTF.finditer(rtf):
        word, piece = token[1], token[0]
        if piece == "{":
            outer.append(look)
        elif piece == "}" and outer:
            look = outer.pop()
        elif word:
            look = _changed(look, word, token[2] != "0")
        says = word == "u" or not word and piece not in "{}" and (piece[0] != "\\" or piece[1] in "'~_\\{}")
        if says and look.hidden:
            continue
        if (says and piece.strip() or piece in ("{", "}") or word in ("par", "cell", "row", "line")) and shown != _Look() and shown != look:
            parts.append(_mark(_END))
            shown = _Look()
        if says and piece.strip() and look != shown:
            parts.append(_mark(_RAISED if look.raised else _STRUCK))
            shown = look
        parts.append(piece)
    return "".join(parts)


def _changed(look: _Look, word: str, on: bool) -> _Look:
    if word in ("super", "nosupersub", "sub"):
        return replace(look, raised=on and word == "super")
    if word in ("strike", "striked"):
        return replace(look, struck=on)
    if word in ("v", "deleted"):
        return replace(look, hidden=on)
    return _Look() if word == "plain" else look


def _mark(sign: str) -> str:
    return f"{{\\uc1\\u{ord(sign)}?}}"


def _on_line(text: str) -> str:
    """Text with marks, as it reads on the line."""
    text = _MARKED.sub(lambda m: m[1] + raised(m[1], m[2]), text)
    return re.sub(f"{_STRUCK}([^{_STRUCK}{_END}]*){_END}", r"~~\1~~", text).replace(_END, "").replace(_RAISED, "").replace(_STRUCK, "")


def read_notebook(path: Path, text: str) -> str:
    """The cells of a Jupyter notebook: prose as it is, code and its printed output fenced. Raises DocumentDamaged."""
    try:
        book = json.loads(text)
        sheets = book.get("worksheets", [book])  # of version 3 and before
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        return "\n\n".join(filter(None, map(_cell, cells)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DocumentDamaged(f"{path} is a notebook that can't be read: open it in Jupyter and save it again") from error


def _cell(cell: dict[str, Any]) -> str:
    source = _joined(cell.get("source", cell.get("input", ""))).strip()
    if cell.get("cell_type") != "code":
        return source
    outputs = "\n".join(filter(None, (_output(output).strip() for output in cell.get("outputs", []))))
    return "\n\n".join(f"```\n{part}\n```" for part in (source, outputs) if part)


def _output(output: dict[str, Any]) -> str:
    if output.get("output_type") == "error":
        return f"{output.get('ename', '')}: {output.get('evalue', '')}"
    data = output.get("data", {})
    plain = _joined(output.get("text") or data.get("text/plain", ""))
    return plain or read_html(_joined(data.get("text/html", ""))).text


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def is_notebook(text: str) -> bool:
    """Whether JSON is that of a notebook."""
    return '"cells"' in text and '"cell_type"' in text


def read_fb2(path: Path, data: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The title of a FictionBook, and its sections: their titles and texts. Raises DocumentDamaged."""
    try:
        root = parse_xml(data)
    except ParseError as error:
        raise DocumentDamaged(f"{path} is a FictionBook that isn't valid XML: fetch it again, or convert it anew") from error
    title = next((" ".join("".join(e.itertext()).split()) for e in root.iter() if _name(e) == "book-title"), "")
    return title, [section for body in root if _name(body) == "body" for section in _sections(body)]


def _sections(body: Element) -> Iterator[tuple[str, str]]:
    rest = Element("section")
    for child in body:
        if _name(child) == "section":
            head = next((part for part in child if _name(part) == "title"), None)
            yield " ".join("".join(head.itertext()).split()) if head is not None else "", _markdown(child)
        else:
            rest.append(child)
    if (text := _markdown(rest)).strip():
        yield body.get("name") or "", text


def _markdown(section: Element) -> str:
    for node in section.iter():
        name = _name(node)
        node.tag = _FB2.get(name, name)
        node.attrib.clear()
    for title in [*section.iter("h2"), *section.iter("h3")]:
        text = " ".join("".join(title.itertext()).split())
        for child in list(title):
            title.remove(child)
        title.text = text
    return read_html(ElementTree.tostring(section, encoding="unicode")).text


def _name(node: Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
