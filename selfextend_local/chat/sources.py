"""The documents of a workspace: as they were read, and which of their pages are wanted."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.documents import Document
from selfextend_local.errors import Interrupted

from .listener import Listener


@dataclass(frozen=True)
class Source:
    """A document that was read, which pages of it are wanted (None = all), and the SHA-256 of its file ("" = no file)."""

    origin: str
    whole: Document
    pages: str | None = None
    sha256: str = ""

    @property
    def document(self) -> Document:
        """The wanted pages. Raises DocumentError if there are none such."""
        if self.pages is None:
            return self.whole
        from selfextend_local.documents.labels import select_pages

        return select_pages(self.whole, self.pages)


def read_source(
    origin: str, pages: str | None = None, *, ocr: bool = False, keep_headers: bool = False, listener: Listener | None = None
) -> Source:
    """Read a document, "-" for stdin, and say what is odd about it. Raises DocumentError, and Interrupted at a stop."""
    from selfextend_local.documents import load_document

    told = listener or Listener()
    name = "stdin" if origin == "-" else Path(origin).name
    with told.stopping() as stop, told.progress(f"Reading {name}", "pages") as update:

        def moved(done: int, total: int) -> None:
            if stop():
                raise Interrupted(f"Stopped while reading {name}.", 0)
            update(done, total)

        whole = load_document(origin, progress=moved, ocr=ocr, keep_headers=keep_headers)
        if stop():  # a text is read in one go, and reports no pages
            raise Interrupted(f"Stopped while reading {name}.", 0)
    source = Source(origin, whole, pages, "" if origin == "-" else _sha256(Path(os.path.expanduser(origin))))
    for warning in source.document.warnings:
        told.say(f"warning: {name}: {warning}")
    return source


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
