"""Items x methods -> rows: what is done is skipped, what is new is on the disk before the next begins.

Knows tasks, methods and results, and asks whoever opens readers. It knows no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selfextend_local.engine.cuts import common_prefix
from selfextend_local.errors import Interrupted
from selfextend_local.positions import GroupAttention

from .items import Item, Reader
from .methods import Method, Rotary, Setup
from .prompting import Tokenizer
from .results import Results, Row
from .tasks import Task

Progress = Callable[[int, int], None]
"""Called with (tokens read, tokens in all)."""


class ReaderWithProgress(Reader, Protocol):
    """A reader that tells how far it is in the present text."""

    progress: Callable[[int], None]


class Readers(Protocol):
    """Whoever opens readers: model_reader.ModelReaders, or a stand-in."""

    def reader(self, setup: Setup, n_ctx: int) -> ReaderWithProgress:
        """A reader under `setup` with room for `n_ctx` tokens."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated. `record` (name, size, hash, cache type) goes into each configuration."""

    tokenizer: Tokenizer
    rotary: Rotary
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One item under one method: `config` is all that its result depends on."""

    config: Mapping[str, Any]
    item: Item
    setup: Setup


def cells(task: Task, subject: Subject, methods: Sequence[Method], lengths: Sequence[int]) -> list[Cell]:
    """All cells, method by method, so that each is loaded once. Raises TaskError, GroupAttentionError."""
    items = {length: task.items(subject.tokenizer, length) for length in lengths}
    return [
        Cell(_config(task, subject, method, setup, length, item), item, setup)
        for method in methods
        for length in lengths
        for setup in [method.setup(length, subject.rotary)]
        for item in items[length]
    ]


def _config(task: Task, subject: Subject, method: Method, setup: Setup, length: int, item: Item) -> dict[str, Any]:
    ga = setup.group_attention
    return {
        "task": task.name,
        **subject.record,
        "method": method.label_for(subject.rotary),
        "ga": described(ga) if ga.enabled else None,
        **({"ga_temperature": setup.temperature} if setup.temperature else {}),
        "context": dict(setup.context),
        "length": length,
        **task.config(),
        **item.labels,
        "input": item.fingerprint,
    }


def described(ga: GroupAttention) -> list[int | str]:
    """n, w, r, and for progressive groups that word with w and r of each farther level; recall: that word, the tokens fetched, w, r."""
    if ga.recall:
        return ["recall", ga.recall, ga.w, ga.r]
    two_level: list[int | str] = [ga.n, ga.w, ga.r]
    farther = [size for level in ga.levels[1:] for size in (level.w, level.r)]
    return [*two_level, "progressive", *farther] if ga.progressive else two_level


def run(
    planned: Sequence[Cell],
    results: Results,
    readers: Readers,
    *,
    made_with: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    finished: Callable[[Row], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """The rows of all cells, old and new, in their order. Raises Interrupted; what is finished stays finished."""
    shared = _shared([cell for cell in planned if results.get(cell.config) is None])
    total = sum(cell.item.cost - shared[id(cell)] for cell in planned if id(cell) in shared)
    done = furthest = 0

    def advance(place: int) -> None:
        # Going back for an answer isn't a beginning: the time left would be that of reading token by token.
        nonlocal furthest
        furthest = max(furthest, place)
        progress(furthest, total)

    rows = []
    for index, cell in enumerate(planned):
        row = results.get(cell.config)
        if row is None:
            if should_stop():
                raise Interrupted("Stopped; the results so far are kept.", done)
            reader = readers.reader(cell.setup, _room(planned[index:], cell))
            known = shared[id(cell)]
            before, cost = done, cell.item.cost - known
            reader.progress = lambda read, from_=before - known, to=before + cost: advance(min(from_ + read, to))  # type: ignore[misc]
            started = time.perf_counter()
            result = cell.item.perform(reader)
            seconds = round(time.perf_counter() - started, 3)
            row = results.add(cell.config, result, seconds=seconds, made_with=dict(made_with or {}))
            done += cost
            advance(done)
            finished(row)
        rows.append(row)
    return rows


def _shared(planned: Sequence[Cell]) -> dict[int, int]:
    """By id: so many tokens of each of these cells, in this order, are there since the one before read them."""
    found = {}
    for before, cell in zip([None, *planned], planned, strict=False):
        found[id(cell)] = common_prefix(before.item.begins, cell.item.begins) if before and before.setup == cell.setup else 0
    return found


def _room(planned: Sequence[Cell], first: Cell) -> int:
    """Tokens for this cell and all later ones that share its context parameters."""
    return max(cell.item.room for cell in planned if cell.setup.context == first.setup.context) + 1
