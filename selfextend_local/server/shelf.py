"""Documents on disk: the file as it came, its pages as they were read, and what is said of it. Ids survive the process.

    doc-ID.json         what is said of it; a document is there when this is
    doc-ID.pages        its pages, as JSON
    doc-ID.file.SUFFIX  the file, for pictures of its pages

Knows files. Must not know models or HTTP.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from selfextend_local.documents import Document
from selfextend_local.storage.disk import replacing, sweep
from selfextend_local.storage.folders import document_folder, is_ours, make_private
from selfextend_local.storage.plain_json import loads

from .refusals import Refused

_ID = re.compile(r"doc-[0-9a-f]{32}")
_SUFFIX = re.compile(r"\.\w{1,10}")
_OPEN = 8  # documents whose pages are held in memory
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """What is said of a document.

    Attributes:
        created: seconds since 1970.
        model, tokens: what it takes, in tokens of the model of that name.
        has_pictures: whether its pages can be drawn.
    """

    id: str
    filename: str
    bytes: int
    created: int
    n_pages: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    has_pictures: bool
    suffix: str
    model: str
    tokens: int

    def described(self) -> dict[str, Any]:
        """As a client sees it."""
        hidden = ("suffix", "model")
        return {"object": "document", **{name: value for name, value in asdict(self).items() if name not in hidden}}


class Shelf:
    """The documents of one folder; None = that of the user. Several threads and processes may use it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = document_folder() if folder is None else folder
        self._open: OrderedDict[str, Document] = OrderedDict()
        self._lock = threading.Lock()
        sweep(self.folder)

    def all(self) -> list[Kept]:
        """The documents, the last that came first."""
        return sorted(self._all(), key=lambda kept: (-kept.created, kept.id))

    def _all(self) -> Iterator[Kept]:
        with suppress(FileNotFoundError):
            for path in self.folder.glob("doc-*.json"):
                with suppress(Refused):
                    yield self.get(path.stem)

    def get(self, id: str) -> Kept:
        """What is said of a document. Raises Refused if there is none."""
        try:
            if not _ID.fullmatch(id):
                raise FileNotFoundError
            said = loads(_text(self.folder / f"{id}.json"))
            return _checked(id, Kept(**said | {"labels": tuple(said["labels"]), "notes": tuple(said["notes"])}))
        except FileNotFoundError:
            raise Refused(404, "document_not_found", f"There is no document {id[:80]!r}: send its file to POST /v1/documents.") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(id, error) from error

    def document(self, id: str) -> Document:
        """The pages of a document. Raises Refused."""
        kept = self.get(id)
        with self._lock:
            found = self._open.pop(id, None) or self._read(kept)
            self._open[id] = found
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return found

    def _read(self, kept: Kept) -> Document:
        try:
            return Document.from_json(loads(_text(self.folder / f"{kept.id}.pages")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(kept.id, error) from error

    def file(self, kept: Kept) -> Path:
        """The file as it came."""
        return self.folder / f"{kept.id}.file{kept.suffix}"

    def put(self, kept: Kept, document: Document, file: Path) -> None:
        """Keep a document. Raises Refused if it can't be written."""
        said = json.dumps(replace(document, path=Path(kept.filename)).for_json())
        try:
            make_private(self.folder)
            with replacing(self.file(kept)) as fresh:
                shutil.copyfile(file, fresh)
            with replacing(self.folder / f"{kept.id}.pages") as fresh:
                fresh.write_text(said, encoding="utf-8")
            self.note(kept)
        except OSError as error:
            raise Refused(507, "disk", f"The document can't be kept in {self.folder} ({error.strerror}): make room.") from error

    def note(self, kept: Kept) -> None:
        """Write what is said of a document anew. Raises OSError."""
        with replacing(self.folder / f"{kept.id}.json") as fresh:
            fresh.write_text(json.dumps(asdict(kept)), encoding="utf-8")

    def remove(self, kept: Kept) -> None:
        """Remove a document. Raises Refused if its files can't be."""
        with self._lock:
            self._open.pop(kept.id, None)
        try:
            for path in (self.folder / f"{kept.id}.json", self.folder / f"{kept.id}.pages", self.file(kept)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise Refused(500, "disk", f"{path} can't be removed ({error.strerror}): check who owns it.") from error


def _text(path: Path) -> str:
    """What a file of ours holds. Raises OSError, ValueError; FileNotFoundError also for what nobody but another user can have put there."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or not is_ours(status):  # a pipe would keep whoever opens it
        raise FileNotFoundError
    return path.read_text(encoding="utf-8")


def _checked(id: str, kept: Kept) -> Kept:
    """Raises ValueError where a value isn't what the program writes."""
    texts = (kept.filename, kept.model, kept.suffix, *kept.labels, *kept.notes)
    numbers = (kept.bytes, kept.created, kept.n_pages, kept.tokens)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
        raise ValueError("a value in it is neither a text nor a number")
    if kept.id != id or len(kept.labels) != kept.n_pages or suffix_of(f"a{kept.suffix}") != kept.suffix:
        raise ValueError("its id, its labels or its suffix are none of ours")
    return kept


def _damaged(id: str, error: Exception) -> Refused:
    return Refused(404, "document_damaged", f"What is kept of {id} can't be read ({error}): send its file again.")


def id_of(file: Path) -> str:
    """The id of a file's contents."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return f"doc-{digest.hexdigest()[:32]}"


def safe_name(name: str) -> str:
    """A name that a client gave, as one of a file in any folder."""
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(". ")
    stem, suffix = os.path.splitext(plain)
    return stem.encode()[:120].decode("utf-8", "ignore") + suffix[:16] or "document"


def suffix_of(name: str) -> str:
    """The suffix of a name, if it is a usual one."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""
