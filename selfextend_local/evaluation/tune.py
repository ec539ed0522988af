"""Finds the part of the window that a model uses well, and the (n, w) for a target length, within a budget of time.

First inside the trained window, with the plain model, on texts that get longer until it fails: that gives the fraction.
Then at the target, with the smallest groups whose rotations stay inside that part: the first that finds everything wins.
Pass keys decide; where a model is too weak to name them, the gain of a repeated passage does.

Knows tasks, the runner and positions. It knows no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from selfextend_local.errors import SelfExtendError
from selfextend_local.evaluation.tasks.copying import Copying
from selfextend_local.evaluation.tasks.passkey import Passkey
from selfextend_local.positions import MAX_GROUP_SIZE, GroupAttention, default_neighbours, fixed, rounded_neighbours, step_for

from .items import TaskError
from .methods import Method, Rotary
from .results import Results, Row
from .runner import Cell, Readers, Subject, cells, run
from .tasks import TASKS, Task
from .texts import random_words

SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1.0)
"""Lengths of the first stage, as shares of the trained window."""

DEPTHS_INSIDE, DEPTHS_AT_TARGET = 4, 8
GOOD = 0.99
"""Share of the keys that a setting has to find."""

COPIES_AS_WELL = 0.5
"""A repeated passage counts as found if it gains this share of what it gains in the shortest text."""

_CANDIDATES = 4
_SMALLER, _LEAST_SHARE = 0.75, 1 / 32


class TuneError(SelfExtendError):
    """The model can't be tuned: nothing that it does inside its window can be measured."""


@dataclass(frozen=True)
class Trial:
    """One setting at one length: how many of the items asked were found, in which time."""

    stage: str
    ga: GroupAttention
    length: int
    found: int
    asked: int
    planned: int
    seconds: float
    window: int
    temperature: float = 0.0

    @property
    def setting(self) -> str:
        """In words."""
        return setting_in_words(self.ga, self.temperature)

    @property
    def passed(self) -> bool:
        return self.asked == self.planned and self.found >= GOOD * self.asked

    @property
    def share(self) -> float:
        """The largest rotation as a share of the trained window."""
        return self.ga.largest_rotation(self.length) / self.window


@dataclass(frozen=True)
class Tuning:
    """What came of it. `verified`: `ga` found every item at the target."""

    fraction: float
    ga: GroupAttention
    verified: bool
    trials: tuple[Trial, ...]
    reason: str
    temperature: float = 0.0

    @property
    def setting(self) -> str:
        """In words."""
        return setting_in_words(self.ga, self.temperature)


def setting_in_words(ga: GroupAttention, temperature: float) -> str:
    """Such as "n=8, w=1024, c=0.3", or "plain"."""
    return (ga.label if ga.enabled else "plain") + (f", c={temperature:g}" if temperature else "")


class _OutOfTime(Exception):
    pass


@dataclass
class _Probe:
    """A task whose items are found or not."""

    subject: Subject
    readers: Readers
    results: Results
    deadline: float
    report: Callable[[Trial], None]
    progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]
    copying: bool = False
    reference_gain: float = 0.0
    speed: float = 0.0
    trials: tuple[Trial, ...] = ()

    def task(self, length: int, depths: int) -> Task:
        if self.copying:
            return Copying(random_words(2 * length), depths)
        return Passkey(depths=depths)

    def value(self, row: Row) -> float:
        return float(row["result"][TASKS["copy" if self.copying else "passkey"].metric])

    def found(self, row: Row) -> bool:
        return self.value(row) >= COPIES_AS_WELL * self.reference_gain if self.copying else self.value(row) > 0.5

    def trial(self, stage: str, method: Method, length: int, depths: int, give_up: int) -> Trial:
        """Ask item by item; stop after `give_up` misses. Raises _OutOfTime before an item that the budget can't pay."""
        planned = cells(self.task(length, depths), self.subject, [method], [length])
        started = time.monotonic()
        found = asked = 0
        for cell in planned:
            row = self._row(cell)
            asked += 1
            found += self.found(row)
            if asked - found >= give_up:
                break
        seconds = time.monotonic() - started
        ga = planned[0].setup.group_attention
        trial = Trial(stage, ga, length, found, asked, len(planned), seconds, self.subject.rotary.window, planned[0].setup.temperature)
        self.trials += (trial,)
        self.report(trial)
        return trial

    def _row(self, cell: Cell) -> Row:
        known = self.results.get(cell.config)
        if known is not None:
            return known
        now = time.monotonic()
        # The speed of the item before is a fair guess; what shares a prefix is faster.
        if now + (cell.item.cost / self.speed if self.speed else 0) > self.deadline:
            raise _OutOfTime
        row = run([cell], self.results, self.readers, progress=self.progress, should_stop=self.should_stop)[0]
        self.speed = max(self.speed, cell.item.cost / max(1e-3, time.monotonic() - now))
        return row


def tune(
    subject: Subject,
    readers: Readers,
    results: Results,
    target: int,
    *,
    budget_seconds: float,
    temperatures: Sequence[float] = (0.0,),
    report: Callable[[Trial], None] = lambda trial: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tuning:
    """The fraction of the window to rely on, and the group attention for `target` tokens, each tried with all `temperatures`.

    Raises TuneError, Interrupted. What was measured lies in `results` and isn't measured again.
    """
    fresh = replace(subject, rotary=replace(subject.rotary, tuned=Rotary.of({}, 1).tuned))
    probe = _Probe(fresh, readers, results, time.monotonic() + budget_seconds, report, progress, should_stop)
    try:
        fraction, why = _fraction(probe)
    except _OutOfTime:
        raise TuneError("The budget ended inside the trained window. Give more --budget-minutes.") from None
    return _at_target(probe, target, fraction, why, temperatures)


def _fraction(probe: _Probe) -> tuple[float, str]:
    """The share of the window up to which the plain model finds everything."""
    window = probe.subject.rotary.window
    good = 0.0
    for share in SHARES:
        length = int(share * window)
        try:
            trial = probe.trial("in the window", Method("plain"), length, DEPTHS_INSIDE, give_up=2)
        except TaskError:
            continue
        except _OutOfTime:
            if good:
                return good, f"everything is found up to {good:.0%} of the window; the budget ended there"
            raise
        if not trial.passed:
            if not good and not probe.copying:
                _change_to_copying(probe, length)
                return _fraction(probe)
            break
        good = share
    if not good:
        raise TuneError("This model finds neither a pass key nor a repeated passage inside its own window: nothing to tune by.")
    what = "repeated passages" if probe.copying else "pass keys"
    return good, f"inside the window the plain model finds all {what} up to {good:.1%} of it"


def _change_to_copying(probe: _Probe, length: int) -> None:
    probe.copying = True
    planned = cells(probe.task(length, DEPTHS_INSIDE), probe.subject, [Method("plain")], [length])
    gains = [probe.value(probe._row(cell)) for cell in planned]
    probe.reference_gain = max(0.1, sum(gains) / len(gains))


def candidates(target: int, rotary: Rotary, fraction: float) -> list[GroupAttention]:
    """Settings of both forms whose rotations stay within `fraction` of the window at `target` tokens. Those that use most of it
    come first: the finer the positions, the better the likelihood."""
    window = rotary.window
    found = set()
    for progressive, parts in ((False, (4, 8, 16, 32)), (True, (8, 16, 32))):
        for w in (rounded_neighbours(window // part, window, rotary.sliding_window) for part in parts):
            n = 2
            while n <= MAX_GROUP_SIZE:
                if w + step_for(n, window, progressive) <= window:
                    found.add(fixed(n, w, window, rotary.sliding_window, progressive))
                n *= 2
    reaching = [(ga.largest_rotation(target), ga) for ga in found]
    fitting = [(reached, ga) for reached, ga in reaching if reached < fraction * window]
    fitting.sort(key=lambda pair: (-pair[0], pair[1].n, -pair[1].w))
    return [ga for _, ga in fitting]


def _in_order(target: int, rotary: Rotary, fraction: float) -> Iterator[tuple[float, GroupAttention]]:
    """All candidates, each with the share of the window that it was chosen by: a few that use most of it, a few that use less,
    and so on, since the time may not do for all; then the others."""
    tried: set[GroupAttention] = set()
    usable = fraction
    while usable > _LEAST_SHARE:
        for ga in [ga for ga in candidates(target, rotary, usable) if ga not in tried][:_CANDIDATES]:
            tried.add(ga)
            yield usable, ga
        usable *= _SMALLER
    for ga in candidates(target, rotary, fraction):
        if ga not in tried:
            yield fraction, ga


def _at_target(probe: _Probe, target: int, fraction: float, why: str, temperatures: Sequence[float]) -> Tuning:
    rotary = probe.subject.rotary
    if target <= fraction * rotary.window:
        plain = GroupAttention(n=1, w=default_neighbours(rotary.window, rotary.sliding_window))
        return Tuning(fraction, plain, True, probe.trials, f"{why}, which {target:,} tokens fit")
    best: tuple[float, float, GroupAttention, float] | None = None
    try:
        for (usable, ga), c in product(_in_order(target, rotary, fraction), temperatures):
            method = Method("selfextend", ga.n, ga.w, ga_mode=ga.mode, ga_temperature=c or None)
            trial = probe.trial("at the target", method, target, DEPTHS_AT_TARGET, give_up=1)
            if trial.passed:
                failed = [t.share for t in probe.trials if t.length == target and not t.passed and t.share > trial.share]
                halfway = (trial.share + min(failed)) / 2 if failed else 1.0
                return Tuning(_fraction_for(ga, target, rotary, min(usable, halfway)), ga, True, probe.trials, why, c)
            score = trial.found / trial.planned
            if best is None or score > best[0]:
                best = (score, usable, ga, c)
        reason = f"{why}; at {target:,} tokens nothing found all of them"
    except _OutOfTime:
        reason = f"{why}; the budget ended before a setting was seen to work at {target:,} tokens"
    if best is None or best[0] == 0:
        options = candidates(target, rotary, fraction)
        if not options:
            raise TuneError(f"No group size up to {MAX_GROUP_SIZE} reads {target:,} tokens within {fraction:.0%} of the window.")
        best = (0.0, fraction, options[0], temperatures[0])
    return Tuning(_fraction_for(best[2], target, rotary, best[1]), best[2], False, probe.trials, reason, best[3])


def _fraction_for(ga: GroupAttention, target: int, rotary: Rotary, usable: float) -> float:
    """A fraction with which the automatic choice takes `ga` at `target`: as much of `usable` as doesn't allow a smaller n."""
    least = (ga.largest_rotation(target) + 1) / rotary.window
    half = fixed(ga.n // 2, ga.w, rotary.window, rotary.sliding_window, ga.progressive)
    smaller = half.largest_rotation(target) / rotary.window
    return max(least, min(usable, smaller))


def describe(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials as rows for a table."""
    return [
        {
            "stage": t.stage,
            "setting": t.setting,
            "tokens": t.length,
            "largest_rotation": t.ga.largest_rotation(t.length),
            "share": round(t.share, 3),
            "found": t.found,
            "asked": t.asked,
            "of": t.planned,
            "seconds": round(t.seconds, 1),
        }
        for t in trials
    ]
