"""What there is to do: files, folders, patterns and lists of names, or OpenAI batch lines, as items with unique ids.

Knows file names and the form of a batch line. Must not read documents.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfextend_local.batch.outcome import Failure
from selfextend_local.errors import BatchError
from selfextend_local.storage.plain_json import loads

SUFFIXES = frozenset({".pdf", ".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".epub", ".docx"})
"""What is taken from a folder; a file that is named itself is read whatever its suffix."""

CHAT_COMPLETIONS = "/v1/chat/completions"


@dataclass(frozen=True)
class Item:
    """One input: a file, or the body of a chat request, or a line that was neither.

    Attributes:
        custom_id: unique in the batch; for a file its path as it was named.
        size: bytes, for the estimate of the time that is left; 0 if unknown.
    """

    custom_id: str
    path: Path | None = None
    body: dict[str, Any] | None = None
    problem: Failure | None = None
    size: int = 0

    def digest(self) -> str:
        """A hash of the input itself. An unreadable file has that of its error, so that it is tried again once mended."""
        if self.path is None:
            return hashlib.sha256(json.dumps([self.body, self.problem and self.problem.message], sort_keys=True).encode()).hexdigest()
        digest = hashlib.sha256()
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                return digest.hexdigest()  # a pipe or a device would keep us for ever
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            digest.update(f"errno {error.errno}".encode())
        return digest.hexdigest()


def from_paths(names: Iterable[str | os.PathLike[str]], *, leave_out: Collection[Path] = ()) -> list[Item]:
    """Items for files, folders (with their subfolders) and glob patterns, each file once, in the order given.

    Args:
        leave_out: files, and folders with all that is in them, that are never taken from a folder or a pattern: our own output.

    Raises:
        BatchError: a pattern or a folder holds no document.
    """
    own = [path.resolve() for path in leave_out]
    seen: set[Path] = set()
    items: dict[str, Item] = {}
    for name in names:
        for path, was_named in _expanded(os.fspath(name)):
            place = path.resolve()
            if place in seen or (not was_named and any(place == o or o in place.parents for o in own)):
                continue
            seen.add(place)
            custom_id = os.path.normpath(path)
            if custom_id in items:  # by way of a linked folder and ".."
                custom_id = str(place)
            items[custom_id] = Item(custom_id, path=path, size=_size(path))
    return list(items.values())


def _expanded(name: str) -> Iterator[tuple[Path, bool]]:
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        found = _documents_in(path)
        if not found:
            raise BatchError(f"{name} holds no document: none of its files ends in {', '.join(sorted(SUFFIXES))}.")
        yield from ((p, False) for p in found)
    elif not path.exists() and glob.has_magic(name):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise BatchError(f"No file matches {name}: check the pattern.")
        for match in map(Path, matches):
            yield from ((p, False) for p in (_documents_in(match) if match.is_dir() else [match]))
    else:
        yield path, True


def _documents_in(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(root, f) for f in sorted(files) if Path(f).suffix.lower() in SUFFIXES and not f.startswith(".")]
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def names_in(text: str) -> list[str]:
    """File names from a list: one a line, or ended by NUL as `find -print0` does."""
    names = text.split("\0") if "\0" in text else text.splitlines()
    return [name for name in names if name.strip()]


def from_requests(lines: Iterable[str]) -> list[Item]:
    """Items for OpenAI batch lines: `custom_id`, `method`, `url`, `body`. A line that can't be used is an item that fails.

    Raises:
        BatchError: two lines have the same custom_id.
    """
    items: list[Item] = []
    places: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _request(line, number)
        if item.custom_id in places:
            raise BatchError(
                f"custom_id {item.custom_id!r} stands on lines {places[item.custom_id]} and {number} of the requests: give each its own."
            )
        places[item.custom_id] = number
        items.append(item)
    return items


def _request(line: str, number: int) -> Item:
    name = f"line-{number}"
    try:
        request = loads(line)
    except ValueError as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Item(name, problem=Failure("invalid_json_line", f"Line {number} is no JSON ({reason}): {line[:60]!r}"))
    if not isinstance(request, dict):
        return Item(name, problem=Failure("invalid_request", f"Line {number} is no JSON object."))
    given = request.get("custom_id")
    custom_id = given if isinstance(given, str) and given else name
    wrong = _wrong(request)
    if wrong:
        return Item(custom_id, problem=Failure("invalid_request", f"Line {number}: {wrong}"))
    return Item(custom_id, body=request["body"], size=len(line))


def _wrong(request: dict[str, Any]) -> str | None:
    if not isinstance(request.get("custom_id"), str) or not request["custom_id"]:
        return "it has no custom_id."
    if request.get("method") != "POST" or request.get("url") != CHAT_COMPLETIONS:
        return f"only POST {CHAT_COMPLETIONS} is known."
    body = request.get("body")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        return "its body has no messages."
    return None
