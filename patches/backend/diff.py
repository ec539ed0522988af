"""Unified diffs over bytes: read, and apply with no fuzz and no offset.

Knows text lines and hunks. Must not know files on disk, patch headers or the series: `apply` maps the old
bytes of one file to the new ones. None stands for a file that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_IGNORED = (b"diff --git ", b"index ", b"new file mode 100", b"deleted file mode 100")
_NO_NEWLINE = b"\\ No newline at end of file"


class DiffError(Exception):
    """The diff is malformed or does not fit; `str()` says where, as the tail of a sentence."""


@dataclass(frozen=True)
class Hunk:
    """One hunk; `lines` keep their ' ', '-' or '+', and `number` is the line of its `@@` in the patch file."""

    old_start: int
    new_start: int
    lines: tuple[bytes, ...]
    number: int


@dataclass(frozen=True)
class FileDiff:
    path: str
    created: bool
    deleted: bool
    hunks: tuple[Hunk, ...]


def split_lines(data: bytes) -> list[bytes]:
    """Lines with their newline; only \\n ends a line, so that \\r and form feeds survive."""
    lines = data.split(b"\n")
    tail = lines.pop()
    return [line + b"\n" for line in lines] + ([tail] if tail else [])


def parse(body: bytes, first_line: int = 1) -> list[FileDiff]:
    """The file diffs in `body`, whose first line is line `first_line` of its patch file."""
    lines = split_lines(body)
    diffs: list[FileDiff] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.startswith(_IGNORED) or not line.strip():
            at += 1
        elif line.startswith(b"--- ") and at + 1 < len(lines) and lines[at + 1].startswith(b"+++ "):
            old, new = _path(line, b"a/", first_line + at), _path(lines[at + 1], b"b/", first_line + at + 1)
            hunks, at = _parse_hunks(lines, at + 2, first_line)
            path = new or old
            if path is None or not hunks or (old is not None and new is not None and old != new):
                raise DiffError(f"line {first_line + at - 1} ends a file diff that has no hunk or two different names")
            diffs.append(FileDiff(path, created=old is None, deleted=new is None, hunks=tuple(hunks)))
        else:
            raise DiffError(f"line {first_line + at} is not part of a unified diff: {_show(line)}")
    if not diffs:
        raise DiffError("it holds no diff")
    return diffs


def apply(diff: FileDiff, old: bytes | None) -> bytes | None:
    """The bytes of `diff.path` after the diff; raises DiffError at the first line that differs from the patch."""
    if diff.created and old is not None:
        raise DiffError(f"{diff.path} is created by the patch but exists already")
    if not diff.created and old is None:
        raise DiffError(f"{diff.path} does not exist")
    source = split_lines(old or b"")
    result: list[bytes] = []
    at = 0
    for index, hunk in enumerate(diff.hunks, start=1):
        place = f"{diff.path}, hunk {index} (line {hunk.number} of the patch)"
        old_count = sum(not line.startswith(b"+") for line in hunk.lines)
        new_count = sum(not line.startswith(b"-") for line in hunk.lines)
        begin = hunk.old_start - 1 if old_count else hunk.old_start
        if begin < at:
            raise DiffError(f"{place}: hunks overlap or are out of order")
        result += source[at:begin]
        at = begin
        if len(result) != (hunk.new_start - 1 if new_count else hunk.new_start):
            raise DiffError(f"{place}: its line numbers contradict the hunks before it")
        for offset, line in enumerate(hunk.lines, start=1):
            sign, text = line[:1], line[1:]
            if sign == b"+":
                result.append(text)
                continue
            if at >= len(source) or source[at] != text:
                found = _show(source[at]) if at < len(source) else "the end of the file"
                raise DiffError(
                    f"{place}: line {hunk.number + offset} of the patch expects {_show(text)} "
                    f"at line {at + 1} of the file, which is {found}"
                )
            if sign == b" ":
                result.append(text)
            at += 1
    result += source[at:]
    if any(not line.endswith(b"\n") for line in result[:-1]):
        raise DiffError(f"{diff.path}: the patch adds lines after a last line that has no newline")
    if diff.deleted:
        if result:
            raise DiffError(f"{diff.path} is deleted by the patch but {len(result)} of its lines are left")
        return None
    return b"".join(result)


def _path(line: bytes, prefix: bytes, number: int) -> str | None:
    name = line[4:].rstrip(b"\r\n").split(b"\t")[0]
    if name == b"/dev/null":
        return None
    parts = name[2:].split(b"/")
    if not name.startswith(prefix) or b".." in parts or b"" in parts or b"\\" in name or b":" in name:
        raise DiffError(f"line {number} must name a file of the source tree as {prefix.decode()}PATH: {_show(line)}")
    return name[2:].decode("utf-8", "replace")


def _parse_hunks(lines: list[bytes], at: int, first_line: int) -> tuple[list[Hunk], int]:
    hunks: list[Hunk] = []
    while at < len(lines) and (match := _HUNK.match(lines[at])):
        number = first_line + at
        old_start, new_start = int(match[1]), int(match[3])
        wanted = [int(count) if count is not None else 1 for count in (match[2], match[4])]
        content: list[bytes] = []
        at += 1
        for line in _hunk_lines(lines, at, wanted, number, first_line):
            if line.startswith(_NO_NEWLINE):
                content[-1] = content[-1][:-1]
            else:
                content.append(line)
            at += 1
        hunks.append(Hunk(old_start, new_start, tuple(content), number))
    return hunks, at


def _hunk_lines(lines: list[bytes], at: int, wanted: list[int], number: int, first_line: int) -> Iterator[bytes]:
    old, new = wanted
    while old or new or (at < len(lines) and lines[at].startswith(_NO_NEWLINE)):
        line = lines[at] if at < len(lines) else b""
        sign = line[:1]
        if sign not in (b" ", b"-", b"+", b"\\") or not line.endswith(b"\n"):
            raise DiffError(f"the hunk at line {number} breaks off at line {first_line + at}")
        old -= sign in (b" ", b"-")
        new -= sign in (b" ", b"+")
        if old < 0 or new < 0:
            raise DiffError(f"the hunk at line {number} has more lines than it announces")
        yield line
        at += 1


def _show(line: bytes) -> str:
    text = line.decode("utf-8", "replace").rstrip("\n")
    return repr(text if len(text) <= 80 else text[:77] + "...")
