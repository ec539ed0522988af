"""What this machine offers: the library that is installed, the devices that it sees, and the memory that is free."""

from __future__ import annotations

import psutil

from selfextend_local import native

from .plan import Memory

INSTALL_HINT = native.INSTALL_HINT
LibraryInfo = native.LibraryInfo


def probe() -> LibraryInfo:
    """What library is loaded, whether it is patched, and what it can compute on. Raises LibraryError if there is none."""
    return native.probe()


def library_version() -> str:
    """The version of llama-cpp-python; ours ends in the number of the patch set, as in "0.3.36+selfextend.1"."""
    return native.library_version()


def free_memory() -> Memory:
    """Bytes that are free now, on the host and on GPUs. Raises LibraryError."""
    return Memory(psutil.virtual_memory().available, native.free_gpu_memory())
