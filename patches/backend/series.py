"""The patch series: `series` names the files in order; each file is a DEP-3-like header and a diff.

Knows the two file formats and how patches stack on given bytes. Must not know tarballs, builds or folders
other than the one that holds the series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from .diff import DiffError, FileDiff, apply, parse
from .errors import BuildError

_BODY = re.compile(rb"^(diff --git |--- (a/|/dev/null))", re.MULTILINE)
_NAME = re.compile(r"[0-9]{4}-[A-Za-z0-9._-]+\.patch")
_FIELD = re.compile(r"([A-Z][A-Za-z-]*):[ \t]*(.*)")

Tree = MutableMapping[str, "bytes | None"]


@dataclass(frozen=True)
class Patch:
    name: str
    header_text: bytes
    header: dict[str, str]
    body: bytes
    diffs: tuple[FileDiff, ...]

    @property
    def tested_by(self) -> list[str]:
        """The pytest node ids that fail without this patch."""
        return self._list("Tested-By")

    @property
    def own(self) -> list[str]:
        """The files of `src` that the patch brings along, by their path there."""
        return self._list("Own")

    @property
    def paths(self) -> list[str]:
        return [diff.path for diff in self.diffs]

    def _list(self, field: str) -> list[str]:
        return [part.strip() for part in re.split(r"[,\n]", self.header.get(field, "")) if part.strip()]


def series_names(folder: Path) -> list[str]:
    """The file names in `folder/series`, in order."""
    file = folder / "series"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{file} cannot be read ({error}); restore it from git.") from None
    names = [line.strip() for line in lines if line.strip()]
    for number, name in enumerate(names, start=1):
        if not _NAME.fullmatch(name):
            raise BuildError(f"{file} is malformed: entry {number} must be a name like 0001-what.patch, not {name!r}.")
        if name in names[: number - 1]:
            raise BuildError(f"{file} is malformed: it names {name} twice; keep one of the two lines.")
        if not (folder / name).is_file():
            raise BuildError(f"{file} names {name}, which does not exist; add the file or remove the line.")
    return names


def read_series(folder: Path) -> list[Patch]:
    return [read_patch(folder / name) for name in series_names(folder)]


def read_patch(file: Path) -> Patch:
    data = file.read_bytes()
    start = _BODY.search(data)
    if start is None:
        raise BuildError(f'{file} holds no diff; write it with "python patches/tool.py export".')
    header_text, body = data[: start.start()], data[start.start() :]
    try:
        diffs = parse(body, header_text.count(b"\n") + 1)
    except DiffError as error:
        raise BuildError(f"{file} is malformed: {error}; write it with the tool in patches/tool.py.") from None
    return Patch(file.name, header_text, parse_header(header_text, file), body, tuple(diffs))


def parse_header(text: bytes, file: Path) -> dict[str, str]:
    """Fields of a header; a line that begins with a space continues the field above it."""
    fields: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), start=1):
        match = _FIELD.fullmatch(line)
        if match:
            name = match[1]
            fields[name] = match[2].strip()
        elif line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line.strip()
        elif line.strip():
            raise BuildError(f'{file} is malformed: header line {number} must be "Field: value", not {line!r}.')
    return {name: value.strip() for name, value in fields.items()}


def apply_series(patches: Iterable[Patch], tree: Tree) -> None:
    """Apply every patch to `tree` (path to bytes) in place; raises BuildError at the first that does not fit."""
    for patch in patches:
        apply_patch(patch, tree)


def apply_patch(patch: Patch, tree: Tree) -> None:
    for diff in patch.diffs:
        try:
            tree[diff.path] = apply(diff, tree.get(diff.path))
        except DiffError as error:
            raise BuildError(
                f"{patch.name} does not apply to the pinned source: {error}; restore the patch from git, "
                'or renew it as "How to move the pin" in patches/README.md says.'
            ) from None
