"""Reading Word documents (DOCX): the one module that touches mammoth.

Knows the parts of the file and where its author broke pages. Must not know Word's markup (word_markup.py does), HTML
(html.py does) or how a Document is built. Word's own page numbers aren't in the file, so a document without page breaks is
one page.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.html import read_html
from selfextend_local.documents.mail import html_of
from selfextend_local.documents.text import decode_markup
from selfextend_local.documents.trees import ParseError, parse_xml
from selfextend_local.documents.word_markup import CHUNK, Numbering, Styles, plain, words
from selfextend_local.errors import DocumentDamaged, DocumentError

BODY = "word/document.xml"
_BREAK = "\ue000"  # for private use, so in no text that we keep
_STYLES = "br[type='page'] => hr.page\np[style-name='Title'] => h1:fresh"
_CHUNK = re.compile(f"<p>{CHUNK}([^{CHUNK}]*){CHUNK}</p>")
_NOTE = re.compile(r'<li id="((?:foot|end)note-[^"]*)">((?:(?!<li id="|</li>).)*)</li>', re.DOTALL)
_NOTES = re.compile(r'<ol><li id="(?:foot|end)note-.*</ol>\s*$', re.DOTALL)
_NOTED = re.compile(r'<a href="#((?:foot|end)note-[^"]*)"[^>]*>\[?([^<\]]*)\]?</a>')
_BACK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">[^<]*</a>')


@dataclass(frozen=True, slots=True)
class WordText:
    """The title of a Word document, or "", its pages as Markdown, and remarks."""

    title: str
    pages: tuple[str, ...]
    notes: tuple[str, ...] = ()


def body_name(archive: Archive) -> str | None:
    """The part that holds the text, as the package says, or as Word calls it; None if this is no Word document."""
    for kind, target in _relations(archive, ""):
        if kind == "officeDocument" and target.startswith("word/") and target in archive.names:
            return target
    return BODY if BODY in archive.names else None


def read_docx(path: Path, archive: Archive, data: bytes) -> WordText:
    """Read a Word document.

    Args:
        path: for messages.
        archive: of `data`, the file's bytes.

    Raises:
        DocumentDamaged: no text part, or one that can't be parsed.
        DocumentUnsupported: a part is larger than any text.
    """
    body = body_name(archive)
    if body is None:
        raise DocumentDamaged(f"{path} is a Word file without text ({BODY} is missing): open it in Word and save it again")
    for name in archive.names:
        if name.endswith((".xml", ".rels")):
            archive.read_xml(name)
    import mammoth

    try:
        prepared = _prepared(archive, body, data)
        # Pictures are left out: as text they are millions of letters.
        html = mammoth.convert_to_html(
            io.BytesIO(prepared),
            convert_image=mammoth.images.img_element(_no_picture),
            style_map=_STYLES,
            include_embedded_style_map=False,
            external_file_access=False,
        ).value
    except DocumentError:
        raise
    except Exception as error:  # mammoth lets through whatever its XML reader raises, RecursionError included
        raise DocumentDamaged(f"{path} is a Word file that can't be read: open it in Word and save it again") from error
    chunks = _Chunks(path, archive, body)
    html = _CHUNK.sub(chunks.html, html)
    notes = dict(_NOTE.findall(_NOTES.search(html)[0])) if _NOTES.search(html) else {}  # type: ignore[index]
    pages = _NOTES.sub("", html).replace(_BREAK, "").replace('<hr class="page" />', _BREAK).split(_BREAK)
    texts = [read_html(page + _notes_below(page, notes)).text for page in pages]
    while len(texts) > 1 and not texts[-1]:
        texts.pop()
    texts[0] = "\n\n".join([*_running_heads(archive, body, texts), texts[0]]).strip()
    return WordText(_title(archive), tuple(texts), tuple(chunks.notes))


def _prepared(archive: Archive, body: str, data: bytes) -> bytes:
    """The file with its text made plain for mammoth."""
    folder = posixpath.dirname(body)
    root = parse_xml(archive.read_xml(body))
    plain(root, Numbering(_part(archive, f"{folder}/numbering.xml")), Styles(_part(archive, f"{folder}/styles.xml")))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            if info.filename == body:
                new.writestr(info.filename, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
            elif info.filename.endswith((".xml", ".rels")):
                new.writestr(info.filename, archive.read(info.filename))
    return out.getvalue()


def _part(archive: Archive, name: str) -> Element | None:
    try:
        return parse_xml(archive.read_xml(name))
    except (KeyError, ParseError):
        return None


def _relations(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    """(kind, target) of each relationship of a part, "" = of the package. Targets are names of members."""
    for kind, target, _ in _relations_by_id(archive, part):
        yield kind, target


def _relations_by_id(archive: Archive, part: str) -> Iterator[tuple[str, str, str]]:
    folder, name = posixpath.split(part)
    root = _part(archive, posixpath.join(folder, "_rels", f"{name}.rels"))
    for relation in () if root is None else root:
        target = relation.get("Target", "")
        if relation.get("TargetMode") != "External":
            where = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            yield relation.get("Type", "").rpartition("/")[2], where, relation.get("Id", "")


class _Chunks:
    """The chunks of other formats that a Word document holds (altChunk)."""

    def __init__(self, path: Path, archive: Archive, body: str) -> None:
        self._path, self._archive = path, archive
        self._names = {name: target for kind, target, name in _relations_by_id(archive, body) if kind == "aFChunk"}
        self.notes: list[str] = []

    def html(self, mark: re.Match[str]) -> str:
        """The chunk that is marked, as HTML; a remark if it can't be read."""
        name = self._names.get(mark[1], "")
        suffix = posixpath.splitext(name)[1].lower()
        if name in self._archive.names:
            data = self._archive.read(name)
            if suffix in (".mht", ".mhtml") or data[:13].lower() == b"mime-version:":
                return html_of(data)
            if suffix in (".html", ".htm", ".xhtml"):
                return decode_markup(self._path, data).text
            if suffix == ".txt":
                return f"<pre>{decode_markup(self._path, data).text.replace('&', '&amp;').replace('<', '&lt;')}</pre>"
        part = posixpath.basename(name) or "missing"
        self.notes.append(f"A part of another format ({part}) isn't read: open the file in Word and save it again.")
        return ""


def _notes_below(page: str, notes: dict[str, str]) -> str:
    """The notes that a page refers to, to stand at its end."""
    below, seen = "", set()
    for name, number in _NOTED.findall(page):
        if name in notes and name not in seen:
            seen.add(name)
            below += f"<p>[{number}] {_BACK.sub('', notes[name]).strip().removeprefix('<p>')}"
    return below


def _running_heads(archive: Archive, body: str, texts: list[str]) -> list[str]:
    """What stands in headers and footers, and not in the text."""
    whole, found = " ".join(" ".join(texts).split()), []
    for kind, target in _relations(archive, body):
        part = _part(archive, target) if kind in ("header", "footer") else None
        text = "" if part is None else words(part)
        if text and text not in found and " ".join(text.split()) not in whole:
            found.append(text)
    return found


def _no_picture(image: object) -> dict[str, str]:
    return {"src": ""}


def _title(archive: Archive) -> str:
    root = _part(archive, "docProps/core.xml")
    if root is None:
        return ""
    return next((" ".join((e.text or "").split()) for e in root.iter("{http://purl.org/dc/elements/1.1/}title")), "")
