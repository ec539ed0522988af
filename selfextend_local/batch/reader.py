"""Reading a document in a process of its own, with a limit on time and on memory, so that a bad file harms nobody else.

The parent side is `read`; `python -m selfextend_local.batch.reader FILE SECONDS MIB` is the child, which prints one JSON
object. JSON and not pickle, since the child has handled data that nobody vouches for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfextend_local.batch.job import Limits
from selfextend_local.batch.outcome import Failure, failure
from selfextend_local.documents import Document, Page

_POLL_S = 0.2
_LONGEST_ANSWER = 512 << 20  # bytes of JSON; the documents package reads texts of 256 MiB at most
_GRACE_S = 5


def read(path: Path, limits: Limits, should_stop: Callable[[], bool] | None = None) -> Document | Failure:
    """The document, or why it can't be read. When `should_stop` says so, the reader is killed and the failure says "stopped"."""
    command = [sys.executable, "-m", __name__, str(path), str(limits.read_s), str(limits.read_mib)]
    # The working folder may hold the documents: nothing in it may be imported in place of a library.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C in the terminal is for the parent to handle.
        start_new_session=True,
    )
    deadline = time.monotonic() + limits.read_s
    try:
        while True:
            try:
                output, _ = child.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if should_stop and should_stop():
                    return Failure("stopped", f"{path}: stopped while it was being read.")
                if time.monotonic() > deadline:
                    return _too_slow(path, limits)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    if child.returncode == -getattr(signal, "SIGALRM", 0):
        return _too_slow(path, limits)
    return _answer(path, limits, child.returncode, output)


def _too_slow(path: Path, limits: Limits) -> Failure:
    return Failure(
        "reader_timeout",
        f"{path} wasn't read within {limits.read_s:g} s: it may be made to hang readers. If you trust it, raise --read-timeout.",
    )


def _answer(path: Path, limits: Limits, code: int, output: bytes) -> Document | Failure:
    try:
        answer = json.loads(output)
    except ValueError:
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Failure(
            "reader_crashed",
            f"{path} made the reader crash ({reason}): it is damaged, or needs more than {limits.read_mib:,} MiB. "
            "If you trust it, raise --read-memory.",
        )
    if "code" in answer:
        return Failure(answer["code"], answer["message"])
    return document_from(answer)


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


def _limit(seconds: float, mib: int) -> None:
    if hasattr(signal, "alarm"):
        # Should the parent be killed, nobody else would end a reader that hangs.
        signal.alarm(int(seconds) + _GRACE_S)
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
    path, seconds, mib = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    # Libraries may print; only our answer may reach the parent.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(seconds, mib)
    with answer:
        answer.write(_read_here(path, mib))


if __name__ == "__main__":
    main()
