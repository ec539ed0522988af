"""What the automatic choice is worth: its score against that of each fixed method, on the same items.

The automatic choice of today is looked up among the rows by what it would read with, so a row counts whatever its method was called.
Fixed are the methods that a user can name without figures; n and w set by hand are what `selfextend tune` is for.

Knows rows, methods and numpy. It knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfextend_local.positions import GroupAttention

from .methods import Method, Rotary
from .results import Row
from .runner import described
from .tasks import TASKS

LEAST_ITEMS = 8
RESAMPLES = 2000
BY_HAND = re.compile(r" [nw]=|tuned|not announced")


@dataclass(frozen=True)
class Verdict:
    """The automatic choice at one length against the fixed method that does best there: means over the items that both have, and
    the 95 % interval of their difference (above 0: the automatic choice is better)."""

    model: str
    task: str
    length: int
    setting: str
    score: float
    other: str
    other_score: float
    low: float
    high: float
    count: int

    @property
    def word(self) -> str:
        """better, as good, or worse."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "as good"


@dataclass(frozen=True)
class Standing:
    """A method at one length over all tasks that the automatic choice was asked there: its worst rank, in which task, of how many tasks.
    The rank is 1 and one more for each method that is better beyond the 95 % interval."""

    model: str
    length: int
    method: str
    rank: int
    task: str
    tasks: int


AUTO = "auto"


def verdicts(rows: Sequence[Row], sliding: Mapping[str, int], chance: Mapping[str, float] | None = None) -> Iterator[Verdict]:
    """For each model, task and length that has rows of the automatic choice. `sliding`: windows of local layers, by model; `chance`: nats
    a token of the frequencies of tokens alone, by model."""
    for (model, task, length), (ga, ours, others) in _asked(rows, sliding, chance or {}).items():
        found = [_compared(ours, name, values) for name, values in others.items() if values != ours]
        best = min((made for made in found if made), key=lambda made: made[1], default=None)
        if best:
            name, _, score, other, low, high, count = best
            yield Verdict(model, task, length, ga.label, score, name, other, low, high, count)


def standings(rows: Sequence[Row], sliding: Mapping[str, int], chance: Mapping[str, float] | None = None) -> Iterator[Standing]:
    """Of the automatic choice and of each fixed method that was asked the same tasks, where there are at least two."""
    at: dict[tuple[str, int], dict[str, dict[str, dict[Any, float]]]] = {}
    for (model, task, length), (_, ours, others) in _asked(rows, sliding, chance or {}).items():
        at.setdefault((model, length), {})[task] = {**{name: values for name, values in others.items() if values != ours}, AUTO: ours}
    for (model, length), tasks in at.items():
        if len(tasks) < 2:
            continue
        ranks = {task: _ranks(held) for task, held in tasks.items()}
        # What auto reads with is a fixed method too, and has its rank; others need rows of every task.
        for method in dict.fromkeys(name for held in ranks.values() for name in held):
            if all(method in held for held in ranks.values()):
                task, rank = max(((task, held[method]) for task, held in ranks.items()), key=lambda pair: pair[1])
                yield Standing(model, length, method, rank, task, len(tasks))


def _ranks(held: Mapping[str, Mapping[Any, float]]) -> dict[str, int]:
    def behind(name: str, other: str) -> bool | None:
        made = _compared(held[name], other, held[other])
        return made and made[5] < 0

    asked = {name: [behind(name, other) for other in held if other != name] for name in held}
    compared = {name: [one for one in found if one is not None] for name, found in asked.items()}
    return {name: 1 + sum(found) for name, found in compared.items() if found or len(held) == 1}


_Asked = tuple[GroupAttention, dict[Any, float], dict[str, dict[Any, float]]]


def _asked(rows: Sequence[Row], sliding: Mapping[str, int], chance: Mapping[str, float]) -> dict[tuple[str, str, int], _Asked]:
    """By model, task and length: what the automatic choice reads with, its values, and those of each fixed method."""
    at: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        c = row["config"]
        if c["kv_type"] == "f16" and c.get("introduction") is not False and not c.get("window"):
            at.setdefault((c["model"], c["task"], c["length"]), []).append(row)
    found = {}
    for (model, task, length), held in sorted(at.items()):
        if task == "ppl" and knows_no_prose(rows, model, chance):
            continue
        rotary = Rotary(held[0]["config"]["trained"], 10_000.0, 64, sliding_window=sliding.get(model, 0))
        ga = Method("selfextend").setup(length, rotary).group_attention
        read = described(ga) if ga.enabled else None
        ours = _values(task, [row for row in held if _reads_so(row, read)])
        names = dict.fromkeys(row["config"]["method"] for row in held)
        others = {
            name: _values(task, [row for row in held if row["config"]["method"] == name]) for name in names if not BY_HAND.search(name)
        }
        found[model, task, length] = (ga, ours, others)
    return found


def knows_no_prose(rows: Sequence[Row], model: str, chance: Mapping[str, float]) -> bool:
    """Whether a model inside its window, plain, predicts a text no better than the frequencies of its tokens: then its likelihood
    doesn't tell methods apart."""
    inside = [
        row["result"]["nll"]
        for row in rows
        if (c := row["config"])["task"] == "ppl" and c["model"] == model and c["method"] == "plain" and c["length"] <= c["trained"]
    ]
    return bool(inside) and min(inside) >= chance.get(model, float("inf"))


def _reads_so(row: Row, read: list[int | str] | None) -> bool:
    c = row["config"]
    return c["ga"] == read and not c.get("ga_temperature") and not c["context"] and not c["method"].startswith("upstream")


def _values(task: str, rows: Sequence[Row]) -> dict[Any, float]:
    """What counts of each item, more being better."""
    sign = 1.0 if TASKS[task].more_is_better else -1.0
    if task == "ppl":
        return {(row["config"]["input"], i): sign * nats for row in rows for i, nats in enumerate(row["result"]["blocks"])}
    labels = ("input", "part", "sample", "depth", "repeat")
    return {tuple(row["config"].get(label) for label in labels): sign * row["result"][TASKS[task].metric] for row in rows}


def _compared(
    ours: Mapping[Any, float], name: str, theirs: Mapping[Any, float]
) -> tuple[str, float, float, float, float, float, int] | None:
    shared = [item for item in ours if item in theirs]
    if len(shared) < LEAST_ITEMS:
        return None
    a, b = (np.array([values[item] for item in shared]) for values in (ours, theirs))
    picks = np.random.default_rng(0).integers(0, len(shared), (RESAMPLES, len(shared)))
    low, high = np.percentile((a - b)[picks].mean(axis=1), [2.5, 97.5])
    return name, float((a - b).mean()), float(abs(a.mean())), float(abs(b.mean())), float(low), float(high), len(shared)
