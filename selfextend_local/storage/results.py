"""A file of results: one line for each, there for good once written, whatever kills the program.

One process writes at a time. A line that is superseded (something tried again) is removed when the run ends, never before its
successor is on disk. Knows lines and a lock. Must not know what a result is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from selfextend_local.errors import SelfExtendError

from .disk import append, mend, replacing

R = TypeVar("R")


@dataclass(frozen=True)
class Form(Generic[R]):
    """How results of one kind stand in a file.

    beginning: of every line, so that a torn one is told from somebody else's text. parse: raises ValueError, with what the line
    isn't. name: of two results with one name the later stands. error, elsewhere: what is raised, and the advice in it.
    wait_s: for another process that writes.
    """

    beginning: bytes
    parse: Callable[[str], R]
    write: Callable[[R], str]
    name: Callable[[R], str]
    error: type[SelfExtendError]
    elsewhere: str
    wait_s: float = 0


class ResultsFile(Generic[R]):
    """Reads at any time. To write use it as a context manager: that takes the lock and mends a torn last line.

    Raises the form's error if the file can't be read or written, holds anything but results, or another run holds it.
    """

    def __init__(self, path: Path, form: Form[R]) -> None:
        self.path, self._form = path, form
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._file = -1
        self._names: set[str] = set()
        self._has_old = self._known = False

    def __enter__(self) -> ResultsFile[R]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=self._form.wait_s)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            mend(self._file, self._form.beginning)
        except Timeout:
            raise self._form.error(f"Another run is writing {self.path}: wait for it, or {self._form.elsewhere}.") from None
        except OSError as error:
            self._close()
            raise self._form.error(f"{self.path} can't be written ({error.strerror}): {self._form.elsewhere}.") from error
        try:
            if not self._known:
                deque(self.all(), maxlen=0)
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

    def append(self, result: R) -> None:
        """Write a result; it is on disk when this returns, or the file is as it was."""
        try:
            self._check_place()
            append(self._file, (self._form.write(result) + "\n").encode())
        except OSError as error:
            raise self._form.error(
                f"{self.path} can't be written ({error.strerror}). All results before this one are safe: make room, and run the "
                "same command again."
            ) from error
        self._remember(self._form.name(result))

    def all(self) -> Iterator[R]:
        """Every result in the order of the file, superseded ones too; not a torn last line."""
        for _, result in self._lines():
            self._remember(self._form.name(result))
            yield result
        self._known = True

    def newest(self) -> dict[str, R]:
        """The newest result of each name, in the order in which the names came first."""
        return {self._form.name(result): result for result in self.all()}

    def _remember(self, name: str) -> None:
        self._has_old |= name in self._names and self._file >= 0
        self._names.add(name)

    def _check_place(self) -> None:
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            there = False
        if not there:
            raise self._form.error(f"{self.path} was removed or replaced during the run: run the same command again.")

    def _lines(self) -> Iterator[tuple[str, R]]:
        try:
            file = self.path.open(encoding="utf-8", errors="replace", newline="\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._form.error(f"{self.path} can't be read ({error.strerror}): {self._form.elsewhere}.") from error
        with file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n") and _torn(line, self._form.beginning):
                    return
                try:
                    yield line.rstrip("\n"), self._form.parse(line)
                except (ValueError, RecursionError) as error:
                    raise self._form.error(
                        f"Line {number} of {self.path} is {error}. If the file isn't ours, {self._form.elsewhere}; else remove that line."
                    ) from error

    def _drop_old(self) -> None:
        """Rewrite the file with the last line of each name only; the old file stays until the new one is on disk."""
        newest = {self._form.name(result): line for line, result in self._lines()}
        try:
            with replacing(self.path, 0o666) as fresh:
                fresh.write_bytes("".join(f"{line}\n" for line in newest.values()).encode())
                os.close(self._file)
                self._file = -1
        except OSError as error:
            raise self._form.error(
                f"{self.path} still holds superseded lines, since it can't be rewritten ({error.strerror}): make room, and run the same "
                "command again."
            ) from error

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()


def _torn(line: str, beginning: bytes) -> bool:
    start = beginning.decode()
    return line.startswith(start) or start.startswith(line)
