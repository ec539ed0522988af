"""Reading EPUB books: the chapters, in the order of the spine.

Knows the files inside a book (OCF container, OPF package, EPUB 2 and 3 tables of contents) and its copy protection. Must
not know HTML (html.py does) or how a Document is built.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.html import Html, read_html
from selfextend_local.documents.text import decode_markup
from selfextend_local.errors import DocumentDamaged, DocumentEncrypted, DocumentError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/xml", "text/x-oeb1-document"})


@dataclass(frozen=True, slots=True)
class Chapter:
    """One item of the spine: its name in the table of contents or its heading, or "", and its text as Markdown."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Book:
    """A book: its title or "", its chapters, and remarks."""

    title: str
    chapters: tuple[Chapter, ...]
    notes: tuple[str, ...]


def read_epub(path: Path, archive: Archive, progress: Callable[[int, int], None] | None = None) -> Book:
    """Read every chapter.

    Args:
        path: for messages.
        progress: called as ``progress(done, total)`` after each chapter.

    Raises:
        DocumentDamaged: the container, package or spine is missing or not XML.
        DocumentEncrypted: the chapters are under copy protection.
        DocumentUnsupported: a part is larger than any text.
    """
    package_name = _package_name(path, archive)
    package = _xml(path, archive, package_name)
    folder = posixpath.dirname(package_name)
    items = {item.get("id", ""): item for item in _all(package, "item")}
    spine = [items[ref.get("idref", "")] for ref in _all(package, "itemref") if ref.get("idref", "") in items]
    names = [_resolved(folder, item.get("href", "")) for item in spine if item.get("media-type") in _PAGES]
    if not names:
        raise DocumentDamaged(f"{path} is an EPUB without a spine, so the order of its chapters isn't known: convert it anew")
    _refuse_protected(path, archive, names)
    titles = _contents(path, archive, items.values(), folder)
    chapters: list[Chapter] = []
    missing: list[str] = []
    for done, name in enumerate(names, start=1):
        if name in archive.names:
            html = _chapter(path, archive, name)
            if html.text or len(chapters) or "cover" not in name.lower():
                chapters.append(Chapter(titles.get(name) or html.heading, html.text))
        else:
            missing.append(posixpath.basename(name))
        if progress is not None:
            progress(done, len(names))
    notes = (f"Chapters that the book names but doesn't hold: {', '.join(missing)}.",) if missing else ()
    title = next((" ".join("".join(e.itertext()).split()) for e in _all(package, "title")), "")
    return Book(title, tuple(chapters), notes)


def _package_name(path: Path, archive: Archive) -> str:
    if CONTAINER in archive.names:
        for rootfile in _all(_xml(path, archive, CONTAINER), "rootfile"):
            name = posixpath.normpath(rootfile.get("full-path", ""))
            if name in archive.names:
                return name
    packages = sorted(name for name in archive.names if name.lower().endswith(".opf"))
    if not packages:
        raise DocumentDamaged(f"{path} is an EPUB without a package file (.opf): fetch it again, or convert it anew")
    return packages[0]


def _xml(path: Path, archive: Archive, name: str) -> Element:
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(archive.read_xml(name))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DocumentDamaged(f"{path} is damaged in {name}, which isn't valid XML: fetch it again, or convert it anew") from error


def _all(root: Element, name: str) -> Iterator[Element]:
    """The elements called `name`, in any namespace."""
    return (e for e in root.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name)


def _resolved(folder: str, reference: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0])))


def _chapter(path: Path, archive: Archive, name: str) -> Html:
    data = archive.read(name)
    return read_html(decode_markup(Path(f"{path} ({posixpath.basename(name)})"), data) if data else "")


def _refuse_protected(path: Path, archive: Archive, names: list[str]) -> None:
    """Raise DocumentEncrypted if a chapter is encrypted; fonts often are, in books that anyone may read."""
    if _ENCRYPTION not in archive.names:
        return
    for entry in _all(_xml(path, archive, _ENCRYPTION), "EncryptedData"):
        hidden = {_resolved("", e.get("URI", "")) for e in _all(entry, "CipherReference")}
        if hidden & set(names):
            raise DocumentEncrypted(f"{path} is under copy protection (DRM), which this program doesn't remove: get a copy without it")


def _contents(path: Path, archive: Archive, items: Iterable[Element], folder: str) -> dict[str, str]:
    """Titles by file name, from the table of contents; of a file with several entries the first counts."""
    titles: dict[str, str] = {}
    for item in items:
        name = _resolved(folder, item.get("href", ""))
        is_ncx = item.get("media-type") == "application/x-dtbncx+xml"
        if name not in archive.names or not (is_ncx or "nav" in (item.get("properties") or "").split()):
            continue
        try:
            entries = list((_ncx_entries if is_ncx else _nav_entries)(_xml(path, archive, name)))
        except DocumentError:
            continue  # chapters are then called by their headings
        for reference, title in entries:
            titles.setdefault(_resolved(posixpath.dirname(name), reference), " ".join(title.split()))
    return titles


def _ncx_entries(root: Element) -> Iterator[tuple[str, str]]:
    for point in _all(root, "navPoint"):
        title = next((text.text or "" for text in _all(point, "text")), "")
        yield next((content.get("src", "") for content in _all(point, "content")), ""), title


def _nav_entries(root: Element) -> Iterator[tuple[str, str]]:
    for link in _all(root, "a"):
        yield link.get("href", ""), "".join(link.itertext())
