"""Results for people: a Markdown file for each document, or one table of all as CSV or Markdown.

Knows file names and layouts. Files appear whole or not at all.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from selfextend_local.batch.outcome import Failure, Result
from selfextend_local.documents.sections import page_names
from selfextend_local.errors import BatchError
from selfextend_local.storage.disk import replacing
from selfextend_local.summarize import Summary

Table = Literal["csv", "md"]

COLUMNS = (
    *("custom_id", "title", "summary", "how", "pages", "prompt_tokens", "completion_tokens"),
    *("ga_n", "ga_w", "ga_mode", "seconds", "error"),
)


def write_markdown(folder: Path, result: Result) -> Path:
    """The file of a summary in `folder`, replaced if it exists. Raises BatchError."""
    path = folder / markdown_name(result.custom_id)
    _write(path, f"# {result.title or result.custom_id}\n\n{_body(result.summary)}\n\n<!-- {result.custom_id} -->\n")
    return path


def markdown_name(custom_id: str) -> str:
    """A file name of its own for each id, that stays in its folder: `a/b.pdf` gives `a_b.pdf.md`."""
    plain = re.sub(r"[^\w.\- ]+", "_", custom_id).strip("._ ") or "item"
    if plain == custom_id and len(plain) <= 120:
        return f"{plain}.md"
    digest = hashlib.sha256(custom_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain[-120:]}-{digest[:8]}.md"


def _body(summary: Summary) -> str:
    text = summary.text
    if summary.how == "whole":
        return text
    notes = [f"**{page_names(part.first, part.last) or f'Part {i}'}**: {part.text}" for i, part in enumerate(summary.parts, start=1)]
    return "\n\n".join([text, "## By part", *notes])


def write_table(path: Path, results: Iterable[Result], form: Table) -> None:
    """All results as one table. Raises BatchError."""
    _write(path, as_table(results, form))


def as_table(results: Iterable[Result], form: Table) -> str:
    """The table as text."""
    rows = [_row(result) for result in results]
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *([_no_formula(cell) for cell in row] for row in rows)])
        return out.getvalue()
    lines = ["| document | summary |", "| --- | --- |"]
    lines += [f"| {_cell(row[1] or row[0])} | {_cell(row[2]) or f'**failed**: {_cell(row[-1])}'} |" for row in rows]
    return "\n".join(lines) + "\n"


def _no_formula(cell: str) -> str:
    # Spreadsheets carry out what begins so, and a document or a model may have written it; the quote makes it text.
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _row(result: Result) -> list[str]:
    outcome = result.outcome
    if isinstance(outcome, Failure):
        return [result.custom_id, *[""] * (len(COLUMNS) - 3), f"{result.seconds:.1f}", f"{outcome.code}: {outcome.message}"]
    usage = outcome.usage
    figures = [outcome.pages, usage.prompt_tokens, usage.completion_tokens, outcome.ga_n, outcome.ga_w, outcome.ga_mode]
    return [result.custom_id, result.title, outcome.text, outcome.how, *map(str, figures), f"{result.seconds:.1f}", ""]


def _cell(text: str) -> str:
    return "<br>".join(text.replace("|", "\\|").split("\n")).strip()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, 0o666) as fresh:
            fresh.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise BatchError(f"{path} can't be written ({error.strerror}): make room or choose another place, and run again.") from error
