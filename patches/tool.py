"""The patch writer's command line: `python patches/tool.py --help`.

Knows the commands and their order of steps; the steps are `devel`'s and `backend`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.errors import BuildError
from backend.pin import Pin, read_pin
from backend.sdist import fetch_sdist, members
from backend.series import Tree, apply_series, read_patch, read_series, series_names
from backend.tree import OWN_SOURCES, own_sources, patched_files, write_files
from devel.capture import commits, edited_files, header_of, is_own
from devel.index import write_index
from devel.lint import check_all
from devel.regenerate import canonical_body, new_header, pristine_files, regenerate, touched_paths, write_patch

FOLDER = Path(__file__).resolve().parent
OWN = "llama-group-attn*"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options, read_pin(FOLDER / "pin"))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python patches/tool.py", description="Write and check the patch series.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="lint the series; the quick tests run the same checks")
    check.set_defaults(run=run_check)

    prepare = commands.add_parser("prepare", help="unpack the pinned source into DIR and apply patches to it")
    prepare.add_argument("dir", metavar="DIR", type=Path)
    prepare.add_argument("--upto", metavar="N", type=int, help="apply the first N patches only (default: all)")
    prepare.add_argument("--everything", action="store_true", help="unpack docs, models and tests too")
    prepare.set_defaults(run=run_prepare)

    renew = commands.add_parser("regenerate", help="rewrite every patch body in its canonical form")
    renew.set_defaults(run=run_regenerate)

    take = commands.add_parser("import", help="write the edits made in a prepared tree into PATCH, keeping its header")
    take.add_argument("patch", metavar="PATCH", help="file name; a new one is added to the end of the series")
    take.add_argument("--from", dest="tree", metavar="TREE", type=Path, required=True)
    take.add_argument("--own", metavar="GLOB", default=OWN, help=f"files that go to patches/src (default: {OWN})")
    take.set_defaults(run=run_import)

    git = commands.add_parser("from-git", help="write the whole series from a git repository, one commit a patch")
    git.add_argument("repository", metavar="REPOSITORY", type=Path)
    git.add_argument("--base", metavar="REV", help="the commit of the pinned source (default: the first commit)")
    git.add_argument("--own", metavar="GLOB", default=OWN, help=f"files that go to patches/src (default: {OWN})")
    git.set_defaults(run=run_from_git)

    index = commands.add_parser("index", help="rewrite the table of patches in patches/README.md")
    index.set_defaults(run=run_index)
    return top


def run_check(options: argparse.Namespace, pin: Pin) -> int:
    problems = check_all(FOLDER, pin, fetch_sdist(pin))
    for problem in problems:
        print(problem)
    print(f"{len(series_names(FOLDER))} patches, {len(problems)} problems")
    return 1 if problems else 0


def run_prepare(options: argparse.Namespace, pin: Pin) -> int:
    patches = read_series(FOLDER)
    count = len(patches) if options.upto is None else options.upto
    if not 0 <= count <= len(patches):
        raise BuildError(f"--upto {count} is out of range; the series has {len(patches)} patches.")
    own = own_sources(FOLDER / "src")
    write_files(patched_files(fetch_sdist(pin), pin, patches[:count], own, options.everything), options.dir)
    print(f"{options.dir}: {pin.package} {pin.version} with {count} of {len(patches)} patches")
    return 0


def run_regenerate(options: argparse.Namespace, pin: Pin) -> int:
    patches = read_series(FOLDER)
    bodies = regenerate(patches, pristine_files(fetch_sdist(pin), pin, touched_paths(patches)))
    for patch in patches:
        same = bodies[patch.name] == patch.body
        if not same:
            write_patch(FOLDER / patch.name, patch.header_text, bodies[patch.name])
        print(f"{'unchanged' if same else 'rewritten'}  {patch.name}")
    return 0


def run_import(options: argparse.Namespace, pin: Pin) -> int:
    names = series_names(FOLDER)
    before = names[: names.index(options.patch)] if options.patch in names else names
    base: Tree = dict(members(fetch_sdist(pin), pin))
    apply_series([read_patch(FOLDER / name) for name in before], base)
    body = canonical_body(*_without_own(base, edited_files(options.tree, base), options.own))
    if not body:
        raise BuildError(f"{options.tree} has no edits beyond the {len(before)} patches before {options.patch}.")
    file = FOLDER / options.patch
    header = read_patch(file).header_text if file.is_file() else new_header(options.patch)
    write_patch(file, header, body)
    if options.patch not in names:
        _write_series([*names, options.patch])
    print(f"{options.patch}: {', '.join(read_patch(file).paths)}")
    return 0


def run_from_git(options: argparse.Namespace, pin: Pin) -> int:
    names: list[str] = []
    for commit in commits(options.repository, options.base):
        body = canonical_body(*_without_own(commit.before, commit.after, options.own))
        if not body:
            print(f"no patch   {commit.name}: own sources only")
            continue
        name = commit.name if commit.name[:4].isdigit() else f"{len(names) + 1:04d}-{commit.name}"
        if name in names:
            raise BuildError(f"two commits are called {name}; squash them with git rebase -i.")
        names.append(name)
        file = FOLDER / name
        kept = read_patch(file).header_text if file.is_file() else new_header(commit.message.splitlines()[0])
        write_patch(file, header_of(commit.message) or kept, body)
        print(f"written    {name}")
    if not names:
        raise BuildError(f"{options.repository} has no commit after its base; commit one change a patch.")
    _write_series(names)
    write_index(FOLDER, read_series(FOLDER))
    return 0


def run_index(options: argparse.Namespace, pin: Pin) -> int:
    write_index(FOLDER, read_series(FOLDER))
    return 0


def _without_own(before: Tree, after: Tree, own: str) -> tuple[Tree, Tree]:
    """Both trees less our own sources, whose new bytes go to patches/src."""
    kept = {f for f in own_sources(FOLDER / "src")} | {path for path in after if is_own(path, own)}
    for path in sorted(kept & set(after)):
        folder, _, name = path.rpartition("/")
        below = next(below for below, place in OWN_SOURCES.items() if place == folder)
        data, file = after[path], FOLDER / "src" / below / name
        if data is None:
            file.unlink(missing_ok=True)
        elif not file.is_file() or file.read_bytes() != data:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            print(f"own source {file.name}")
    return (
        {path: data for path, data in before.items() if path not in kept},
        {path: data for path, data in after.items() if path not in kept},
    )


def _write_series(names: Sequence[str]) -> None:
    (FOLDER / "series").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
