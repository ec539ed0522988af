"""Patches from edited sources: the difference between a prepared tree and an edited one, or the commits of a
git repository that was begun with the pinned source.

Knows edited trees and git. Must not know the command line. Own sources (files of ours, not patches of theirs)
go to `patches/src` instead of into a diff.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from backend.errors import BuildError
from backend.series import Tree
from backend.tree import OWN_SOURCES, VERSION_FILE

_SOURCE_SUFFIXES = (".c", ".cc", ".cmake", ".comp", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".m", ".metal", ".py", ".txt")
_BUILD_FOLDERS = ("build", ".git", "__pycache__", "lib")
_NAME = re.compile(r"^(?:Patch: *)?([0-9]{4}-[A-Za-z0-9._-]+?)(?:\.patch)?$", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """One commit as a patch to be: the files it changes, before and after."""

    name: str
    message: str
    before: Tree
    after: Tree


def is_own(path: str, own: str) -> bool:
    """Whether `path` lies where own sources go and its file name matches the pattern `own`."""
    folder, _, name = path.rpartition("/")
    return folder in OWN_SOURCES.values() and fnmatch(name, own)


def edited_files(tree: Path, base: Tree) -> Tree:
    """The files of an edited `tree` that `base` knows, and new source files; the version line is not an edit."""
    if not (tree / VERSION_FILE).is_file():
        raise BuildError(f'{tree} is not a source tree; make one with "python patches/tool.py prepare {tree}".')
    edited: Tree = {path: _bytes(tree / path) for path in base}
    for path in _new_sources(tree):
        if path not in base:
            edited[path] = (tree / path).read_bytes()
    edited[VERSION_FILE] = base.get(VERSION_FILE)
    return edited


def commits(repository: Path, base: str | None) -> Iterator[Commit]:
    """The commits after `base` (the first one if None), oldest first."""
    start = base or _git(repository, "rev-list", "--max-parents=0", "HEAD").decode().split()[0]
    for revision in _git(repository, "rev-list", "--reverse", f"{start}..HEAD").decode().split():
        message = _git(repository, "log", "-1", "--format=%B", revision).decode().strip()
        listed = _git(repository, "diff-tree", "-r", "--no-renames", "--name-only", "-z", f"{revision}^", revision)
        paths = [path.decode() for path in listed.split(b"\0") if path]
        yield Commit(
            _patch_name(message),
            message,
            {path: _blob(repository, f"{revision}^", path) for path in paths},
            {path: _blob(repository, revision, path) for path in paths},
        )


def header_of(message: str) -> bytes | None:
    """The patch header that a commit message carries, or None if it carries none."""
    lines = [line for line in message.splitlines() if not re.match(r"Patch: |[0-9]{4}-\S+$", line)]
    text = "\n".join(lines).strip()
    if not re.search(r"^Tested-By: *\S", text, re.MULTILINE):
        return None
    return (text if text.startswith("Subject:") else f"Subject: {text}").encode() + b"\n\n"


def _patch_name(message: str) -> str:
    named = _NAME.search(message)
    if named:
        return f"{named[1]}.patch"
    slug = re.sub(r"[^a-z0-9]+", "-", message.splitlines()[0].lower()).strip("-")[:48].rstrip("-")
    return f"{slug}.patch"


def _new_sources(tree: Path) -> Iterator[str]:
    for folder in ("llama_cpp", "vendor/llama.cpp/src", "vendor/llama.cpp/include", "vendor/llama.cpp/ggml"):
        for file in sorted((tree / folder).rglob("*")):
            relative = file.relative_to(tree)
            if file.is_file() and file.suffix in _SOURCE_SUFFIXES and not set(relative.parts) & set(_BUILD_FOLDERS):
                yield relative.as_posix()


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _blob(repository: Path, revision: str, path: str) -> bytes | None:
    if not _git(repository, "ls-tree", "-z", revision, "--", path):
        return None
    return _git(repository, "cat-file", "blob", f"{revision}:{path}")


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, check=True)
    except FileNotFoundError:
        raise BuildError("git was not found; this command alone needs it, so install git.") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        raise BuildError(f"git refused in {repository} ({said}); name a repository begun with the pin.") from None
    return done.stdout
