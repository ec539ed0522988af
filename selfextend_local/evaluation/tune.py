"""Finds the setting that reads a target length best, within a budget of time, and says what it will do with the next text.

Every form is asked the same keys and facts, planted in one text (`tasks.planted`): reading it gives its likelihood and its price too.
The best of several always looks better than it is, so what is promised is not the score that it won by: it is measured again,
on fresh texts, until the interval is narrow enough or the time is over. The automatic choice, which rests on many more texts
(docs/results.md), is given up only for a setting that is ahead by more than two standard errors of the difference.

The time is planned by what texts took so far: one of the target length for each setting, one of each kind first, and one at least
for the promise. What the time doesn't do for is named, and the same command goes on with it.

Knows tasks, the runner and positions. It knows no terminal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from selfextend_local.engine.plan import Settings
from selfextend_local.errors import GroupAttentionError, SelfExtendError
from selfextend_local.evaluation.tasks.planted import FACTS, KEYS, Planted
from selfextend_local.positions import GroupAttention, rounded_neighbours

from .effective import BASE, KEPT
from .items import Item
from .methods import Method, Rotary, Setup
from .prompting import Tokenizer
from .results import Results, Row
from .runner import Readers, Subject, cells, run
from .summary import Estimate
from .texts import Text

MOST_KEYS, MOST_FACTS = 4, 20
"""Keys (RULER has four) and facts in one text. To read 16,384 tokens takes SmolLM2 as long as 70 to 120 questions, so many are asked of
each. Of more keys it names one and the same for all, and so of more facts of one form: among 4,096 tokens it says 11 of 24 keys and facts
with 8 facts, 19 of 48 with 20 in ten forms, 12 of 48 with 20 in five (two texts)."""

_BASE_ASKED = 48
_BASE_SHARE = 0.15
"""Of the time, at most, for what the plain model does at the shortest length, its first text apart."""

_ROOM_OF_ONE = 160
"""Tokens of the shortest text for each key and each fact."""

WIDTH = 0.05
"""A promise is measured until its 95 % interval is no wider than this to each side."""

SEARCHED, SEARCHED_AGAIN = 0.6, 0.85
"""Share of the time for the choice; the rest is for the promise. Again: where the automatic choice was asked before."""

AHEAD = 2.0
"""Standard errors by which another setting must be ahead of the automatic choice. Of 16 asked, four more and none less are."""

_LONGER = 1.3
"""A token of a longer text than any yet may take so many times as long."""

_FRESH = 1000
"""Seeds of the texts of the promise begin here, those of the choice at 0."""

MOST_ASKED = 192
"""Keys and facts asked of each setting for the choice."""

_LITTLE = 0.2
"""Share of the window for models that use little of it well."""

_LIKELIER = 0.02
"""Nats a token that decide between settings that find and answer as much."""

COMPARED = ("yarn", "plain")
"""Methods that are measured beside the forms, and can't be kept."""


class TuneError(SelfExtendError):
    """The model can't be tuned: the time does for nothing, or no text of that length can be made."""


@dataclass(frozen=True)
class Trial:
    """One text under one method: whether each key and fact was said, nats a token of its last quarter by blocks (none: not measured),
    seconds of reading and of all questions."""

    method: Method
    setup: Setup
    length: int
    seed: int
    said: Mapping[tuple[str, str], float]
    blocks: tuple[float, ...]
    tokens: int
    seconds: float
    asked_seconds: float

    @property
    def nats(self) -> float | None:
        return float(np.mean(self.blocks)) if self.blocks else None


@dataclass
class Candidate:
    """A method at the target, and what was measured of it there on the texts of the choice. `memory`: bytes of its context."""

    method: Method
    setup: Setup
    memory: int | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def setting(self) -> str:
        """In words, such as "n=8, w=1024, c=0.1", "plain" or "yarn"."""
        if self.method.name != "selfextend":
            return self.method.name
        ga = self.setup.group_attention
        return (ga.label if ga.enabled else "plain") + (f", c={self.setup.temperature:g}" if self.setup.temperature else "")

    @property
    def said(self) -> dict[tuple[int, str, str], float]:
        return {(trial.seed, *item): value for trial in self.trials for item, value in trial.said.items()}

    @property
    def share(self) -> float:
        """Of the keys and facts that were said."""
        return float(np.mean(list(self.said.values())))

    @property
    def nats(self) -> float | None:
        found = [trial.nats for trial in self.trials if trial.nats is not None]
        return float(np.mean(found)) if found else None

    def lead(self, other: Candidate) -> tuple[float, float]:
        """By how much of the share it is ahead of `other` on the items that both were asked, and the standard error of that."""
        theirs = other.said
        return _mean_and_error([value - theirs[item] for item, value in self.said.items() if item in theirs])

    def gain(self, other: Candidate) -> tuple[float, float]:
        """By how many nats a token it is likelier than `other` on the texts that both read, and the standard error of that."""
        theirs = {trial.seed: trial.blocks for trial in other.trials}
        both = [zip(theirs[trial.seed], trial.blocks, strict=True) for trial in self.trials if theirs.get(trial.seed)]
        return _mean_and_error([a - b for pairs in both for a, b in pairs])


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return (float(np.mean(values)), float(np.std(values) / math.sqrt(len(values)))) if values else (0.0, math.inf)


@dataclass(frozen=True)
class Tuning:
    """What came of it. `automatic`: the built-in choice is kept. `promise`: the share of keys and facts that it says of fresh texts of
    the target length, `parts` those of each kind; `base`: the plain model's share at `base_length`. `effective`: the longest length
    at which `KEPT` of the base is kept, None if it wasn't found; `beyond`: and perhaps longer. `fraction`: of the window, with which
    the automatic choice takes these groups. `untried`: settings that the time didn't do for, and `untried_seconds` that one text of
    each takes; `narrow_seconds`: those of the fresh texts that would make the promise as narrow as `WIDTH`.
    """

    candidate: Candidate
    automatic: bool
    fraction: float
    promise: Estimate
    parts: Mapping[str, Estimate]
    base: Estimate
    base_length: int
    effective: int | None
    beyond: bool
    candidates: tuple[Candidate, ...]
    reason: str
    untried: tuple[str, ...] = ()
    untried_seconds: float = 0.0
    narrow_seconds: float = 0.0

    @property
    def ga(self) -> GroupAttention:
        return self.candidate.setup.group_attention

    @property
    def setting(self) -> str:
        """In words."""
        return self.candidate.setting

    @property
    def temperature(self) -> float:
        return self.candidate.setup.temperature

    @property
    def sentence(self) -> str:
        """The promise: a share where it is known well, else its interval."""
        p = self.promise
        parts = ", ".join(f"{part} {100 * e.mean:.0f} %" for part, e in self.parts.items())
        narrow = p.high - p.low <= 2 * WIDTH
        share, spread = f"{100 * p.mean:.0f} %", f"{100 * p.low:.0f} to {100 * p.high:.0f}"
        first, second = (share, spread) if narrow else (f"{spread} %", share)
        return f"{first} of keys and facts ({second}; {parts}; {p.count} asked in fresh texts)"


class _OutOfTime(Exception):
    """`needed`: seconds of what doesn't fit."""

    def __init__(self, needed: float) -> None:
        self.needed = needed


def interval(found: float, asked: int) -> Estimate:
    """Wilson's 95 % interval (1927) of a share."""
    z, p = 1.96, found / asked
    middle = (p + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z / (1 + z * z / asked) * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked**2))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), asked)


def asked_for(rough: Estimate) -> int:
    """How many have to be asked until the interval of a share that is known roughly is no wider than WIDTH to each side."""
    return next(n for n in range(rough.count, 10**6) if (one := interval(rough.mean * n, n)).high - one.low <= 2 * WIDTH)


@dataclass(frozen=True)
class _Made:
    """A task whose items are made: each setting is asked the same ones, and to make them takes a tenth of the time of a fast machine."""

    task: Planted
    length: int
    made: list[Item]

    name = Planted.name

    def config(self) -> Mapping[str, Any]:
        return self.task.config()

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        return self.made


@dataclass
class _Probe:
    subject: Subject
    readers: Readers
    results: Results
    text: Text
    keys: int
    facts: int
    started: float
    budget: float
    report: Callable[[Trial], None]
    progress: Callable[[int, int], None]
    should_stop: Callable[[], bool]
    made: _Made | None = None
    """The last task."""
    repeats: dict[int, bool] = field(default_factory=dict)
    """By length: whether the text is shorter."""
    took: dict[tuple[int, str], float] = field(default_factory=dict)
    """By length and setup: the most seconds that a text took. What is known already says nothing of today's pace. Recall reads a text
    in half the time that groups take."""

    @property
    def asked(self) -> int:
        """Of one text."""
        return self.keys + self.facts

    @property
    def lengths(self) -> set[int]:
        """Of the texts that were read."""
        return {length for length, _ in self.took}

    def left(self, share: float = 1.0) -> float:
        return self.started + share * self.budget - time.monotonic()

    def needs(self, length: int, setup: Setup | None = None) -> float:
        """Seconds of a text: by those of this length that were read under `setup`, or else under any, or else by the longest."""
        if (own := self.took.get((length, repr(setup)))) is not None:
            return own
        if not self.took:
            return 0.0
        nearest = length if length in self.lengths else max(self.lengths)
        seconds = max(took for (read, _), took in self.took.items() if read == nearest)
        return seconds * length / nearest * (_LONGER if length > nearest else 1.0)

    def trial(
        self, method: Method, length: int, seed: int, share: float | None = 1.0, *, likelihood: bool = False, texts: int = 1
    ) -> Trial:
        """One text. Raises _OutOfTime before one for which that share of the budget doesn't do (None: it has to be), or all of it
        for so many `texts`; what is known costs nothing."""
        planned = cells(self._task(length, seed, likelihood), self.subject, [method], [length])
        new = [cell for cell in planned if self.results.get(cell.config) is None]
        needed = self.needs(length, planned[0].setup)
        after = (texts - 1) * self.needs(length)
        if new and share is not None and (needed > self.left(share) or needed + after > self.left()):
            raise _OutOfTime(needed + after)
        since = time.monotonic()
        rows = run(
            planned, self.results, self.readers, should_stop=self.should_stop,
            progress=lambda done, total: self.progress(min(round(time.monotonic() - self.started), round(self.budget)), round(self.budget)),
        )  # fmt: skip
        made = _trial(method, planned[0].setup, length, seed, rows)
        if len(new) == len(planned):
            read = length, repr(planned[0].setup)
            self.took[read] = max(self.took.get(read, 0.0), time.monotonic() - since)
        if likelihood and self._repeats(length):
            made = replace(made, blocks=())
        self.report(made)
        return made

    def _task(self, length: int, seed: int, likelihood: bool) -> _Made:
        task = Planted(self.text, self.keys, self.facts, seed=seed, likelihood=likelihood)
        if self.made is None or (self.made.task, self.made.length) != (task, length):
            self.made = _Made(task, length, task.items(self.subject.tokenizer, length))
        return self.made

    def _repeats(self, length: int) -> bool:
        if length not in self.repeats:
            self.repeats[length] = Planted(self.text).repeats(self.subject.tokenizer, length)
        return self.repeats[length]


def _trial(method: Method, setup: Setup, length: int, seed: int, rows: Sequence[Row]) -> Trial:
    passages = [row for row in rows if row["config"]["part"] == "likelihood"]
    asked = [row for row in rows if row not in passages]
    said = {(row["config"]["part"], row["config"]["input"]): row["result"]["said"] for row in asked}
    seconds = sum(row["seconds"] for row in asked)
    blocks = tuple(block for row in passages for block in row["result"]["blocks"])
    tokens = sum(row["result"]["tokens"] for row in passages)
    return Trial(method, setup, length, seed, said, blocks, tokens, sum(row["seconds"] for row in passages), seconds)


def tune(
    subject: Subject,
    readers: Readers,
    results: Results,
    target: int,
    text: Text,
    *,
    budget_seconds: float,
    temperatures: Sequence[float] = (0.1,),
    memory: Callable[[Setup], int | None] = lambda setup: None,
    report: Callable[[Trial], None] = lambda trial: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tuning:
    """The best setting for `target` tokens of texts such as `text`, with a promise.

    Raises TuneError, TaskError, Interrupted. What was measured lies in `results` and isn't measured again.
    """
    fresh = replace(subject, rotary=replace(subject.rotary, tuned=Settings(groups_only=subject.rotary.tuned.groups_only)))
    shortest = min(target, fresh.rotary.window // 2)
    keys, facts = (max(1, min(most, shortest // _ROOM_OF_ONE)) for most in (MOST_KEYS, MOST_FACTS))
    probe = _Probe(fresh, readers, results, text, keys, facts, time.monotonic(), budget_seconds, report, progress, should_stop)
    try:
        base = _base(probe, shortest)
        found, untried = _measured(probe, target, temperatures, memory)
        best, reason = _best([one for one in found if one.method.name == "selfextend"])
        trials = _fresh(probe, best, target)
    except _OutOfTime as out:
        raise TuneError(
            f"{target:,} tokens are more than the time does for: a text of them takes {max(1, math.ceil(out.needed / 60))} minutes or "
            f"more. Take --budget-minutes {max(5, math.ceil(8 * out.needed / 60))}, or a smaller --target-tokens."
        ) from None
    promise, parts = _estimates(trials)
    effective, beyond = _effective(probe, best.method, target, promise, base, shortest)
    fraction = fraction_for(best.setup.group_attention, target, fresh.rotary)
    return Tuning(
        best, best is found[0], fraction, promise, parts, base, shortest, effective, beyond, tuple(found), reason,
        tuple(one.setting for one in untried), len(untried) * probe.needs(target),
        max(0, math.ceil((asked_for(promise) - promise.count) / probe.asked)) * probe.needs(target, best.setup),
    )  # fmt: skip


def _base(probe: _Probe, length: int) -> Estimate:
    """The plain model's share at a length that its window holds well: of one text, and of more while they take little of the time.
    One of them is read, whatever is known: the time of all that follows is planned by it."""
    trials = [probe.trial(Method("plain"), length, 0)]
    while probe.asked * len(trials) < _BASE_ASKED or (not probe.took and probe.left() > 0):
        try:
            trials.append(probe.trial(Method("plain"), length, len(trials), _BASE_SHARE))
        except _OutOfTime:
            break
    return _estimates(trials)[0]


def _estimates(trials: Sequence[Trial]) -> tuple[Estimate, dict[str, Estimate]]:
    said = [(part, value) for trial in trials for (part, _), value in trial.said.items()]
    parts = {part: [value for p, value in said if p == part] for part in (KEYS, FACTS)}
    return interval(sum(v for _, v in said), len(said)), {part: interval(sum(v), len(v)) for part, v in parts.items() if v}


def forms(target: int, rotary: Rotary) -> Iterator[Method]:
    """What is tried at a target: the automatic choice, one of each other kind, then their other sizes; never one setting twice."""
    window, sliding = rotary.window, rotary.sliding_window
    narrow, wide = (rounded_neighbours(window // part, window, sliding) for part in (32, 4))
    yield Method("selfextend")
    if target <= window:
        yield Method("plain")
    yield Method("selfextend", ga_mode="progressive")
    recalls = target > window and not rotary.tuned.groups_only
    if recalls:
        yield Method("selfextend", ga_mode="recall")
    yield Method("selfextend", ga_mode="two-level")
    if recalls:
        yield Method("selfextend", ga_mode="recall", ga_recall=window // 2)
    yield Method("selfextend", ga_w=narrow, ga_mode="progressive")
    yield Method("selfextend", ga_w=narrow, ga_fraction=_LITTLE, ga_mode="progressive")
    yield Method("selfextend", ga_w=wide, ga_mode="progressive")
    yield Method("selfextend", ga_w=narrow, ga_mode="two-level")


def candidates(target: int, rotary: Rotary, methods: Iterator[Method], memory: Callable[[Setup], int | None]) -> list[Candidate]:
    """One for each setting that the model can take at `target` tokens."""
    found: dict[str, Candidate] = {}
    for method in methods:
        try:
            setup = method.setup(target, rotary)
        except GroupAttentionError:
            continue
        ga = setup.group_attention
        if method.name == "selfextend" and ga.largest_rotation(target) >= rotary.window:
            continue
        if method.name == "plain" and target <= rotary.window:
            method = Method("selfextend", ga_n=1)
            setup = method.setup(target, rotary)
        same = repr(setup) if ga.enabled or setup.context or setup.temperature else "plain"
        found.setdefault(same, Candidate(method, setup, memory(setup)))
    return list(found.values())


def _measured(
    probe: _Probe, target: int, temperatures: Sequence[float], memory: Callable[[Setup], int | None]
) -> tuple[list[Candidate], list[Candidate]]:
    """All candidates that the time does for, the automatic choice first, each on at least one text; and those that it doesn't do for.

    Where it does for one text alone, that is for the promise, and the automatic choice is what is left, without a text.
    """
    rotary = probe.subject.rotary
    beyond = target > rotary.window
    planned = candidates(target, rotary, forms(target, rotary), memory)
    compared = candidates(target, rotary, map(Method, COMPARED), memory) if beyond else []
    done: list[Candidate] = []

    share = 1.0

    def ask(one: Candidate, seed: int) -> None:
        one.trials.append(probe.trial(one.method, target, seed, share, likelihood=True, texts=2))

    try:
        ask(planned[0], 0)
        done.append(planned[0])
        share = SEARCHED if target in probe.lengths else SEARCHED_AGAIN
        for one in planned[1:]:
            ask(one, 0)
            done.append(one)
        if beyond:
            leading = max((one for one in done if one.method.name == "selfextend"), key=lambda one: one.share)
            warmer = candidates(target, rotary, (replace(leading.method, ga_temperature=c) for c in temperatures if c), memory)
            planned += warmer
            for one in (*warmer, *compared):
                ask(one, 0)
                done.append(one)
        for seed in range(1, MOST_ASKED // probe.asked):
            for one in _contenders(done):
                ask(one, seed)
    except _OutOfTime:
        pass
    return done or planned[:1], [one for one in (*planned, *compared) if not one.trials and one is not planned[0]]


def _contenders(done: Sequence[Candidate]) -> list[Candidate]:
    """The automatic choice, and what isn't clearly behind the leading setting; one alone has nobody to be measured against."""
    kept = [one for one in done if one.method.name == "selfextend"]
    leading = max(kept, key=lambda one: one.share)
    close = [one for one in kept if one is kept[0] or one is leading or sum(one.lead(leading)) > 0]
    return close if len(close) > 1 else []


def _best(found: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The automatic choice (the first), unless another is clearly ahead of it, or as good and likelier."""
    automatic, *others = found
    if not others:
        return automatic, "no other setting was tried"
    ahead = [(lead, one) for one in others for lead, error in [one.lead(automatic)] if lead > AHEAD * error]
    if ahead:
        lead, one = max(ahead, key=lambda pair: pair[0])
        return one, f"says {100 * lead:.0f} points more of the keys and facts than the automatic choice, {automatic.setting}"
    likelier = [
        (gain, one)
        for one in others
        for gain, error in [one.gain(automatic)]
        if gain > max(_LIKELIER, 2 * error) and sum(one.lead(automatic)) >= 0
    ]
    if likelier:
        gain, one = max(likelier, key=lambda pair: pair[0])
        return one, f"says as much as the automatic choice, {automatic.setting}, and has {gain:.3f} nats a token less"
    return automatic, "no other setting was ahead of the automatic choice by more than two standard errors"


def _fresh(probe: _Probe, chosen: Candidate, target: int) -> list[Trial]:
    """Texts that the choice never saw: one at least, more until the promise is narrow or the time is over. Where there was no time
    for a choice, they are the texts of the candidate. Raises _OutOfTime if there is none for one of them either."""
    method, alone = chosen.method, not chosen.trials
    trials = [probe.trial(method, target, _FRESH, 1.0 if alone else None, likelihood=alone)]
    if alone:
        chosen.trials += trials
    while (estimate := _estimates(trials)[0]).high - estimate.low > 2 * WIDTH:
        try:
            trials.append(probe.trial(method, target, _FRESH + len(trials)))
        except _OutOfTime:
            break
    return trials


def _effective(
    probe: _Probe, method: Method, target: int, promise: Estimate, base: Estimate, shortest: int
) -> tuple[int | None, bool]:
    """The longest of the target, half of it, a quarter … at which KEPT of the base is kept."""
    if base.mean < BASE:
        return None, False
    if promise.mean >= KEPT * base.mean:
        return target, True
    length = target // 2
    while length > shortest:
        try:
            if _estimates([probe.trial(method, length, _FRESH)])[0].mean >= KEPT * base.mean:
                return length, False
        except _OutOfTime:
            return None, False
        length //= 2
    return shortest, False


def fraction_for(ga: GroupAttention, target: int, rotary: Rotary) -> float:
    """The share of the window with which the automatic choice takes `ga` at `target` tokens: just what was seen to work."""
    return min(1.0, (ga.largest_rotation(target) + 1.5) / rotary.window)


def describe(tuning: Tuning) -> list[dict[str, Any]]:
    """What was tried, as rows for a table: what was said on the texts of the choice, and its price."""
    return [
        {
            "setting": one.setting,
            "chosen": one is tuning.candidate,
            "automatic": one is tuning.candidates[0],
            "can_be_kept": one.method.name == "selfextend",
            **{part: round(e.mean, 4) for part, e in _estimates(one.trials)[1].items()},
            "asked": len(one.said),
            "nats": None if one.nats is None else round(one.nats, 4),
            "ms_a_token": round(1000 * float(np.mean([t.seconds / t.tokens for t in one.trials])), 3),
            "seconds_a_question": round(float(np.mean([t.asked_seconds / len(t.said) for t in one.trials])), 3),
            "memory": one.memory,
        }
        for one in tuning.candidates
    ]
