"""The patch writer's command line: `python patches/tool.py --help`.

Knows the commands and their order of steps; the steps are `devel`'s and `backend`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from backend.errors import BuildError
from backend.pin import Pin, read_pin
from backend.sdist import fetch_sdist
from backend.series import read_series, series_names
from backend.tree import own_sources, patched_files, write_files
from devel.index import write_index
from devel.lint import check_all
from devel.repository import checkout, export, rebase

FOLDER = Path(__file__).resolve().parent


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

    prepare = commands.add_parser("prepare", help="unpack the patched source into DIR")
    prepare.add_argument("dir", metavar="DIR", type=Path)
    prepare.set_defaults(run=run_prepare)

    begin = commands.add_parser("checkout", help="make DIR a git repository: the pinned source, then one commit a patch")
    begin.add_argument("dir", metavar="DIR", type=Path)
    begin.set_defaults(run=run_checkout)

    write = commands.add_parser("export", help="write the series, the own sources and the table from such a repository")
    write.add_argument("dir", metavar="DIR", type=Path)
    write.set_defaults(run=run_export)

    move = commands.add_parser("rebase", help="move the pin: put the commits of a repository onto another source")
    move.add_argument("dir", metavar="DIR", type=Path)
    move.add_argument("version", metavar="VERSION")
    move.add_argument("sha256", metavar="SHA256")
    move.set_defaults(run=run_rebase)

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
    write_files(patched_files(fetch_sdist(pin), pin, read_series(FOLDER), own_sources(FOLDER / "src")), options.dir)
    return 0


def run_checkout(options: argparse.Namespace, pin: Pin) -> int:
    if options.dir.exists() and any(options.dir.iterdir()):
        raise BuildError(f"{options.dir} is not empty; name a new folder.")
    options.dir.mkdir(parents=True, exist_ok=True)
    checkout(FOLDER, pin, fetch_sdist(pin), options.dir)
    return 0


def run_export(options: argparse.Namespace, pin: Pin) -> int:
    for name in export(FOLDER, pin, options.dir):
        print(name)
    write_index(FOLDER, read_series(FOLDER))
    return 0


def run_rebase(options: argparse.Namespace, pin: Pin) -> int:
    new = replace(pin, version=options.version, sha256=options.sha256, revision=1)
    sdist = fetch_sdist(new)
    (FOLDER / "pin").write_text(f"{new.package} {new.version} sha256:{new.sha256} selfextend.{new.revision}\n", encoding="utf-8")
    rebase(pin, new, sdist, options.dir)
    return run_export(options, new)


def run_index(options: argparse.Namespace, pin: Pin) -> int:
    write_index(FOLDER, read_series(FOLDER))
    return 0


if __name__ == "__main__":
    sys.exit(main())
