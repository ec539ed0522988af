"""How bytes get to the disk whole or not at all, also under a kill or a power failure.

Two ways: a file that only grows by lines, and a file that is replaced. Knows fsync, torn tails, temporary files and
renames. Must not know what is in the files.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ABANDONED_SECONDS = 24 * 3600.0
"""A temporary file that old belongs to nobody, even if its process number is in use."""

_TEMPORARY = re.compile(r"^\..+\.(\d+)-[0-9a-f]{8}\.tmp$")


def free_bytes(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be made. Raises OSError."""
    there = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    return shutil.disk_usage(there).free


def append(file: int, line: bytes) -> None:
    """Write a line, its end included; it is on disk when this returns.

    Raises OSError, with the file as it was.
    """
    size = os.fstat(file).st_size
    try:
        # One call, so that a kill leaves all of the line or a beginning that `mend` finds and removes.
        written = os.write(file, line)
        while written < len(line):
            written += os.write(file, line[written:])
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise


def mend(file: int, beginning: bytes) -> None:
    """Remove a last line that was never finished, as a kill or a power cut leaves it.

    beginning: of every line of ours. Only what begins so, or the zeros of a power cut, is removed: the file could be
    somebody else's. Raises OSError.
    """
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - (1 << 16))
        os.lseek(file, start, os.SEEK_SET)
        block = os.read(file, end - start)
        if (at := block.rfind(b"\n")) >= 0:
            end = start + at + 1
            break
        end = start
    os.lseek(file, end, os.SEEK_SET)
    tail = os.read(file, 1 << 16)
    if tail and (tail.startswith(beginning) or beginning.startswith(tail) or not tail.strip(b"\0")):
        os.ftruncate(file, end)


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """A new temporary file beside `path` that takes its place when the block ends well, and is removed otherwise.

    At any instant, also that of a kill or a power failure, `path` is the old file or the new one. `mode`: who may read the
    new one; less the umask. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and writes a rename to its journal by itself.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove the temporary files of processes that have died; returns how many."""
    swept = 0
    with suppress(OSError):
        for path in folder.iterdir():
            match = _TEMPORARY.match(path.name)
            if match and _abandoned(path, int(match[1])):
                with suppress(OSError):
                    path.unlink()
                    swept += 1
    return swept


def _abandoned(path: Path, process: int) -> bool:
    # A machine that shares the folder may be writing under a number that is free here. Its rename then fails, and it
    # says that the state could not be saved: rare, and nothing is damaged.
    if not psutil.pid_exists(process):
        return True
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    return False
