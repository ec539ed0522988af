"""Patch bodies in their one canonical form, from the trees before and after each patch.

Knows how bodies follow from trees, and the text of a patch file. Must not know git or the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from backend.diff import render
from backend.pin import Pin
from backend.sdist import members
from backend.series import Patch, Tree, apply_patch

FIELDS = ("Subject", "Origin", "Forwarded", "Retire-When", "Tested-By")


def pristine_files(sdist: Path, pin: Pin, wanted: Iterable[str]) -> Tree:
    """The files of the pinned source whose paths are in `wanted`."""
    names = set(wanted)
    return {path: data for path, data in members(sdist, pin) if path in names}


def touched_paths(patches: Sequence[Patch]) -> set[str]:
    return {path for patch in patches for path in patch.paths}


def canonical_body(before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bytes:
    """The diff from `before` to `after`, files in sorted order; a path that one lacks does not exist there."""
    paths = sorted(set(before) | set(after))
    changed = [path for path in paths if before.get(path) != after.get(path)]
    return b"".join(render(path, before.get(path), after.get(path)) for path in changed)


def regenerate(patches: Sequence[Patch], pristine: Tree) -> dict[str, bytes]:
    """Canonical body of every patch by name; `pristine` holds the files they touch and is left as it was."""
    tree = dict(pristine)
    bodies: dict[str, bytes] = {}
    for patch in patches:
        before = {path: tree.get(path) for path in patch.paths}
        apply_patch(patch, tree)
        bodies[patch.name] = canonical_body(before, {path: tree.get(path) for path in patch.paths})
    return bodies


def new_header(subject: str) -> bytes:
    """A header with the fields to fill in; `check` refuses it until they are."""
    lines = [f"{field}: {subject if field == 'Subject' else 'TODO'}" for field in FIELDS]
    return ("\n".join(lines) + "\n\n").encode()


def write_patch(file: Path, header: bytes, body: bytes) -> None:
    file.write_bytes(header.rstrip(b"\n") + b"\n\n" + body)
