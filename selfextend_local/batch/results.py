"""The results file: one line for each item, there for good once written, whatever kills the program.

Knows the lines and the lock. Must not know how a result is made. One process writes at a time; a line that
is superseded (an error tried again, a document that changed) is removed when the run ends, never before its successor is on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from selfextend_local.batch.outcome import Result, from_line
from selfextend_local.errors import BatchError
from selfextend_local.storage.disk import append, mend, replacing

_BEGINNING = b'{"id": "batch_req_'


class ResultsFile:
    """Use as a context manager: takes the lock, mends a torn last line, and knows what is done already.

    Raises BatchError on entry if another run holds the file, or if it holds anything but results.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._file = -1
        self._known: dict[str, tuple[str, bool]] = {}
        self._has_old = False

    def __enter__(self) -> ResultsFile:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise BatchError(f"Another run is writing {self.path}: wait for it, or choose another output.") from None
        except OSError as error:
            raise BatchError(f"{self.path} can't be written ({error.strerror}): choose another output.") from error
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._has_old and kind is None:
                self._drop_old()
        finally:
            self._close()

    def standing(self, custom_id: str) -> tuple[str, bool] | None:
        """(key, whether it is a summary) of the newest result for this id, or None."""
        return self._known.get(custom_id)

    def append(self, result: Result) -> None:
        """Write a result; it is on disk when this returns. Raises BatchError, with the file as it was, if the disk is full."""
        try:
            append(self._file, (result.to_line() + "\n").encode())
        except OSError as error:
            raise BatchError(
                f"{self.path} can't be written ({error.strerror}). All results before this one are safe: make room, and run the "
                "same command again."
            ) from error
        self._remember(result)

    def results(self) -> Iterator[Result]:
        """The newest result of each id, in the order of the file."""
        yield from {result.custom_id: result for _, result in _lines(self.path)}.values()

    def _remember(self, result: Result) -> None:
        self._has_old |= result.custom_id in self._known
        self._known[result.custom_id] = (result.key, result.ok)

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            mend(self._file, _BEGINNING)
        except OSError as error:
            raise BatchError(f"{self.path} can't be written ({error.strerror}): choose another output.") from error
        for _, result in _lines(self.path):
            self._remember(result)

    def _drop_old(self) -> None:
        """Rewrite the file with the last line of each id only; the old file stays until the new one is on disk."""
        newest = {result.custom_id: line for line, result in _lines(self.path)}
        try:
            with replacing(self.path, 0o666) as fresh:
                fresh.write_bytes("".join(f"{line}\n" for line in newest.values()).encode())
                os.close(self._file)
                self._file = -1
        except OSError as error:
            raise BatchError(
                f"{self.path} still holds superseded lines, since it can't be rewritten ({error.strerror}): make room, and run the same "
                "command again."
            ) from error

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()


def _lines(path: Path) -> Iterator[tuple[str, Result]]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.rstrip("\n"), from_line(line)
            except ValueError as error:
                raise BatchError(
                    f"Line {number} of {path} is {error}. If the file isn't ours, choose another output; else remove that line."
                ) from error
