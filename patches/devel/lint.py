"""What must hold of the series before it is committed. Each check returns sentences; none means all is well.

Knows the rules. Must not change any file.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Sequence
from pathlib import Path

from backend.errors import BuildError
from backend.pin import Pin
from backend.series import Patch, read_series, series_names
from backend.tree import own_files

from .index import with_index
from .repository import FIELDS, canonical_bodies


def check_all(folder: Path, pin: Pin, sdist: Path | None) -> list[str]:
    """Every problem of the series in `folder`; without `sdist` the diffs are not tried on the source."""
    try:
        problems = check_files(folder)
        patches = read_series(folder)
        for patch in patches:
            problems += check_header(patch) + check_tests(patch, folder.parent)
        problems += check_own(folder, patches) + check_index(folder, patches)
        if sdist is not None:
            problems += check_bodies(folder, patches, sdist, pin)
    except BuildError as error:
        return [str(error)]
    return problems


def check_files(folder: Path) -> list[str]:
    """`series` and the *.patch files of the folder name the same patches, numbered in order."""
    names = series_names(folder)
    strays = sorted({file.name for file in folder.glob("*.patch")} - set(names))
    problems = [f"{name} is not in patches/series; add it there or delete it." for name in strays]
    for number, name in enumerate(names, start=1):
        if not name.startswith(f"{number:04d}-"):
            problems.append(f"{name} is number {number} of patches/series; rename it to {number:04d}-....")
    return problems


def check_header(patch: Patch) -> list[str]:
    return [
        f"{patch.name} has no {field}; write it into the header."
        for field in FIELDS
        if patch.header.get(field, "").strip() in ("", "TODO")
    ]


def check_tests(patch: Patch, repository: Path) -> list[str]:
    """Each `Tested-By` names a test function that exists, or a file of them."""
    return [
        f"{patch.name} is Tested-By {node}, which does not exist; write that test or correct the header."
        for node in patch.tested_by
        if node != "TODO" and not _test_exists(node, repository)
    ]


def check_index(folder: Path, patches: Sequence[Patch]) -> list[str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    if with_index(text, patches) == text:
        return []
    return ['the index in patches/README.md differs from the headers; run "python patches/tool.py index".']


def check_own(folder: Path, patches: Sequence[Patch]) -> list[str]:
    """Each file of `src` is brought along by exactly one patch."""
    named = [name for patch in patches for name in patch.own]
    there = {file.relative_to(folder / "src").as_posix() for file in own_files(folder / "src")}
    problems = [f"src/{name} is in no patch's Own; add it to the header of the one that brings it." for name in sorted(there - set(named))]
    problems += [f"src/{name}, named in an Own, does not exist." for name in sorted(set(named) - there)]
    return problems + [f"src/{name} is in more than one Own." for name in sorted({name for name in named if named.count(name) > 1})]


def check_bodies(folder: Path, patches: Sequence[Patch], sdist: Path, pin: Pin) -> list[str]:
    """Every patch applies with no fuzz and no offset and is written canonically."""
    with tempfile.TemporaryDirectory() as scratch:
        bodies = canonical_bodies(folder, pin, sdist, Path(scratch))
    return [
        f'{patch.name} is not in its canonical form; run "python patches/tool.py checkout" and "export".'
        for patch in patches
        if bodies[patch.name] != patch.body
    ]


def _test_exists(node: str, repository: Path) -> bool:
    path, *names = node.split("::")
    file = repository / path
    if not file.is_file():
        return False
    scope: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    if not names:
        return any(isinstance(statement, ast.FunctionDef) and statement.name.startswith("test") for statement in scope)
    for name in names:
        wanted = name.partition("[")[0]
        found = [
            statement
            for statement in scope
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and statement.name == wanted
        ]
        if not found:
            return False
        scope = found[0].body
    return names[-1].startswith("test")
