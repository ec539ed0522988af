"""What this machine offers: the library that is installed, the devices that it sees, and the memory that is free."""

from __future__ import annotations

from pathlib import Path

import psutil

from selfextend_local import native
from selfextend_local.storage.disk import free_bytes
from selfextend_local.storage.folders import kv_folder

from .plan import Memory

INSTALL_HINT = native.INSTALL_HINT
LibraryInfo = native.LibraryInfo


def probe() -> LibraryInfo:
    """What library is loaded, whether it is patched, and what it can compute on. Raises LibraryError if there is none."""
    return native.probe()


def library_version() -> str:
    """The version of llama-cpp-python; ours ends in the number of the patch set, as in "0.3.36+selfextend.1"."""
    return native.library_version()


def limit_arenas(count: int) -> None:
    """Have the C library's threads share so many heaps, where it can be told: each of its own keeps what was freed there."""
    native.limit_arenas(count)


def free_memory(kv_file: str = "auto") -> Memory:
    """Bytes that are free now, on the host, on GPUs, and where a KV cache in a file would be. Raises LibraryError."""
    try:
        disk = free_bytes(kv_place(kv_file))
    except OSError:
        disk = 0
    return Memory(psutil.virtual_memory().available, native.free_gpu_memory(), disk)


def kv_place(kv_file: str) -> Path:
    """The folder that `Settings.kv_file` means."""
    return kv_folder() if kv_file in ("auto", "on", "off") else Path(kv_file).expanduser()
