"""The user's cache folder: where it is, and finished wheels in it, each with the SHA-256 it was stored under.

Knows files and hashes. Must not know what a key is made of, nor how a wheel is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .errors import BuildError

CACHE_VARIABLE = "SELFEXTEND_CACHE_DIR"


def cache_root() -> Path:
    """The cache folder, made if need be: $SELFEXTEND_CACHE_DIR or the platform's own for `selfextend-local`."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        root = Path(named).expanduser().absolute()
    else:
        from platformdirs import user_cache_path

        root = user_cache_path("selfextend-local", appauthor=False)
    with writable(root):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(root)
    return root


def _check_owner(path: Path) -> None:
    """Raises BuildError if somebody else could have put a wheel there: it would be installed, and run."""
    if not hasattr(os, "getuid"):
        return
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        raise BuildError(f"the cache folder {path} belongs to another user; set {CACHE_VARIABLE} to a folder of your own.")
    if status.st_mode & 0o002:
        path.chmod(status.st_mode & ~0o022)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn a failed write below `folder` into the sentence that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BuildError(
            f"the cache folder {folder} cannot be written ({reason}); "
            f"make room there, or set {CACHE_VARIABLE} to a folder that can."
        ) from None


def file_sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def replace_file(source: Path, target: Path) -> None:
    """Copy `source` to `target` so that nobody ever sees half of it."""
    with writable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
        os.close(handle)
        try:
            shutil.copyfile(source, temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)


def find_wheel(key: str) -> Path | None:
    """The sound wheel stored under `key`; a truncated or altered one is removed and counts as absent."""
    for wheel in sorted((cache_root() / "wheels" / key).glob("*.whl")):
        if _is_sound(wheel):
            return wheel
        for broken in (wheel, _sidecar(wheel)):
            with contextlib.suppress(OSError):
                broken.unlink()
    return None


def store_wheel(key: str, wheel: Path) -> Path:
    """Keep a copy of `wheel` under `key`; the hash goes last, so that an interrupted copy is never trusted."""
    target = cache_root() / "wheels" / key / wheel.name
    with tempfile.TemporaryDirectory() as scratch:
        note = Path(scratch) / "sha256"
        note.write_text(f"{file_sha256(wheel)}  {wheel.name}\n", encoding="utf-8")
        replace_file(wheel, target)
        replace_file(note, _sidecar(target))
    return target


def _sidecar(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + ".sha256")


def _is_sound(wheel: Path) -> bool:
    try:
        for path in (wheel, _sidecar(wheel), wheel.parent, wheel.parent.parent):
            _check_owner(path)
        wanted = _sidecar(wheel).read_text(encoding="utf-8").split()[:1]
        return wanted == [file_sha256(wheel)] and zipfile.is_zipfile(wheel)
    except (OSError, UnicodeDecodeError):
        return False
