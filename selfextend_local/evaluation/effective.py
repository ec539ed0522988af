"""Effective length: up to which length does a model keep what it can do at its shortest length, by task and method?

The longest length at which, as at all shorter ones, the mean score is at least 85 % of the score at the shortest length.
RULER holds models against one fixed score instead (arXiv:2404.06654); a share of the model's own score tells methods of
context extension apart on small models too. Tasks that a model can't do at the shortest length (below 30 %) say nothing about
length and are left out of the mean.

Knows summaries. It knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .summary import Estimate, Group
from .tasks import TASKS

KEPT = 0.85
BASE = 0.30
MEAN = "mean"


@dataclass(frozen=True)
class Effective:
    """One row: `scores` by length, and the effective length, None where even the shortest one has no score.

    `beyond`: the score still holds at the longest length that was measured, so the true length may be greater.
    """

    task: str
    part: str
    method: str
    kv_type: str
    model: str
    scores: Mapping[int, Estimate]
    length: int | None
    beyond: bool

    def as_json(self) -> dict[str, object]:
        return {
            "task": self.task, "part": self.part, "method": self.method, "kv_type": self.kv_type, "model": self.model,
            "scores": {str(n): [round(e.mean, 4), round(e.low, 4), round(e.high, 4)] for n, e in self.scores.items()},
            "effective_length": self.length, "at_least": self.beyond,
        }


@dataclass(frozen=True)
class Table:
    """The rows of one task, the means over its parts last, and the parts left out of them with their scores at the shortest length."""

    rows: tuple[Effective, ...]
    left_out: Mapping[str, float]


def measured(task: str) -> bool:
    """Whether a task has scores from 0 to 1, more being better."""
    return TASKS[task].more_is_better and TASKS[task].metric != "gain"


def effective(found: Sequence[Group]) -> Table:
    """From the groups of one task, one model and one cache type."""
    by: dict[tuple[str, str], dict[int, Group]] = {}
    for group in found:
        # Automatic settings may differ with the length: one row all the same.
        by.setdefault((group.part, group.method), {})[group.length] = group
    shortest = min(group.length for group in found)
    bases = {part: max((at[shortest].estimate.mean for (p, _), at in by.items() if p == part and shortest in at), default=0.0)
             for part in dict.fromkeys(part for part, _ in by)}
    left_out = {part: base for part, base in bases.items() if base < BASE}
    rows = [_row(found[0], part, method, {n: at[n].estimate for n in sorted(at)}, shortest) for (part, method), at in by.items()]
    kept = [part for part in bases if part not in left_out]
    if len(bases) > 1 and kept:
        for method in dict.fromkeys(method for _, method in by):
            held = [by[part, method] for part in kept if (part, method) in by]
            lengths = sorted(set.intersection(*(set(at) for at in held))) if len(held) == len(kept) else []
            if shortest in lengths:
                rows.append(_row(found[0], MEAN, method, {n: _mean([at[n] for at in held]) for n in lengths}, shortest))
    return Table(tuple(rows), left_out)


def _mean(held: Sequence[Group]) -> Estimate:
    """The mean over parts, each weighing the same; the interval is that of resampling within the parts."""
    metric = TASKS[held[0].task].metric
    rng = np.random.default_rng(0)
    values = [np.array([row["result"][metric] for row in group.rows]) for group in held]
    draws = np.mean([v[rng.integers(0, len(v), (2000, len(v)))].mean(axis=1) for v in values], axis=0)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(np.mean([v.mean() for v in values])), float(low), float(high), sum(map(len, values)))


def _row(group: Group, part: str, method: str, scores: Mapping[int, Estimate], shortest: int) -> Effective:
    base = scores[shortest].mean if shortest in scores else 0.0
    length = None
    for n, estimate in scores.items():
        if base <= 0 or estimate.mean < KEPT * base:
            break
        length = n
    return Effective(group.task, part, method, group.kv_type, group.model, scores, length, length == max(scores))
