"""Reading documents in a process of its own, with limits on time and memory, so that a bad file harms nobody else.

The parent side is `Reader`; `python -m selfextend_local.batch.reader_process SECONDS MIB` is the child: a path on each line of its
stdin, a JSON object on each line of its stdout after a first line that says that it is there: a slow start counts against no
document. JSON and not pickle, since the child handles data that nobody vouches for.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from selfextend_local.documents import Document, Page

from .job import Limits
from .outcome import Failure, failure

_READY = b"ready\n"
_POLL_S = 0.2
_LONGEST_ANSWER = 512 << 20  # bytes of JSON; the documents package reads texts of 256 MiB at most
_GRACE_S = 5
_DOCUMENTS = 200
"""After so many a child is replaced: what libraries leak goes with it."""


class Reader:
    """One child, started when it is needed and replaced when a document has ended it. For one thread at a time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._count = 0

    def read(self, path: Path, should_stop: Callable[[], bool] | None = None) -> Document | Failure:
        """The document, or why it can't be read. When `should_stop` says so, the failure's code is "stopped"."""
        deadline = math.inf if self._ask(path) else time.monotonic() + self._limits.read_s
        while True:
            try:
                output = self._answers.get(timeout=_POLL_S)
                if output != _READY:
                    break
                deadline = time.monotonic() + self._limits.read_s
            except queue.Empty:
                if should_stop and should_stop():
                    self.close()
                    return Failure("stopped", f"{path}: stopped while it was being read.")
                if time.monotonic() > deadline:
                    self.close()
                    return _too_slow(path, self._limits)
        if output.endswith(b"\n"):
            return _understood(output)
        code = self._end()
        return _too_slow(path, self._limits) if code == -getattr(signal, "SIGALRM", 0) else _crashed(path, self._limits, code)

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None:
            self._child.kill()
            self._end()

    def _ask(self, path: Path) -> bool:
        """Whether a new child had to be started for it."""
        if self._child is not None and (self._count >= _DOCUMENTS or self._child.poll() is not None):
            self.close()
        new = self._child is None
        if new:
            self._start()
        assert self._child is not None and self._child.stdin is not None
        self._count += 1
        with suppress(OSError):  # it has died; the end of its answers will say so
            self._child.stdin.write(json.dumps(str(path)).encode() + b"\n")
            self._child.stdin.flush()
        return new

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._limits.read_s), str(self._limits.read_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The working folder may hold the documents: nothing in it may be imported in place of a library.
            env=os.environ | {"PYTHONSAFEPATH": "1"},
            # Ctrl-C in the terminal is for the parent to handle.
            start_new_session=True,
        )
        self._count = 0
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self._child, self._answers), daemon=True).start()

    def _end(self) -> int:
        assert self._child is not None
        child, self._child = self._child, None
        if child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
        return child.wait()


def _pump(child: subprocess.Popen[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Lines of the child's stdout; what has no line break is the end, with nothing or half an answer."""
    assert child.stdout is not None
    with child.stdout:
        while True:
            line = child.stdout.readline()
            answers.put(line)
            if not line.endswith(b"\n"):
                return


def read(path: Path, limits: Limits, should_stop: Callable[[], bool] | None = None) -> Document | Failure:
    """One document with a reader of its own."""
    reader = Reader(limits)
    try:
        return reader.read(path, should_stop)
    finally:
        reader.close()


def _too_slow(path: Path, limits: Limits) -> Failure:
    return Failure(
        "reader_timeout",
        f"{path} wasn't read within {limits.read_s:g} s: it may be made to hang readers. If you trust it, raise --read-timeout.",
    )


def _crashed(path: Path, limits: Limits, code: int) -> Failure:
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Failure(
        "reader_crashed",
        f"{path} made the reader crash ({reason}): it is damaged, or needs more than {limits.read_mib:,} MiB. "
        "If you trust it, raise --read-memory.",
    )


def _understood(output: bytes) -> Document | Failure:
    answer = json.loads(output)
    return Failure(answer["code"], answer["message"]) if "code" in answer else document_from(answer)


def document_from(data: dict[str, Any]) -> Document:
    """The inverse of `dataclasses.asdict`, after a passage through JSON."""
    return Document(
        path=Path(data["path"]),
        title=data["title"],
        pages=tuple(Page(**page) for page in data["pages"]),
        unreadable_pages=tuple(data["unreadable_pages"]),
        paged=data["paged"],
        notes=tuple(data["notes"]),
    )


def _limit(mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        # Windows has no such limits, and macOS refuses this one; there the time limit has to do.
        return


def _read_here(path: Path, mib: int) -> bytes:
    from selfextend_local.documents import load_document

    try:
        document = load_document(path)
        data = json.dumps(asdict(document) | {"path": str(document.path)}).encode()
        if len(data) > _LONGEST_ANSWER:
            raise MemoryError
        return data
    except MemoryError:
        message = f"{path} needs more than {mib:,} MiB to read: it may be a zip bomb. If you trust it, raise --read-memory."
        return json.dumps(asdict(Failure("reader_out_of_memory", message))).encode()
    except Exception as error:  # Whatever a library raises on a bad file is this file's failure.
        return json.dumps(asdict(failure(error))).encode()


def main() -> None:
    seconds, mib = float(sys.argv[1]), int(sys.argv[2])
    # Libraries may print; only our answers may reach the parent.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(mib)
    for module in ("selfextend_local.documents.load", "pypdfium2"):
        import_module(module)
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin.buffer:
        if hasattr(signal, "alarm"):
            # Should the parent be killed, nobody else would end a reader that hangs.
            signal.alarm(int(seconds) + _GRACE_S)
        answer = _read_here(Path(json.loads(line)), mib)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        answers.write(answer + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
