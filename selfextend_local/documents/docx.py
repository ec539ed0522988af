"""Reading Word documents (DOCX): the one module that touches mammoth.

Knows the parts of the file and where its author broke pages. Must not know HTML (html.py does) or how a Document is
built. Word's own page numbers aren't in the file, so a document without page breaks is one page.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.documents.archive import Archive
from selfextend_local.documents.html import read_html
from selfextend_local.errors import DocumentDamaged

BODY = "word/document.xml"
_BREAK = "\ue000"  # for private use, so in no text that we keep
_STYLES = "br[type='page'] => hr.page"


@dataclass(frozen=True, slots=True)
class WordText:
    """The title of a Word document, or "", and its pages as Markdown."""

    title: str
    pages: tuple[str, ...]


def read_docx(path: Path, archive: Archive, data: bytes) -> WordText:
    """Read a Word document.

    Args:
        path: for messages.
        archive: of `data`, the file's bytes.

    Raises:
        DocumentDamaged: no text part, or one that can't be parsed.
        DocumentUnsupported: a part is larger than any text.
    """
    if BODY not in archive.names:
        raise DocumentDamaged(f"{path} is a Word file without text ({BODY} is missing): open it in Word and save it again")
    for name in archive.names:
        if name.endswith((".xml", ".rels")):
            archive.read_xml(name)
    import mammoth

    try:
        # Pictures are left out: as text they are millions of letters.
        html = mammoth.convert_to_html(
            io.BytesIO(data),
            convert_image=mammoth.images.img_element(_no_picture),
            style_map=_STYLES,
            include_embedded_style_map=False,
            external_file_access=False,
        ).value
    except Exception as error:  # mammoth lets through whatever its XML reader raises, RecursionError included
        raise DocumentDamaged(f"{path} is a Word file that can't be read: open it in Word and save it again") from error
    pages = html.replace(_BREAK, "").replace('<hr class="page" />', _BREAK).split(_BREAK)
    texts = [read_html(page).text for page in pages]
    while len(texts) > 1 and not texts[-1]:
        texts.pop()
    return WordText(_title(archive), tuple(texts))


def _no_picture(image: object) -> dict[str, str]:
    return {"src": ""}


def _title(archive: Archive) -> str:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(archive.read_xml("docProps/core.xml"))
    except (KeyError, ElementTree.ParseError):
        return ""
    return next((" ".join((e.text or "").split()) for e in root.iter("{http://purl.org/dc/elements/1.1/}title")), "")
