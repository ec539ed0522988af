"""Documents that harm their reader, made as an attacker or an accident would make them. Knows file formats only.

    python tests/support/bad_documents.py FOLDER       writes the two PDF files that hang and flood their reader
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

_LEVELS = 12


def hanging_pdf(path: Path) -> Path:
    """One whose page takes for ever to place."""
    path.write_bytes(hanging_bytes())
    return path


def bomb_pdf(path: Path) -> Path:
    """One whose page unpacks to 600 MiB."""
    path.write_bytes(bomb_bytes())
    return path


def label_loop_pdf(path: Path) -> Path:
    """One whose table of page labels holds itself: PDFium's stack ends the process."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
    catalogue = b"<< /Type /Catalog /Pages 2 0 R /PageLabels 4 0 R >>"
    path.write_bytes(_pdf([catalogue, b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page, b"<< /Kids [4 0 R] >>"]))
    return path


def form_loop_pdf(path: Path) -> Path:
    """One whose page draws a form that draws itself, twice: it takes memory until none is left."""
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >>"
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    path.write_bytes(_pdf([b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, _stream(b"/X Do"), _stream(b"/X Do /X Do", form)]))
    return path


def encrypted_pdf(path: Path) -> Path:
    """A PDF that can't be read without its password."""
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(612, 792)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(path)
    return path


def damaged_pdf(path: Path) -> Path:
    """The beginning of a PDF and then nothing that makes sense."""
    path.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 40)
    return path


def empty_file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _pdf(objects: list[bytes]) -> bytes:
    """A PDF of numbered objects, the first of which is the catalogue."""
    data, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


def _stream(data: bytes, head: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), head, data)


def hanging_bytes() -> bytes:
    """One page that draws a form ten times, which draws a form ten times, and so on: 10^12 words to place."""
    resources = b"<< /XObject << /F 6 0 R >> /Font << /T 5 0 R >> >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources %s >>" % resources
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page,
        _stream(b"/F Do " * 10),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for level in range(_LEVELS):
        number = 6 + level
        last = level == _LEVELS - 1
        content = b"BT /T 12 Tf 72 700 Td (laughs) Tj ET" if last else b"/F Do " * 10
        inner = b"" if last else b"/XObject << /F %d 0 R >>" % (number + 1)
        head = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << %s /Font << /T 5 0 R >> >>" % inner
        objects.append(_stream(content, head))
    return _pdf(objects)


def bomb_bytes(mib: int = 600) -> bytes:
    """A page whose content unpacks, in two steps, from a few kilobytes to `mib` MiB."""
    packer = zlib.compressobj(1)
    block = b"BT /T 12 Tf 72 700 Td (boom) Tj ET\n".ljust(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(mib)) + packer.flush()
    twice = zlib.compress(packed, 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /T 5 0 R >> >> >>",
        _stream(twice, b"/Filter [/FlateDecode /FlateDecode]"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    return _pdf(objects)


if __name__ == "__main__":
    hanging_pdf(Path(sys.argv[1], "broken-hanging.pdf"))
    bomb_pdf(Path(sys.argv[1], "broken-bomb.pdf"))
