"""Rows -> means with 95 % bootstrap intervals, by method and length.

Knows rows and numpy. It knows no terminal and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .results import Row
from .tasks import TASKS

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Percentile bootstrap of the mean (Efron 1979). One value has no interval: its bounds are the value."""
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    low, high = np.percentile(data[draws].mean(axis=1), [2.5, 97.5])
    return Estimate(float(data.mean()), float(low), float(high), len(data))


@dataclass(frozen=True)
class Group:
    """The rows of one method at one length, and the estimate of the task's metric."""

    task: str
    model: str
    kv_type: str
    method: str
    length: int
    ga: tuple[Any, ...] | None
    estimate: Estimate
    rows: tuple[Row, ...]
    part: str = ""
    """Of a task with several: one of RULER's, of BABILong's."""

    @property
    def name(self) -> str:
        """The task, with its part if it has several."""
        return f"{self.task} {self.part}" if self.part else self.task

    @property
    def setting(self) -> str:
        """Such as "n=8 w=1024", "recall 2048 w=1024", or nothing."""
        if not self.ga:
            return ""
        return f"recall {self.ga[1]} w={self.ga[2]}" if self.ga[0] == "recall" else f"n={self.ga[0]} w={self.ga[1]}"

    @property
    def also(self) -> float | None:
        """The mean of the task's second metric, if it has one."""
        name = TASKS[self.task].also
        return float(np.mean([row["result"][name] for row in self.rows])) if name else None

    def as_json(self) -> dict[str, Any]:
        e = self.estimate
        second = {} if self.also is None else {TASKS[self.task].also: round(self.also, 5)}
        return {
            "task": self.task,
            **({"part": self.part} if self.part else {}),
            "model": self.model,
            "kv_type": self.kv_type,
            "method": self.method,
            "length": self.length,
            "ga": self.ga,
            "metric": TASKS[self.task].metric,
            "mean": round(e.mean, 5),
            "low": round(e.low, 5),
            "high": round(e.high, 5),
            "count": e.count,
            **second,
        }


def groups(rows: Sequence[Row]) -> list[Group]:
    """In the order in which the rows come, by task and its part, model, cache type, method and length."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        c = row["config"]
        method = c["method"] + _variant(c)
        key = (c["task"], c.get("part", ""), c["model"], c["kv_type"], method, c["length"], tuple(c["ga"]) if c["ga"] else None)
        found.setdefault(key, []).append(row)
    return [
        Group(task, model, kv_type, method, length, ga, _estimate(task, held), tuple(held), part)
        for (task, part, model, kv_type, method, length, ga), held in found.items()
    ]


def _variant(config: dict[str, Any]) -> str:
    """What else sets rows of one method apart: a sliding window, pass keys that aren't announced."""
    sliding = f", window {config['window']:,}" if config.get("window") else ""
    return sliding + (", not announced" if config.get("introduction") is False else "")


def _estimate(task: str, rows: Sequence[Row]) -> Estimate:
    metric = TASKS[task].metric
    if task == "ppl":
        # One reading: its blocks stand for the spread, its mean for itself.
        blocks = bootstrap([value for row in rows for value in row["result"]["blocks"]])
        mean = float(np.mean([row["result"][metric] for row in rows]))
        return Estimate(mean, blocks.low, blocks.high, len(rows))
    return bootstrap([row["result"][metric] for row in rows])


def by_label(rows: Sequence[Row], label: str, metric: str) -> dict[Any, float]:
    """The mean of `metric` for each value of a label, in order of the values."""
    held: dict[Any, list[float]] = {}
    for row in rows:
        held.setdefault(row["config"].get(label), []).append(row["result"][metric])
    return {value: float(np.mean(held[value])) for value in sorted(held, key=_sortable)}


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value)

