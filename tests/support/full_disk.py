"""What a full disk does, made by the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Writes fail in every file of this process beyond `room` bytes. It is for a call, never for a fixture: pytest too writes to files,
    and its report is one where nobody watches it on a terminal."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
