"""The documents of a workspace: as they were read, and which of their pages are wanted."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.documents import Document

from .listener import Listener
from .settings import ChatSettings


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
    origin: str, pages: str | None = None, settings: ChatSettings | None = None, listener: Listener | None = None
) -> Source:
    """Read a document, "-" for stdin, in a process of its own, and say what is odd about it. Raises DocumentError, and Interrupted at
    a stop."""
    from selfextend_local.documents.reader import ReadLimits, read_document

    told, how = listener or Listener(), settings or ChatSettings()
    limits = ReadLimits(how.read_timeout, how.read_memory)
    name = "stdin" if origin == "-" else Path(origin).name
    with told.stopping() as stop, told.progress(f"Reading {name}", "pages") as update:
        whole = read_document(origin, limits, ocr=how.ocr, keep_headers=how.keep_headers, progress=update, should_stop=stop)
    source = Source(origin, whole, pages, "" if origin == "-" else _sha256(Path(os.path.expanduser(origin))))
    for warning in source.document.warnings:
        told.say(f"warning: {name}: {warning}")
    return source


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
