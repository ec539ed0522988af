"""The table of patches in README.md, written from the patch headers between two markers.

Knows the README's markers and the headers. Must not know diffs or trees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from backend.errors import BuildError
from backend.series import Patch

BEGIN, END = "<!-- index: python patches/tool.py index -->", "<!-- end of index -->"
_BETWEEN = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)


def index_table(patches: Sequence[Patch]) -> str:
    rows = ["| patch | what it mends | fails without it |", "|---|---|---|"]
    for patch in patches:
        subject = patch.header.get("Subject", "").split("\n")[0]
        tests = "<br>".join(f"`{node}`" for node in patch.tested_by)
        rows.append(f"| [{patch.name}]({patch.name}) | {subject} | {tests} |")
    return "\n".join(rows)


def with_index(readme: str, patches: Sequence[Patch]) -> str:
    """`readme` with a fresh table; raises BuildError if the markers are gone."""
    if not _BETWEEN.search(readme):
        raise BuildError(f"patches/README.md has lost its index markers; put back {BEGIN} and {END}.")
    block = f"{BEGIN}\n{index_table(patches)}\n{END}"
    return _BETWEEN.sub(lambda _: block, readme)


def write_index(folder: Path, patches: Sequence[Patch]) -> None:
    file = folder / "README.md"
    file.write_text(with_index(file.read_text(encoding="utf-8"), patches), encoding="utf-8")
