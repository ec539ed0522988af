"""A folder of short documents of several kinds, as a batch meets them: the report's chapters, and three broken files.

Knows file formats in their simplest form. Must not know models or tokens.
"""

from __future__ import annotations

import html
import io
import os
import re
import zipfile
from pathlib import Path

from selfextend_local.errors import SelfExtendError
from selfextend_local.sample import report

_ENTRIES = 6
_PDF_MONTHS = (1, 5, 9)


def write_folder(target: str | os.PathLike[str]) -> list[Path]:
    """Write twelve documents, and three that can't be read, into `target`; return their paths.

    Raises:
        SelfExtendError: fpdf2 is missing, or `target` cannot be written.
    """
    folder = Path(target)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in sorted(_files().items()):
            (folder / name).write_bytes(data)
            written.append(folder / name)
    except OSError as error:
        raise SelfExtendError(f"cannot write {folder} ({error.strerror}): choose another place") from error
    return written


def _files() -> dict[str, bytes]:
    from selfextend_local.sample.book import chapter_pdf

    [gale] = report.chapters("february")
    birds, stores, visitors, thanks, closing = report.chapters("closing")
    files = {f"{_stem(c)}.md": "\n\n".join([f"# {c.title}", *c.paragraphs]) for c in report.chapters("opening")}
    files |= {f"{_stem(c)}.txt": "\n\n".join([c.title, *c.paragraphs]) for c in (gale, birds)}
    files[f"{_stem(stores)}.html"] = _page(stores)
    data = {name: f"{text}\n".encode() for name, text in files.items()}
    data[f"{_stem(visitors)}.epub"] = _epub(visitors)
    data[f"{_stem(closing)}.docx"] = _docx(closing)
    data |= {f"log-{report.MONTHS[month].lower()}.pdf": chapter_pdf(report.month_chapter(month, _ENTRIES)) for month in _PDF_MONTHS}
    whole = chapter_pdf(thanks)
    return data | {
        "broken-damaged.pdf": whole[: len(whole) // 3],
        "broken-empty.pdf": b"",
        "broken-encrypted.pdf": chapter_pdf(thanks, password="secret"),
    }


def _stem(chapter: report.Chapter) -> str:
    return re.sub(r"[^a-z]+", "-", chapter.title.lower())


def _page(chapter: report.Chapter) -> str:
    body = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in chapter.paragraphs)
    title = html.escape(chapter.title)
    head = f'<head><meta charset="utf-8"><title>{title}</title></head>'
    return f"<!doctype html>\n<html>{head}\n<body><h1>{title}</h1>\n{body}</body></html>"


def _epub(chapter: report.Chapter) -> bytes:
    container = (
        '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">sample</dc:identifier>'
        f"<dc:title>{html.escape(chapter.title)}</dc:title><dc:language>en</dc:language></metadata>"
        '<manifest><item id="one" href="one.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="one"/></spine></package>'
    )
    page = _page(chapter).replace("<html>", '<html xmlns="http://www.w3.org/1999/xhtml">').replace('<meta charset="utf-8">', "")
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "book.opf": package, "one.xhtml": page}
    return _zipped(files)


def _docx(chapter: report.Chapter) -> bytes:
    office = "http://schemas.openxmlformats.org"
    types = (
        f'<Types xmlns="{office}/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
    )
    body = "".join(f"<w:p><w:r><w:t>{html.escape(text)}</w:t></w:r></w:p>" for text in (chapter.title, *chapter.paragraphs))
    document = f'<w:document xmlns:w="{office}/wordprocessingml/2006/main"><w:body>{body}</w:body></w:document>'
    return _zipped({"[Content_Types].xml": types, "_rels/.rels": relations, "word/document.xml": document})


def _zipped(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            # A fixed date, so that the same bytes come out each time.
            archive.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()
