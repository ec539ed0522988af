"""Files of lines that only grow: a line is on disk once written, and what a kill left of one is removed.

Knows descriptors, fsync and torn tails. Must not know what is in the lines.
"""

from __future__ import annotations

import os


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
