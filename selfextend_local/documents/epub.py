"""Reading EPUB books: the chapters, in the order of the spine.

Knows the files inside a book (OCF container, OPF package, EPUB 2 and 3 tables of contents) and its copy protection. Must
not know HTML (html.py does) or how a Document is built.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.html import Html, read_html
from selfextend_local.documents.text import decode_markup
from selfextend_local.documents.trees import ParseError, parse_xml
from selfextend_local.errors import DocumentDamaged, DocumentEncrypted, DocumentError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = re.compile(r"html|x-oeb1-document|application/xml")
_PAGE_NAMES = re.compile(r"\.x?html?$|\.xml$", re.IGNORECASE)
_NO_PAGES = re.compile(r"^(image|audio|video|font)/|css|ncx", re.IGNORECASE)
_BARE_AMPERSAND = re.compile(rb"&(?!#\d{1,8};|#x[0-9a-fA-F]{1,8};|\w{1,32};)")
_ENTITY = re.compile(rb"&(\w{1,32});")
_PREFIXED = re.compile(rb"[<\s/]([A-Za-z_][\w.-]{0,40}):[A-Za-z_]")
_ROOT = re.compile(rb"<[A-Za-z_][\w.:-]*")
_TAG = re.compile(r"<[^<>]*")
_ANCHOR = re.compile(r"""\s(?:id|name)\s*=\s*["']([^"'<>]+)["']""")
_PIECES = 100  # of a title in the table of contents
_FRONT = 200  # characters in front of a file's first chapter that are its heading, no chapter of their own


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter, or a further file of one (it `goes_on`): its name in the table of contents or its heading, or "", and its
    text as Markdown."""

    title: str
    text: str
    goes_on: bool = False


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
    named = dict.fromkeys(_resolved(folder, item.get("href", "")) for item in spine if _is_page(item))
    names = [archive.find(name) or name for name in named]
    if not names:
        raise DocumentDamaged(f"{path} is an EPUB without a spine, so the order of its chapters isn't known: convert it anew")
    _refuse_protected(path, archive, names)
    titles = _contents(path, archive, items.values(), folder)
    chapters: list[Chapter] = []
    missing: list[str] = []
    title = ""  # of the last file that has one
    for done, name in enumerate(names, start=1):
        if name in archive.names:
            for part_title, html in _parts(_chapter(path, archive, name), titles.get(name, {})):
                if html.text or len(chapters) or "cover" not in name.lower():
                    chapters.append(Chapter(part_title or title, html.text, goes_on=not part_title and bool(title)))
                    title = part_title or title
        else:
            missing.append(posixpath.basename(name))
        if progress is not None:
            progress(done, len(names))
    notes = (f"Chapters that the book names but doesn't hold: {', '.join(missing)}.",) if missing else ()
    book_title = next((" ".join("".join(e.itertext()).split()) for e in _all(package, "title")), "")
    return Book(book_title, tuple(chapters), notes)


def _is_page(item: Element) -> bool:
    """Whether an item of the spine holds text: by its type, or by its name where the type is an odd one."""
    kind = item.get("media-type", "")
    return bool(_PAGES.search(kind)) or (not _NO_PAGES.search(kind) and bool(_PAGE_NAMES.search(item.get("href", "").partition("#")[0])))


def _parts(markup: str, titles: dict[str, str]) -> Iterator[tuple[str, Html]]:
    """The chapters in one file with their titles, by the anchors that the table of contents names."""
    anchors = _anchors(markup) if len(titles) > 1 else {}
    places = sorted((anchors[anchor], title) for anchor, title in titles.items() if anchor in anchors)
    if len(places) < 2:
        html = read_html(markup)
        yield titles.get("") or next(iter(titles.values()), "") or html.heading, html
        return
    first = places[0][0]
    front = read_html(markup[:first])
    if len(front.text) <= _FRONT:
        places[0] = (0, places[0][1])
    else:
        yield titles.get("") or front.heading, front
    for (start, title), end in zip(places, [*(place for place, _ in places[1:]), len(markup)], strict=True):
        yield title, read_html(markup[start:end])


def _anchors(markup: str) -> dict[str, int]:
    """Where the elements begin that links can lead to, by their names."""
    places: dict[str, int] = {}
    for tag in _TAG.finditer(markup):
        for name in _ANCHOR.findall(tag[0]):
            places.setdefault(name, tag.start())
    return places


def _package_name(path: Path, archive: Archive) -> str:
    if CONTAINER in archive.names:
        for rootfile in _all(_xml(path, archive, CONTAINER), "rootfile"):
            name = archive.find(posixpath.normpath(rootfile.get("full-path", "").replace("\\", "/")))
            if name is not None:
                return name
    packages = sorted(name for name in archive.names if name.lower().endswith(".opf"))
    if not packages:
        raise DocumentDamaged(f"{path} is an EPUB without a package file (.opf): fetch it again, or convert it anew")
    return packages[0]


def _xml(path: Path, archive: Archive, name: str) -> Element:
    data = archive.read_xml(name)
    try:
        return parse_xml(data)
    except ParseError:
        pass
    try:
        return parse_xml(_mended(data))
    except ParseError as error:
        raise DocumentDamaged(f"{path} is damaged in {name}, which isn't valid XML: fetch it again, or convert it anew") from error


def _mended(data: bytes) -> bytes:
    """XML as other readers take it: bare ampersands, HTML's names of characters, prefixes that nobody declared."""
    data = _BARE_AMPERSAND.sub(b"&amp;", data)
    data = _ENTITY.sub(lambda k: k[0] if k[1] in (b"amp", b"lt", b"gt", b"quot", b"apos") else _character(k[1]), data)
    unknown = {prefix for prefix in _PREFIXED.findall(data) if prefix not in (b"xml", b"xmlns") and b"xmlns:" + prefix not in data}
    declared = b"".join(b' xmlns:%s="urn:undeclared:%s"' % (prefix, prefix) for prefix in sorted(unknown))
    return _ROOT.sub(lambda k: k[0] + declared, data, count=1)


def _character(name: bytes) -> bytes:
    from html import unescape

    return "".join(f"&#{ord(c)};" for c in unescape(f"&{name.decode('ascii', 'ignore')};")).encode("ascii") if name.isascii() else b""


def _all(root: Element, name: str) -> Iterator[Element]:
    """The elements called `name`, in any namespace."""
    return (e for e in root.iter() if _name(e) == name)


def _name(node: Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _resolved(folder: str, reference: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0]).replace("\\", "/")))


def _chapter(path: Path, archive: Archive, name: str) -> str:
    data = archive.read(name)
    return decode_markup(Path(f"{path} ({posixpath.basename(name)})"), data).text if data else ""


def _refuse_protected(path: Path, archive: Archive, names: list[str]) -> None:
    """Raise DocumentEncrypted if a chapter is encrypted; fonts often are, in books that anyone may read."""
    if _ENCRYPTION not in archive.names:
        return
    for entry in _all(_xml(path, archive, _ENCRYPTION), "EncryptedData"):
        hidden = {_resolved("", e.get("URI", "")) for e in _all(entry, "CipherReference")}
        if hidden & set(names):
            raise DocumentEncrypted(f"{path} is under copy protection (DRM), which this program doesn't remove: get a copy without it")


def _contents(path: Path, archive: Archive, items: Iterable[Element], folder: str) -> dict[str, dict[str, str]]:
    """Titles by file name and anchor ("" = the file), from the table of contents; of several entries the first counts."""
    titles: dict[str, dict[str, str]] = {}
    for item in items:
        name = archive.find(_resolved(folder, item.get("href", ""))) or ""
        is_ncx = item.get("media-type") == "application/x-dtbncx+xml"
        if name not in archive.names or not (is_ncx or "nav" in (item.get("properties") or "").split()):
            continue
        try:
            entries = list((_ncx_entries if is_ncx else _nav_entries)(_xml(path, archive, name)))
        except DocumentError:
            continue  # chapters are then called by their headings
        for reference, title in entries:
            target = _resolved(posixpath.dirname(name), reference)
            anchors = titles.setdefault(archive.find(target) or target, {})
            anchors.setdefault(unquote(reference.partition("#")[2]), " ".join(title.split()))
    return titles


def _ncx_entries(root: Element) -> Iterator[tuple[str, str]]:
    for point in _all(root, "navPoint"):
        parts = {_name(part): part for part in reversed(point)}
        label, content = parts.get("navLabel"), parts.get("content")
        title = next((text.text or "" for text in _all(label, "text")), "") if label is not None else ""
        yield "" if content is None else content.get("src", ""), title


def _nav_entries(root: Element) -> Iterator[tuple[str, str]]:
    for link in _all(root, "a"):
        yield link.get("href", ""), "".join(islice(link.itertext(), _PIECES))
