"""Appends a novel to the text of `fixture_model.corpus`, as paragraphs.

    python novel.py corpus.txt pride-and-prejudice.pdf
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from selfextend_local.evaluation.texts import read_text

_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "-", "–": "-"})


def main(corpus: str, novel: str) -> None:
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", read_text(novel).content.translate(_TYPOGRAPHY)))
    kept = [p.encode("ascii", "ignore").decode() for p in paragraphs if len(p) > 40]
    with Path(corpus).open("a", encoding="utf-8") as file:
        file.write("\n" + "\n\n".join(kept) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
