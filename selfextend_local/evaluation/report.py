"""docs/results.md from the stored results: `python -m selfextend_local.evaluation.report docs/results > docs/results.md`.

Knows JSONL files, summaries and Markdown. Everything that a person wrote is in notes.md beside the results; every figure
comes from a row.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .again import commands_of, flags_of
from .effective import KEPT, MEAN, Effective, effective
from .plots import draw
from .results import Results, Row
from .summary import Group, groups
from .tasks import TASKS
from .verdict import AUTO, BY_HAND, knows_no_prose, standings, verdicts

EXPLAINED = (
    f"The longest length at which a method keeps {100 * KEPT:.0f} % of its own score at the shortest one, in tokens; ≥: the longest",
    "that was measured; made from the tables below, as the next two are. Tasks that a model hardly does at all are left out of",
    "RULER's mean. Inside the window recall and scaled positions are the plain model, whose rows count for them. n and w set by",
    "hand are in the tables below.",
)
_TEMPERATURE = re.compile(r" c=[\d.]+$")
TASKS_OF_LENGTH = {"passkey": "", "facts": "", "babilong": MEAN, "ruler": MEAN}
"""Tasks that have an effective length, and which part of them counts."""

SLIDING = {"Gemma 3 270m": 512}
"""Windows of local layers, which rows don't name, by model."""

FREQUENCIES = {"selfextend-local ruler seed-0": 6.313, "selfextend-local ruler seed-1": 6.313, "Smollm2 135M 8k Lc100K Mix1 Ep2": 6.413}
"""Nats a token of the novel by the frequencies of its own tokens, by model: `docs/results/frequencies.py MODEL TEXT`."""

FLAGS = """\
## The flags of each row

The command above a table asks all its lengths, and these flags one of its rows. `auto` is what the library of those days chose;
its setting stands in the cell, and can be asked by hand. What is tuned was asked after `selfextend tune`. Questions about a novel,
`qaN.jsonl`, are made by `python docs/results/sherlock_qa.py NOVEL.txt N >qaN.jsonl`, `qa0.jsonl` by `… NOVEL.txt 1 22000`. Some rows
are older than a question: of their data sets, which rows name by a hash, `git show 299e517:docs/results/sherlock_qa.py` makes
`qa1.jsonl`, `qa2.jsonl` and `qa4.jsonl`, and `git show 4a5d8b1:docs/results/sherlock_qa.py` `sherlock-qa.jsonl`. On a GPU
`--gpu-layers -1` and `LLAMA_CPP_LIB_PATH` belong to it. Cells that weren't asked in all places say how many were asked; the earliest
pass keys stood at the ends of the text, too, where `--depths` puts none now. Everything at once: `docs/results/campaign.py` and
`docs/results/run_on_gpu.sh`.
"""

HEADER = """\
# Results

Made by `make results` from the rows in `docs/results/*.jsonl`; don't edit this file. In brackets: 95 % bootstrap interval.
"""


def report(folder: Path) -> str:
    """The whole page. Raises ResultsError if a file in `folder` holds something else."""
    rows = stored(folder)
    notes = folder / "notes.md"
    parts = [HEADER, notes.read_text(encoding="utf-8").strip() + "\n" if notes.is_file() else ""]
    found = groups(rows)
    parts += [_effective(found), _verdicts(rows), _standings(rows), _promises(folder / "promises.json")]
    for model in dict.fromkeys(group.model for group in found):
        parts.append(f"## {model}\n")
        of_model = [group for group in found if group.model == model]
        for task in (name for name in TASKS if any(group.task == name for group in of_model)):
            for name in dict.fromkeys(group.name for group in of_model if group.task == task):
                parts.append(_task([group for group in of_model if group.name == name]))
    parts.append(_flags(found))
    return "\n".join(part for part in parts if part)


def stored(folder: Path) -> list[Row]:
    """The rows of all files; what several files have counts once. Raises ResultsError."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = {row["key"]: row for row in Results(path).rows} | rows
    return list(rows.values())


def _effective(found: Sequence[Group]) -> str:
    """The effective length of each method, by model and task."""
    lines = ["## Up to which length", "", *EXPLAINED]
    for model in dict.fromkeys(group.model for group in found):
        held = [g for g in _with_plain([g for g in found if (g.model, g.kv_type) == (model, "f16")]) if not BY_HAND.search(g.method)]
        tables = {task: _rows_of([g for g in held if g.task == task], part) for task, part in TASKS_OF_LENGTH.items()}
        tables = {task: rows for task, rows in tables.items() if rows}
        if tables:
            named = (f"{task}, from {_base(rows)}" for task, rows in tables.items())
            lines += ["", f"**{model}**", "", f"| method | {' | '.join(named)} |", "|---" * (len(tables) + 1) + "|"]
        for method in dict.fromkeys(method for rows in tables.values() for method in rows):
            lines.append(f"| {method} | {' | '.join(_length(rows.get(method)) for rows in tables.values())} |")
    return "\n".join(lines) + "\n"


def _rows_of(held: Sequence[Group], part: str) -> dict[str, Effective]:
    """By method, of one task: those that were measured from the shortest length on and beyond it."""
    if len({g.length for g in held}) < 3:
        return {}
    shortest = min(g.length for g in held)
    made = {row.method: row for row in effective(held).rows if row.part == part}
    return {method: row for method, row in made.items() if shortest in row.scores and len(row.scores) > 1}


def _base(rows: Mapping[str, Effective]) -> str:
    scores = next(iter(rows.values())).scores
    return f"{100 * scores[min(scores)].mean:.0f} % at {min(scores):,}"


def _with_plain(held: Sequence[Group]) -> list[Group]:
    """With the rows that methods share inside the window: there recall and scaled positions are the plain model, and a temperature is 1."""
    made = {(g.task, g.method, g.part, g.length): g for g in held}
    for method in dict.fromkeys(g.method for g in held):
        usual = _TEMPERATURE.sub("", method)
        same = "plain" if usual.startswith(("recall", "yarn", "ntk", "linear")) else usual
        for g in held:
            if g.method == same and g.length <= g.rows[0]["config"]["trained"]:
                made.setdefault((g.task, method, g.part, g.length), replace(g, method=method))
    return list(made.values())


def _length(row: Effective | None) -> str:
    if row is None:
        return "–"
    return "none" if row.length is None else f"{'≥ ' if row.beyond else ''}{row.length:,}"


def _verdicts(rows: Sequence[Row]) -> str:
    """The automatic choice against the best fixed method at each length, on the same items."""
    made = list(verdicts(rows, SLIDING, FREQUENCIES))
    counts = {word: sum(v.word == word for v in made) for word in ("better", "as good", "worse")}
    lines = ["## The automatic choice against the best fixed method", ""]
    lines.append(
        f"Over {len(made)} cells of a model, a task and a length: better in {counts['better']}, as good within the 95 % interval in "
        f"{counts['as good']}, worse in {counts['worse']}. The fixed method is the one that does best on the items that both were asked."
    )
    silent = [f"{model} ({nats:.2f} nats)" for model, nats in FREQUENCIES.items() if knows_no_prose(rows, model, FREQUENCIES)]
    if silent:
        named = ", ".join(silent)
        lines.append(f"The likelihood of models that predict the novel no better than the frequencies of its tokens is left out: {named}.")
    lines += [
        "",
        "| model | task | tokens | auto reads with | auto | best fixed | its score | difference (95 %) | auto is |",
        "|---" * 9 + "|",
    ]
    for v in made:
        a, b = (f"{x:.3f}" if v.task in ("ppl", "copy") else f"{100 * x:.0f} %" for x in (v.score, v.other_score))
        spread = f"{v.low:+.3f} to {v.high:+.3f}, {v.count}"
        word = f"**{v.word}**" if v.word == "worse" else v.word
        lines.append(f"| {v.model} | {v.task} | {v.length:,} | {v.setting} | {a} | {v.other} | {b} | {spread} | {word} |")
    return "\n".join(lines) + "\n"


def _standings(rows: Sequence[Row]) -> str:
    """The worst rank over all tasks, of the automatic choice and of each fixed method that was asked the same."""
    made = list(standings(rows, SLIDING, FREQUENCIES))
    lines = ["## The worst rank over all tasks", ""]
    lines.append(
        "At one length, over all tasks that the automatic choice was asked: 1 and one more for each method that is better beyond the "
        "95 % interval, and the task in which that is. Methods that weren't asked all of them are missing."
    )
    lines += ["", "| model | tokens | tasks | auto | fixed methods |", "|---" * 5 + "|"]
    for model, length in dict.fromkeys((s.model, s.length) for s in made):
        at = {s.method: s for s in made if (s.model, s.length) == (model, length)}
        if AUTO in at:
            auto = at.pop(AUTO)
            others = ", ".join(f"{s.method} {s.rank} ({s.task})" for s in sorted(at.values(), key=lambda s: s.rank))
            lines.append(f"| {model} | {length:,} | {auto.tasks} | {auto.rank} ({auto.task}) | {others or '–'} |")
    return "\n".join(lines) + "\n"


def _promises(path: Path) -> str:
    """What tune promised, and what fresh texts gave then: one object a tuning."""
    if not path.is_file():
        return ""
    lines = ["## What tune promises, and what it does then", ""]
    lines += [
        "`selfextend tune --target-tokens N --text NOVEL --budget-minutes M --dry-run --json`, then its choice on texts of other",
        "seeds (`selfextend eval planted --text NOVEL --lengths N --keys K --facts F --methods selfextend --seed S`, S from 7 on; a",
        "choice that isn't the automatic one is kept first, without `--dry-run`): keys and facts said, K and F of each text, 95 %",
        "interval. The promise is measured on texts that the choice never saw. Where few were asked, what is promised is the interval.",
        "15 minutes: three calls of 5, each of which went on where the one before had ended. Tried: settings that were asked, of those",
        "that there are, plain and YaRN only for comparison; attention temperature joins when all others were asked.",
        "Rows of 8 facts are older than the ten forms that facts have now: they were asked in five.",
        "",
        "| model, tokens | on | minutes | tried | K and F | chosen | its score when chosen | promise | fresh texts | difference "
        "| in the interval |",
        "|---" * 11 + "|",
    ]
    for made in json.loads(path.read_text(encoding="utf-8")):
        (low, high), asked, (keys, facts) = made["interval"], made["asked"], made["planted"]
        tried = f"{made['tried']} of {made['tried'] + made['untried']}" if "tried" in made else "–"
        chosen = f"{made['setting']}{' (the automatic choice)' if made['automatic'] else ''}"
        promise = f"{100 * made['promise']:.0f} % ({100 * low:.0f}-{100 * high:.0f}), {asked} asked"
        fresh = f"{100 * made['fresh']:.0f} %, {made['fresh_asked']} asked"
        lines.append(
            f"| {made['model']}, {made['tokens']:,} | {made['on']} | {made['minutes']:g} | {tried} | "
            f"{keys}, {facts} | {chosen} | {100 * made['won_by']:.0f} % | {promise} | "
            f"{fresh} | {100 * (made['fresh'] - made['promise']):+.1f} | {'yes' if low <= made['fresh'] <= high else '**no**'} |"
        )
    return "\n".join(lines) + "\n"


def _task(held: Sequence[Group]) -> str:
    kind = TASKS[held[0].task]
    devices = sorted({str(device) for group in held for row in group.rows for device in row["made_with"].get("devices", ())})
    lines = [f"### {held[0].name}: {kind.title[0].lower()}{kind.title[1:]}", ""]
    trained = held[0].rows[0]["config"]["trained"]
    texts = sorted({row["config"]["text"] for group in held for row in group.rows if "text" in row["config"]})
    lines.append(f"Trained window {trained:,}. {'Text: ' + ', '.join(texts) + '. ' if texts else ''}Run on: {'; '.join(devices)}.")
    for kv_type in dict.fromkeys(group.kv_type for group in held):
        of_type = [group for group in held if group.kv_type == kv_type]
        asked = " and ".join(f"`{command}`" for command in commands_of([row for group in of_type for row in group.rows]))
        lines += ["", f"{kv_type} KV cache, {asked}:", "", *_table(of_type)]
    return "\n".join(lines) + "\n"


def _flags(found: Sequence[Group]) -> str:
    """How each row of the tables is asked."""
    lines = [FLAGS, "| row | flags |", "|---|---|"]
    lines += [f"| {method} | `{flags_of(method)}` |" for method in sorted({group.method for group in found})]
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
    ga = f", {group.setting}" if group.ga and "auto" in group.method else ""
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


def plot(folder: Path, target: Path) -> None:
    """RULER's mean of both ruler models by length and method."""
    both = [row for row in stored(folder) if row["config"]["task"] == "ruler" and "ruler seed" in row["config"]["model"]]
    merged = [{**row, "config": {**row["config"], "model": "Two ruler models, trained window 1,024"}} for row in both]
    draw([group for group in groups(merged) if group.method != "plain"], target)


if __name__ == "__main__":
    print(report(Path(sys.argv[1])), end="")
    if len(sys.argv) > 2:
        plot(Path(sys.argv[1]), Path(sys.argv[2]))
