"""`python -m selfextend_local.sample OUT.pdf`, or `--folder DIR`: a thin edge around write_sample and write_folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from selfextend_local.errors import SelfExtendError
from selfextend_local.sample import SAMPLE_FACTS, write_sample
from selfextend_local.sample.folder import write_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sample; facts to ask about go to standard error. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m selfextend_local.sample",
        description="Write the sample document: an invented report with known facts.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("out", nargs="?", metavar="OUT.pdf", help="the file to write")
    what.add_argument("--folder", metavar="DIR", help="instead, a folder of short documents of several kinds, three of them broken")
    arguments = parser.parse_args(argv)
    try:
        if arguments.folder is not None:
            print(*write_folder(arguments.folder), sep="\n")
            return 0
        path = write_sample(arguments.out)
    except SelfExtendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    for fact in SAMPLE_FACTS:
        print(f"page {fact.page}: {fact.question} {fact.answer}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
