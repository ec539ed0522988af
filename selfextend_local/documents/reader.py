"""Reading documents in a process of its own, with limits on time and memory, so that no file ends or hangs the program.

    document = read_document("report.pdf", progress=bar, should_stop=stop)

`Reader` is the parent's side; what the child does is in `reader_process`. It knows neither formats nor who asks.
"""

from __future__ import annotations

import base64
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfextend_local import errors
from selfextend_local.child import Child, ChildFailed
from selfextend_local.documents.document import Document
from selfextend_local.documents.load import STANDARD_INPUT, standard_input
from selfextend_local.documents.marking import Box, Marked
from selfextend_local.errors import DocumentError, Interrupted, ReaderCrashed, ReaderFailed, ReaderOutOfMemory, ReaderTimeout

Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]

_DOCUMENTS = 200  # after so many a child is replaced


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What one document may cost: seconds, which begin anew with each report of progress if there is who hears it, and MiB (not on
    macOS and Windows)."""

    seconds: float = 300.0
    mib: int = 4096


class Reader:
    """One child, started when it is needed and replaced when a document has ended it. For one thread at a time; `close` it."""

    def __init__(self, limits: ReadLimits | None = None) -> None:
        self._limits = limits or ReadLimits()
        function = "selfextend_local.documents.reader_process:answered"
        self._child = Child(function, seconds=self._limits.seconds, mib=self._limits.mib, requests=_DOCUMENTS)

    def read(
        self,
        source: str | os.PathLike[str],
        *,
        ocr: bool = False,
        keep_headers: bool = False,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Document:
        """As `load_document`. Raises Interrupted when `should_stop` says so; ReaderTimeout, ReaderOutOfMemory, ReaderCrashed,
        ReaderFailed; and what that raises."""
        request = {"do": "read", "path": os.fspath(source), "data": None, "how": {"ocr": ocr, "keep_headers": keep_headers}}
        if request["path"] != STANDARD_INPUT:
            return Document.from_json(self._ask(request, progress, should_stop)["document"])
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "input"
            data.write_bytes(standard_input())
            return Document.from_json(self._ask(request | {"data": str(data)}, progress, should_stop)["document"])

    def mark(
        self,
        path: Path,
        page: str | None,
        text: str | Sequence[str] = (),
        *,
        width: int | None = None,
        must_find: bool = True,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Marked:
        """As `marking.mark`. Raises what `read` and that raise."""
        texts = [text] if isinstance(text, str) else list(text)
        request = {"do": "mark", "path": str(path), "page": page, "texts": texts, "how": {"width": width, "must_find": must_find}}
        return _marked(self._ask(request, progress, should_stop)["marked"])

    def close(self) -> None:
        """End the child, whatever it does."""
        self._child.close()

    def _ask(self, request: dict[str, Any], progress: Progress | None, should_stop: ShouldStop | None) -> dict[str, Any]:
        name = "standard input" if request["path"] == STANDARD_INPUT else request["path"]
        try:
            answer: dict[str, Any] = self._child.ask(request | {"reports": progress is not None}, should_stop, progress)
        except ChildFailed as error:
            raise self._error(name, error) from error
        if "error" in answer:
            raise _raised(name, answer["error"], answer["message"])
        return answer

    def _error(self, name: str, failed: ChildFailed) -> DocumentError | Interrupted:
        seconds, mib = self._limits.seconds, self._limits.mib
        if failed.reason == "stopped":
            return Interrupted(f"Stopped while reading {name}.", 0)
        if failed.reason == "time":
            return ReaderTimeout(
                f"{name} wasn't read within {seconds:g} s: it may be made to hang readers. If you trust it, raise --read-timeout."
            )
        if failed.reason == "memory":
            return ReaderOutOfMemory(
                f"{name} needs more than {mib:,} MiB to read: it may be a zip bomb. If you trust it, raise --read-memory."
            )
        how = signal.Signals(-failed.code).name if failed.code < 0 else f"exit code {failed.code}"
        return ReaderCrashed(
            f"{name} made the reader crash ({how}): it is damaged, or needs more than {mib:,} MiB. "
            "If you trust it, raise --read-memory."
        )


def read_document(
    source: str | os.PathLike[str],
    limits: ReadLimits | None = None,
    *,
    ocr: bool = False,
    keep_headers: bool = False,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Document:
    """One document with a reader of its own; see `Reader.read`."""
    with closing(Reader(limits)) as reader:
        return reader.read(source, ocr=ocr, keep_headers=keep_headers, progress=progress, should_stop=should_stop)


def mark_page(
    path: Path,
    page: str | None,
    text: str | Sequence[str] = (),
    limits: ReadLimits | None = None,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Marked:
    """One page with a reader of its own; see `Reader.mark`."""
    with closing(Reader(limits)) as reader:
        return reader.mark(path, page, text, progress=progress, should_stop=should_stop)


def _raised(name: str, kind: str, message: str) -> DocumentError:
    found = getattr(errors, kind, None)
    if kind != ReaderFailed.__name__ and isinstance(found, type) and issubclass(found, DocumentError):
        return found(message)
    return ReaderFailed(f"{name} can't be read ({message}). This is a bug: please report it with the file, if you may share it.")


def _marked(data: dict[str, Any]) -> Marked:
    hits = tuple(tuple(Box(**box) for box in hit) for hit in data["hits"])
    return Marked(**data | {"hits": hits, "elsewhere": tuple(data["elsewhere"]), "png": base64.b64decode(data["png"])})
