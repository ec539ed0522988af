"""Reading plain text and Markdown.

Knows encodings, form feeds, and how to tell text from binary data. Gives out
pages as strings. Must not know PDF, page furniture or how a Document is built.
Only text that was plainly wrapped by a machine is unwrapped; Markdown, code and
verse keep their lines.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

from selfextend_local.documents.characters import clean
from selfextend_local.errors import DocumentUnsupported

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# First bytes of files that people try, and what to tell them.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "is a zip file, but neither EPUB nor DOCX (PowerPoint, Excel, OpenDocument?): save it as PDF or text"),
    (b"{\\rtf", "is an RTF file: save it as DOCX, PDF or text"),
    (b"\x89PNG", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.png out.pdf"),
    (b"\xff\xd8\xff", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.jpg out.pdf"),
    (b"GGUF", "is a model file, not a document: pass it as the model instead"),
)

_DECLARED = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:\-]{2,30})", re.IGNORECASE)
# Character sets; Python's codecs of other kinds, of which some are slow or no encodings of text, are not for files to choose.
_DECLARABLE = re.compile(r"iso[-_]8859|latin|windows-|cp\d|koi8|gb|big5|shift|sjis|euc|mac|tis|ibm\d|iso-2022")
_UNWRAPPED_SUFFIXES = frozenset({".txt", ".text"})
_JUNK_SHARE = 0.003  # control characters in text; random bytes have 0.1
_NARROWEST, _WIDEST = 40, 120
_RAGGED = 8  # columns by which a wrapped line may fall short of the width


def read_text(path: Path, data: bytes) -> tuple[str, ...]:
    """The pages of a text file: one, or one for each form feed and the rest.

    Args:
        path: for the suffix, and for messages.
        data: the file's bytes.

    Raises:
        DocumentUnsupported: the bytes are not text.
    """
    for signature, advice in _SIGNATURES:
        if data.startswith(signature):
            raise DocumentUnsupported(f"{path} {advice}")
    text = decode(path, data).replace("\r\n", "\n").replace("\r", "\n")
    pages = [clean(page) for page in text.split("\f")]
    if len(pages) > 1 and not pages[-1].strip():
        pages.pop()
    if path.suffix.lower() in _UNWRAPPED_SUFFIXES:
        width = wrapped_width("\n".join(pages))
        pages = [unwrap(page, width) for page in pages]
    return tuple(_trimmed(page) for page in pages)


def decode(path: Path, data: bytes) -> str:
    """`data` as text: by its byte order mark, else UTF-8, else Windows-1252 or Latin-1.

    Raises:
        DocumentUnsupported: too many control characters for any of these.
    """
    return _decoded(path, data, ("utf-8", "cp1252", "latin-1"))


def decode_markup(path: Path, data: bytes) -> str:
    """`data`, which is HTML or XML, as text: as `decode`, but the encoding that it declares is tried after UTF-8.

    Raises:
        DocumentUnsupported: too many control characters for any of these.
    """
    match = _DECLARED.search(data[:2048])
    declared = match[1].decode("ascii").lower() if match else ""
    if declared in ("iso-8859-1", "latin1", "us-ascii", "ascii") or not _DECLARABLE.match(declared):
        return decode(path, data)
    # ISO-2022 is written in ASCII characters, so UTF-8 would always fit.
    order = (declared, "utf-8") if declared.startswith("iso-2022") else ("utf-8", declared)
    return _decoded(path, data, (*order, "cp1252", "latin-1"))


def _decoded(path: Path, data: bytes, encodings: Iterable[str]) -> str:
    junk = DocumentUnsupported(
        f"{path} is none of PDF, EPUB, DOCX, HTML, Markdown and plain text: convert it to one of these first"
    )
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise junk from error
    # UTF-8 comes early since it hardly ever fits by accident; Latin-1 comes last since it always fits.
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if _is_junk(text):
            raise junk
        return text
    raise AssertionError("latin-1 decodes every byte")


def _is_junk(text: str) -> bool:
    controls = sum(c < " " and c not in "\t\n\r\f\x1b" for c in text)
    controls += sum("\x7f" <= c <= "\x9f" for c in text)
    # A few stray ones are forgiven, as in a log; more than the share are not.
    return controls > _JUNK_SHARE * len(text)


def wrapped_width(text: str) -> int | None:
    """The column at which `text` was hard-wrapped, or None if it was not."""
    lengths = sorted(len(row) for row in text.split("\n") if row.strip())
    if len(lengths) < 4:
        return None
    width = lengths[int(0.98 * (len(lengths) - 1))]
    full = sum(width - 2 * _RAGGED <= n <= width for n in lengths)
    is_wrapped = _NARROWEST <= width <= _WIDEST and full * 2 > len(lengths)
    return width if is_wrapped else None


def unwrap(text: str, width: int | None) -> str:
    """`text` with those blocks joined that were wrapped at `width` columns.

    A block (rows between blank lines) is joined only if every row in it is as
    full as wrapping makes it; tables, verse, lists and headings are not.
    """
    if width is None:
        return text
    blocks: list[list[str]] = [[]]
    for row in text.split("\n"):
        if row.strip():
            blocks[-1].append(row)
        else:
            blocks.append([])
    return "\n\n".join(_unwrapped(block, width) for block in blocks)


def _unwrapped(rows: list[str], width: int) -> str:
    text = "\n".join(rows)
    words = [row.split() for row in rows]
    is_prose = all(
        len(row) + 1 + len(after[0]) > width - _RAGGED and not after_row.startswith((" ", "\t"))
        for row, after, after_row in zip(rows, words[1:], rows[1:], strict=False)
    )
    if len(rows) < 2 or not is_prose or "\t" in text:
        return text
    joined = rows[0].rstrip()
    for row in rows[1:]:
        joined += row.strip() if joined.endswith(("--", "—")) else f" {row.strip()}"
    return joined


def _trimmed(page: str) -> str:
    """`page` without trailing spaces, and at most one blank line in a row."""
    kept: list[str] = []
    for row in page.split("\n"):
        row = row.rstrip()
        if row or (kept and kept[-1]):
            kept.append(row)
    return "\n".join(kept).strip("\n")
