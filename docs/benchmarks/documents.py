"""What readers of PDFs get out of a folder of files, and what it costs.

    python docs/benchmarks/documents.py read FOLDER ours.jsonl
    python docs/benchmarks/documents.py read FOLDER before.jsonl --package ../checkout-of-before
    python docs/benchmarks/documents.py read FOLDER oxide.jsonl --reader pdf_oxide --python ../other/bin/python
    python docs/benchmarks/documents.py read FOLDER poppler.jsonl --reader poppler
    python docs/benchmarks/documents.py compare poppler.jsonl before.jsonl ours.jsonl
    python docs/benchmarks/documents.py truth docs/benchmarks/truth poppler.jsonl ours.jsonl

`read` reads each file in a process of its own. Seconds are of the processor, so that a busy machine doesn't count; memory is the
most that the process held. `compare` holds the words against those of the first file. `truth` holds them against pages that
were written down by hand: NAME.txt is what NAME.pdf says, NAME.3.txt its third page; a line that begins with "|" is a row of a table.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

_LONGEST_S = 600


@dataclass
class Read:
    """A file as one reader read it; `error` is empty if it could."""

    file: str
    pages: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    mib: float = 0.0
    error: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    read = commands.add_parser("read", help="read every PDF in a folder")
    read.add_argument("folder", type=Path)
    read.add_argument("results", type=Path)
    read.add_argument("--reader", choices=sorted(READERS), default="ours")
    read.add_argument("--python", default=sys.executable, help="the Python that has the reader")
    read.add_argument("--package", type=Path, help="a checkout whose selfextend_local is read with")
    read.set_defaults(run=lambda a: _read_all(a.folder, a.results, a.reader, a.python, a.package))
    one = commands.add_parser("one", help="read one file and print a line of JSON")
    one.add_argument("reader", choices=sorted(READERS))
    one.add_argument("file", type=Path)
    one.add_argument("--package", type=Path)
    one.set_defaults(run=lambda a: _print_one(a.reader, a.file, a.package))
    compare = commands.add_parser("compare", help="words held against those of the first results")
    compare.add_argument("reference", type=Path)
    compare.add_argument("results", type=Path, nargs="+")
    compare.add_argument("--each", action="store_true", help="a row for each file")
    compare.add_argument("--common", action="store_true", help="only files that all of them read")
    compare.set_defaults(run=lambda a: _compare(a.reference, a.results, a.each, a.common))
    truth = commands.add_parser("truth", help="words held against pages written down by hand")
    truth.add_argument("folder", type=Path)
    truth.add_argument("results", type=Path, nargs="+")
    truth.add_argument("--each", action="store_true", help="a row for each page")
    truth.set_defaults(run=lambda a: _hold_against_truth(a.folder, a.results, a.each))
    arguments = parser.parse_args()
    arguments.run(arguments)


def _read_all(folder: Path, results: Path, reader: str, python: str, package: Path | None) -> None:
    files = sorted(path for path in folder.rglob("*.pdf") if path.is_file())
    with results.open("w") as out:
        for done, file in enumerate(files, start=1):
            row = _read_apart(file, reader, python, package)
            row.file = str(file.relative_to(folder))
            out.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            out.flush()
            print(f"{done}/{len(files)}  {row.seconds:7.2f} s  {row.mib:6.0f} MiB  {row.file}  {row.error}", file=sys.stderr)


def _read_apart(file: Path, reader: str, python: str, package: Path | None) -> Read:
    command = [python, __file__, "one", reader, str(file), *(["--package", str(package)] if package else [])]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        return Read("", error=f"not read in {_LONGEST_S} s")
    lines = ended.stdout.decode().splitlines()
    if ended.returncode or not lines:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        return Read("", error=f"exit {ended.returncode}: {said[-1] if said else ''}"[:200])
    return Read(**json.loads(lines[-1]))


def _print_one(reader: str, file: Path, package: Path | None) -> None:
    if package is not None:
        sys.path.insert(0, str(package))
    load = READERS[reader]()
    before = _seconds()
    row = Read(str(file))
    try:
        load(file, row)
    except Exception as error:  # a reader may raise whatever it likes
        row.error = f"{type(error).__name__}: {error}"[:200]
    row.seconds = round(_seconds() - before, 3)
    row.mib = round(max(resource.getrusage(who).ru_maxrss for who in _WHO) / (2**20 if sys.platform == "darwin" else 1024), 1)
    print(json.dumps(asdict(row)))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
Load = Callable[[Path, Read], None]


def _seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, _WHO))


def _ours() -> Load:
    import numpy  # noqa: F401  (with it imported, what is timed is the file)

    from selfextend_local.documents import load

    def read(path: Path, row: Read) -> None:
        document = load.load_document(path)
        row.pages = [page.text for page in document.pages]
        row.labels = [page.label for page in document.pages]
        row.notes = list(document.notes)

    return read


def _poppler() -> Load:
    def read(path: Path, row: Read) -> None:
        found = subprocess.run(["pdftotext", str(path), "-"], capture_output=True, check=True)
        row.pages = found.stdout.decode(errors="replace").split("\f")[:-1]

    return read


def _pdfium() -> Load:
    import pypdfium2

    def read(path: Path, row: Read) -> None:
        row.pages = [page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(path)]

    return read


def _pdf_oxide() -> Load:
    import pdf_oxide

    def read(path: Path, row: Read) -> None:
        document = pdf_oxide.PdfDocument(str(path))
        row.pages = [document.extract_text(i) for i in range(document.page_count())]

    return read


def _docling_parse() -> Load:
    from docling_core.types.doc.page import TextCellUnit
    from docling_parse.pdf_parser import DoclingPdfParser

    def read(path: Path, row: Read) -> None:
        document = DoclingPdfParser(loglevel="fatal").load(str(path))
        for _, page in document.iterate_pages():
            row.pages.append("\n".join(cell.text for cell in page.iterate_cells(TextCellUnit.LINE)))

    return read


def _pdftext() -> Load:
    from pdftext.extraction import paginated_plain_text_output

    def read(path: Path, row: Read) -> None:
        row.pages = paginated_plain_text_output(str(path), sort=True)

    return read


def _kreuzberg() -> Load:
    import kreuzberg

    def read(path: Path, row: Read) -> None:
        config: Any = kreuzberg.ExtractionConfig(pages=kreuzberg.PageConfig(extract_pages=True))
        found = kreuzberg.extract_file_sync(str(path), config=config)
        row.pages = [page["content"] for page in found.pages or ()] or [found.content]

    return read


READERS: dict[str, Callable[[], Load]] = {
    "ours": _ours,
    "poppler": _poppler,
    "pdfium": _pdfium,
    "pdf_oxide": _pdf_oxide,
    "docling-parse": _docling_parse,
    "pdftext": _pdftext,
    "kreuzberg": _kreuzberg,
}

_DIVIDED = re.compile(r"(?<=\w)[-\u00ad\u2010\ufffe\x02]\s*\n\s*(?=\w)|\u00ad")
_HYPHEN = re.compile(r"(?<=\w)[-\u2010\u2011](?=\w)")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|(?:(?![\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3])\w)+")


def words_of(text: str) -> list[str]:
    """The words of a text without case, accents' forms and hyphens; Chinese and Japanese characters are words."""
    folded = unicodedata.normalize("NFKC", _DIVIDED.sub("", text)).casefold()
    return _WORD.findall(_HYPHEN.sub("", folded))


def in_order(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence (Hyyrö's bit-parallel algorithm)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    free = full
    for word in b:
        hit = free & places.get(word, 0)
        free = ((free + hit) | (free - hit)) & full
    return len(a) - free.bit_count()


def in_common(a: list[str], b: list[str]) -> int:
    """How many words two lists share, in any order."""
    return sum((Counter(a) & Counter(b)).values())


def _rows(results: Path) -> Iterator[Read]:
    with results.open() as lines:
        for line in lines:
            yield Read(**json.loads(line))


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def _compare(reference: Path, results: list[Path], each: bool, common_only: bool) -> None:
    known = {row.file: words_of("\n".join(row.pages)) for row in _rows(reference) if not row.error}
    print("| reader | files | pages | of the reference's words | of its own words | mean of files | with labels | with notes | s | MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    read = {path: [row for row in _rows(path) if not row.error] for path in results}
    common = set.intersection(*({row.file for row in rows} for rows in read.values())) if common_only else set(known)
    for path, found in read.items():
        good = [row for row in found if row.file in common]
        same = {row.file: _shares(known.get(row.file, []), words_of("\n".join(row.pages))) for row in good}
        if each:
            for row in good:
                n, theirs, mine = same[row.file]
                shares = f"{_share(n, theirs)} | {_share(n, mine)} | | {_labelled(row)} | {len(row.notes)}"
                print(f"| {path.stem} {row.file} | | {len(row.pages)} | {shares} | {row.seconds:.2f} | {row.mib:.0f} |")
        n, theirs, mine = (sum(values) for values in zip(*same.values(), strict=True))
        means = [n / theirs for n, theirs, _ in same.values() if theirs]
        mean = sum(means) / max(1, len(means))
        pages, labelled = sum(len(row.pages) for row in good), sum(map(_labelled, good))
        noted, seconds, most = sum(bool(row.notes) for row in good), sum(row.seconds for row in good), max(row.mib for row in good)
        print(
            f"| {path.stem} | {len(good)} of {len(known)} | {pages:,} | {_share(n, theirs)} | {_share(n, mine)} | {mean:.3f} "
            f"| {labelled:,} | {noted} | {seconds:.1f} | {most:.0f} |"
        )


def _shares(theirs: list[str], mine: list[str]) -> tuple[int, int, int]:
    return in_order(theirs, mine), len(theirs), len(mine)


def _labelled(row: Read) -> int:
    """Pages whose label isn't just their place in the file."""
    return sum(label != str(i) for i, label in enumerate(row.labels, start=1))


def _hold_against_truth(folder: Path, results: list[Path], each: bool) -> None:
    print("| reader | pages | likeness | order | rows of tables | median likeness |")
    print("|---|---|---|---|---|---|")
    pages = sorted(folder.glob("*.txt"))
    for path in results:
        found = {Path(row.file).stem: row for row in _rows(path)}
        likeness, order, tables = [], [], []
        for truth in pages:
            name, _, number = truth.stem.partition(".p")
            if name not in found:
                continue
            texts = found[name].pages
            text = texts[int(number) - 1] if number and texts else "\n".join(texts)
            expected = truth.read_text()
            a, b = words_of(expected), words_of(text)
            common = in_order(a, b)
            likeness.append(2 * common / max(1, len(a) + len(b)))
            order.append(common / max(1, in_common(a, b)))
            held = [_holds_row(row, text) for row in expected.splitlines() if row.startswith("|")]
            tables += held
            if each:
                print(f"| {path.stem} {truth.stem} | 1 | {likeness[-1]:.3f} | {order[-1]:.3f} | {sum(held)} of {len(held)} | |")
        n = max(1, len(likeness))
        means = f"{sum(likeness) / n:.3f} | {sum(order) / n:.3f}"
        print(f"| {path.stem} | {len(likeness)} | {means} | {sum(tables)} of {len(tables)} | {median(likeness or [0]):.3f} |")


def _holds_row(row: str, text: str) -> bool:
    """Whether a line of the text is this row of a table, cell after cell."""
    wanted = words_of(row)
    return any(words_of(line) == wanted for line in text.splitlines())


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"({time.monotonic() - started:.0f} s)", file=sys.stderr)
