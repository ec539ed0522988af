"""Reading plain text and Markdown.

Knows form feeds, data that is no prose, and how to tell text from binary data. Gives out
pages as strings. Must not know PDF, page furniture or how a Document is built.
Only text that was plainly wrapped by a machine is unwrapped; Markdown, code and
verse keep their lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.documents.characters import clean
from selfextend_local.documents.encodings import Decoded, NotText, decode
from selfextend_local.errors import DocumentUnsupported

KINDS = "PDF, EPUB, DOCX, PPTX, XLSX, ODT, RTF, HTML, mail, Markdown and plain text"

# First bytes of files that people try, and what to tell them.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "is a zip file, but no document that is read here: unpack it, or save it as PDF or text"),
    (b"%!PS", "is PostScript: turn it into a PDF first, e.g. ps2pdf in.ps out.pdf"),
    (b"AT&TFORM", "is a DjVu file: turn it into a PDF first, e.g. ddjvu -format=pdf in.djvu out.pdf, and then ocrmypdf"),
    (b"\x1f\x8b", "is packed (gzip): unpack it first, e.g. gunzip in.gz"),
    (b"7z\xbc\xaf\x27\x1c", "is packed (7z): unpack it first"),
    (b"Rar!", "is packed (RAR): unpack it first"),
    (b"GIF8", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.png out.pdf"),
    (b"II*\x00", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.tif out.pdf"),
    (b"MM\x00*", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.tif out.pdf"),
    (b"RIFF", "is an image, a sound or a film: give its text"),
    (b"ID3", "is a sound: give its text"),
    (b"SQLite format 3", "is a database: export what you need as CSV or text"),
    (b"\x7fELF", "is a program, not a document"),
    (b"\x89PNG", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.png out.pdf"),
    (b"\xff\xd8\xff", "is an image: turn it into a searchable PDF, e.g. ocrmypdf in.jpg out.pdf"),
    (b"GGUF", "is a model file, not a document: pass it as the model instead"),
)

_DECLARED = re.compile(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:\-]{2,30})", re.IGNORECASE)
# Character sets; Python's codecs of other kinds, of which some are slow or no encodings of text, are not for files to choose.
_DECLARABLE = re.compile(r"iso[-_]8859|latin|windows-|cp\d|koi8|gb|big5|shift|sjis|euc|mac|tis|ibm\d|iso-2022")
_DATA_ADDRESS = re.compile(r"data:[\w/+.;=-]{0,100};base64,[A-Za-z0-9+/=\s]{0,2}[A-Za-z0-9+/=]{64,}")
# Six and more lines of one length without a space; prose, code and hashes don't look like that.
_BASE64_BLOCK = re.compile(r"^[ \t]*([A-Za-z0-9+/]{60}|[A-Za-z0-9+/]{64}|[A-Za-z0-9+/]{72}|[A-Za-z0-9+/]{76})\n(?:[ \t]*[A-Za-z0-9+/]{60,76}\n){5,}(?:[ \t]*[A-Za-z0-9+/]{1,76}={0,2}$)?", re.MULTILINE)  # fmt: skip  # noqa: E501
_UNWRAPPED_SUFFIXES = frozenset({".txt", ".text"})
_NARROWEST, _WIDEST = 40, 120
_RAGGED = 8  # columns by which a wrapped line may fall short of the width


@dataclass(frozen=True, slots=True)
class TextFile:
    """The pages of a text file, and remarks."""

    pages: tuple[str, ...]
    notes: tuple[str, ...]


def read_text(path: Path, data: bytes) -> TextFile:
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
    decoded = _decoded(path, data)
    prose, blocks = without_base64(decoded.text.replace("\r\n", "\n").replace("\r", "\n"))
    pages = [clean(page) for page in prose.split("\f")]
    if len(pages) > 1 and not pages[-1].strip():
        pages.pop()
    if path.suffix.lower() in _UNWRAPPED_SUFFIXES:
        width = wrapped_width("\n".join(pages))
        pages = [unwrap(page, width) for page in pages]
    left_out = f"{'A block' if blocks == 1 else f'{blocks:,} blocks'} of data (base64: a picture or a file) left out." if blocks else ""
    return TextFile(tuple(_trimmed(page) for page in pages), tuple(filter(None, (decoded.note, left_out))))


def without_base64(text: str) -> tuple[str, int]:
    """`text` without files written as letters, and how many there were."""
    text, inline = _DATA_ADDRESS.subn("(data)", text)
    text, blocks = _BASE64_BLOCK.subn("", text)
    return text, inline + blocks


def decode_markup(path: Path, data: bytes) -> Decoded:
    """`data`, which is HTML or XML, as text: the encoding that it declares is tried after UTF-8.

    Raises DocumentUnsupported: the bytes are not text.
    """
    match = _DECLARED.search(data[:2048])
    declared = match[1].decode("ascii").lower() if match else ""
    return _decoded(path, data, declared if _DECLARABLE.match(declared) else "")


def _decoded(path: Path, data: bytes, declared: str = "") -> Decoded:
    try:
        return decode(data, declared)
    except NotText as error:
        raise DocumentUnsupported(
            f"{path} is none of {KINDS}: convert it to one of these first"
        ) from error


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
        joined += row.strip() if joined.endswith(("--", "—")) or _is_wide(joined[-1:]) and _is_wide(row[:1]) else f" {row.strip()}"
    return joined


def _is_wide(char: str) -> bool:
    """Whether it is of a script that writes no spaces between words."""
    return "\u2e80" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\uff00" <= char <= "\uffef"


def _trimmed(page: str) -> str:
    """`page` without trailing spaces, and at most one blank line in a row."""
    kept: list[str] = []
    for row in page.split("\n"):
        row = row.rstrip()
        if row or (kept and kept[-1]):
            kept.append(row)
    return "\n".join(kept).strip("\n")
