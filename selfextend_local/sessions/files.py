"""Where sessions lie on this machine, and how a file gets there whole or not at all.

Knows folders, temporary files and renames. Must not know what is in the files.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
import psutil

CACHE_VARIABLE = "SELFEXTEND_CACHE_DIR"
"""Folder for what can be made again, instead of the platform's own."""

DATA_VARIABLE = "SELFEXTEND_DATA_DIR"
"""Folder for what the user made, instead of the platform's own."""

ABANDONED_SECONDS = 24 * 3600.0
"""A temporary file that old belongs to nobody, even if its process number is in use."""

_APPLICATION = "selfextend-local"
_TEMPORARY = re.compile(r"^\..+\.(\d+)-[0-9a-f]{8}\.tmp$")


def state_folder() -> Path:
    """Where saved states lie. They can be deleted at any time."""
    return _base(CACHE_VARIABLE, platformdirs.user_cache_dir(_APPLICATION)) / "sessions"


def chat_folder() -> Path:
    """Where chats lie: beside the user's data, since a cache may be emptied and a chat can't be made again."""
    return _base(DATA_VARIABLE, platformdirs.user_data_dir(_APPLICATION)) / "chats"


def _base(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else Path(default)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner reads, since a session holds the text of documents. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new temporary file beside `path` that takes its place when the block ends well, and is removed otherwise.

    At any instant, also that of a kill or a power failure, `path` is the old file or the new one. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
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
