"""Documents that harm their reader, made as an attacker or an accident would make them. Knows file formats only."""

from __future__ import annotations

from pathlib import Path

from selfextend_local.sample import harmful


def hanging_pdf(path: Path) -> Path:
    """One whose page takes for ever to place."""
    path.write_bytes(harmful.hanging_pdf())
    return path


def bomb_pdf(path: Path) -> Path:
    """One whose page unpacks to 600 MiB."""
    path.write_bytes(harmful.bomb_pdf())
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
