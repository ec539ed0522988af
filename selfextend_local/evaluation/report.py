"""docs/results.md from the stored results: `python -m selfextend_local.evaluation.report docs/results > docs/results.md`.

Knows JSONL files, summaries and Markdown. Everything that a person wrote is in notes.md beside the results; every figure
comes from a row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .results import Results, Row
from .summary import Group, groups
from .tasks import TASKS

HEADER = """\
# Results

Made by `make results` from the rows in `docs/results/*.jsonl`; don't edit this file. In brackets: 95 % bootstrap interval.
"""


def report(folder: Path) -> str:
    """The whole page. Raises ResultsError if a file in `folder` holds something else."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*.jsonl")):
        rows += Results(path).rows
    notes = folder / "notes.md"
    parts = [HEADER, notes.read_text(encoding="utf-8").strip() + "\n" if notes.is_file() else ""]
    found = groups(rows)
    for model in dict.fromkeys(group.model for group in found):
        parts.append(f"## {model}\n")
        of_model = [group for group in found if group.model == model]
        for task in (name for name in TASKS if any(group.task == name for group in of_model)):
            for name in dict.fromkeys(group.name for group in of_model if group.task == task):
                parts.append(_task([group for group in of_model if group.name == name]))
    return "\n".join(part for part in parts if part)


def _task(held: Sequence[Group]) -> str:
    kind = TASKS[held[0].task]
    devices = sorted({str(device) for group in held for row in group.rows for device in row["made_with"].get("devices", ())})
    lines = [f"### {held[0].name}: {kind.title[0].lower()}{kind.title[1:]}", ""]
    trained = held[0].rows[0]["config"]["trained"]
    texts = sorted({row["config"]["text"] for group in held for row in group.rows if "text" in row["config"]})
    lines.append(f"Trained window {trained:,}. {'Text: ' + ', '.join(texts) + '. ' if texts else ''}Run on: {'; '.join(devices)}.")
    for kv_type in dict.fromkeys(group.kv_type for group in held):
        lines += ["", f"{kv_type} KV cache:", "", *_table([group for group in held if group.kv_type == kv_type])]
    return "\n".join(lines) + "\n"


def _table(held: Sequence[Group]) -> list[str]:
    lengths = sorted({group.length for group in held})
    lines = ["| method | " + " | ".join(f"{length:,}" for length in lengths) + " |", "|---" * (len(lengths) + 1) + "|"]
    for method in dict.fromkeys(group.method for group in held):
        cells = []
        for length in lengths:
            at = [group for group in held if group.method == method and group.length == length]
            cells.append("<br>".join(cell(group) for group in at) or "–")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def cell(group: Group) -> str:
    """Such as "23/24 (88-100 %), n=8 w=1024", "3.071, last eighth 3.029"."""
    e = group.estimate
    ga = f", n={group.ga[0]} w={group.ga[1]}" if group.ga and "auto" in group.method else ""
    if group.task == "ppl":
        last = sum(row["result"]["last_eighth"] for row in group.rows) / len(group.rows)
        return f"{e.mean:.3f}, last eighth {last:.3f}{ga}"
    if group.task == "copy":
        return f"{e.mean:.2f} ({e.low:.2f} to {e.high:.2f}){ga}"
    if group.also is not None:
        second = f"{group.also:.2f} {TASKS[group.task].also}"
        return f"{second}, {round(e.mean * e.count)}/{e.count} ({100 * e.low:.0f}-{100 * e.high:.0f} %){ga}"
    if TASKS[group.task].metric == "exact":
        return f"{round(e.mean * e.count)}/{e.count} ({100 * e.low:.0f}-{100 * e.high:.0f} %){ga}"
    return f"{100 * e.mean:.0f} % ({100 * e.low:.0f}-{100 * e.high:.0f}), {e.count} asked{ga}"


if __name__ == "__main__":
    print(report(Path(sys.argv[1])), end="")
