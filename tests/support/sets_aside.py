"""A child's function whose module has set addresses aside, a gibibyte, before the first request."""

from __future__ import annotations

import mmap

ASIDE = mmap.mmap(-1, 1 << 30)


def length(n: int) -> int:
    """Of n bytes."""
    return len(bytearray(n))
