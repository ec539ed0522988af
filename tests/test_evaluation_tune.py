"""Tuning scripted models that say what was planted under known conditions; the profile and who obeys it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.scripted import Scripted, ScriptedReaders, Words, subject

from selfextend_local.engine.cuts import common_prefix
from selfextend_local.engine.plan import Memory, Settings, group_attention_for, make_plan
from selfextend_local.engine.tuned import Profile, load_profile, profile_path, save_profile, with_profile
from selfextend_local.errors import Interrupted, ModelError
from selfextend_local.evaluation.methods import Setup
from selfextend_local.evaluation.results import Results
from selfextend_local.evaluation.tasks.planted import FORMS
from selfextend_local.evaluation.texts import Text, random_words
from selfextend_local.evaluation.tune import TuneError, Tuning, asked_for, describe, interval, tune
from selfextend_local.positions import choose
from selfextend_local.storage.identity import model_identity

WINDOW = 1024
TARGET = 2300


def says_up_to(share: float, works: Callable[[Setup], bool] = lambda setup: True) -> Callable[[str, Setup, int], str]:
    """A model that says what was planted while rotations stay inside a share of its window."""

    def say(prompt: str, setup: Setup, n_tokens: int) -> str:
        reached = setup.group_attention.largest_rotation(n_tokens) <= share * WINDOW and not setup.context
        return planted_number(prompt) if reached and works(setup) else "nothing"

    return say


def planted_number(prompt: str) -> str:
    """What the question at the end of a prompt asks for."""
    for form in FORMS:
        told, asked = (re.escape(text).replace(r"\{n\}", r"(?P<n>\d+)") for text in (form.told, form.question))
        for found in re.finditer(told.replace(r"\{\}", r"(?P<who>\w+ \w+)"), prompt):
            if re.search(asked.replace(r"\{\}", found["who"]), prompt):
                return found["n"]
    name = re.findall(r"special magic number for (\S+) mentioned", prompt)[-1]
    return re.findall(rf"special magic numbers for {name} is: (\d+)\.", prompt)[0]


def prose(words: int) -> Text:
    """Sentences of eight random words."""
    held = random_words(words).content.split()
    return Text("prose", " ".join(" ".join(held[i : i + 8]).capitalize() + "." for i in range(0, words, 8)))


def tuned(
    say: Callable[[str, Setup, int], str], folder: Path, target: int = TARGET, budget: float = 600.0, **more: Any
) -> tuple[Tuning, ScriptedReaders]:
    words = Words()
    made = ScriptedReaders(Scripted(words, say))
    text = prose(3000)
    return tune(subject(words, WINDOW), made, Results(folder / "t.jsonl"), target, text, budget_seconds=budget, **more), made


@pytest.mark.slow
def test_the_automatic_choice_stays_where_nothing_is_better(tmp_path: Path) -> None:
    found, _ = tuned(says_up_to(1.0), tmp_path)
    assert found.automatic and found.candidate is found.candidates[0]
    assert found.promise.mean == 1.0 and found.promise.low > 0.9
    assert (found.effective, found.beyond) == (TARGET, True)
    rows = describe(found)
    assert {row["setting"] for row in rows} >= {"plain", "yarn", found.setting}
    assert [row["can_be_kept"] for row in rows if row["setting"] in ("plain", "yarn")] == [False, False]
    assert any("progressive" in row["setting"] for row in rows) and any("recall" in row["setting"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.23, 0.3])
def test_a_model_that_uses_less_of_its_window_gets_another_setting_and_auto_takes_it(share: float, tmp_path: Path) -> None:
    found, _ = tuned(says_up_to(share, lambda setup: not setup.group_attention.recall), tmp_path)
    assert not found.automatic and found.promise.mean == 1.0
    assert found.ga.largest_rotation(TARGET - 40) <= share * WINDOW
    assert choose(TARGET, WINDOW, w=found.ga.w, fraction=found.fraction, progressive=found.ga.progressive) == found.ga
    assert "points more" in found.reason


@pytest.mark.slow
def test_what_is_promised_is_measured_on_texts_that_the_choice_never_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that say things at random: the best of them looks good, and what is promised is what it does next."""
    monkeypatch.setattr("selfextend_local.evaluation.tune.WIDTH", 0.1)
    monkeypatch.setattr("selfextend_local.evaluation.tune.MOST_ASKED", 12)
    monkeypatch.setattr("selfextend_local.evaluation.tune.AHEAD", 0.0)  # the best of all is taken: by two errors none is, by chance
    rng = random.Random(4)

    def say(prompt: str, setup: Setup, n_tokens: int) -> str:
        return planted_number(prompt) if rng.random() < 0.5 else "nothing"

    found, _ = tuned(say, tmp_path)
    assert 80 <= found.promise.count <= 110 and found.promise.high - found.promise.low <= 0.2
    assert abs(found.promise.mean - 0.5) < 0.2
    assert not found.automatic and found.promise.mean < found.candidate.share - 0.1  # by which it was chosen
    seeds = {row["config"]["seed"] for row in Results(tmp_path / "t.jsonl").rows if row["config"]["length"] == TARGET}
    assert any(seed >= 1000 for seed in seeds) and any(seed < 1000 for seed in seeds)


@pytest.mark.slow
def test_temperature_is_tried_with_the_leading_form_and_kept_where_it_helps(tmp_path: Path) -> None:
    found, _ = tuned(says_up_to(1.0, lambda s: s.temperature == 0.3 or not s.group_attention.enabled), tmp_path, temperatures=(0.1, 0.3))
    assert found.temperature == 0.3 and found.setting.endswith(", c=0.3")


@pytest.mark.slow
def test_a_promise_that_falls_short_names_the_length_that_holds(tmp_path: Path) -> None:
    found, _ = tuned(lambda prompt, setup, n: planted_number(prompt) if n < 1500 else "nothing", tmp_path)
    assert found.promise.mean == 0.0
    assert (found.effective, found.beyond) == (TARGET // 2, False)


@pytest.mark.slow
def test_within_the_window_the_plain_model_is_tried_and_can_be_kept(tmp_path: Path) -> None:
    found, _ = tuned(says_up_to(1.0, lambda setup: not setup.group_attention.enabled), tmp_path, target=900)
    assert not found.automatic and not found.ga.enabled
    assert choose(900, WINDOW, fraction=found.fraction) == found.ga


@pytest.mark.slow
def test_a_likelier_setting_wins_among_those_that_say_as_much(tmp_path: Path) -> None:
    words = Words()

    class Likelier(Scripted):
        def nll(self, tokens: Any, start: int = 1) -> Any:
            return super().nll(tokens, start) * (0.9 if self.setup.group_attention.recall == WINDOW // 2 else 1.0)

    made = ScriptedReaders(Likelier(words, says_up_to(1.0)))
    found = tune(subject(words, WINDOW), made, Results(tmp_path / "t.jsonl"), TARGET, prose(3000), budget_seconds=600)
    assert found.ga.recall == WINDOW // 2 and "nats" in found.reason


@pytest.mark.slow
def test_a_model_that_says_nothing_is_told_so(tmp_path: Path) -> None:
    found, _ = tuned(lambda prompt, setup, n: "nothing", tmp_path)
    assert found.automatic and found.promise.mean == 0.0 and found.effective is None


def test_a_budget_that_ends_at_once_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="--budget-minutes"):
        tuned(says_up_to(0.5), tmp_path, budget=0.0)


@pytest.mark.slow
def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    first, _ = tuned(says_up_to(1.0), tmp_path)
    # No budget at all is enough for what is known already.
    again, made = tuned(says_up_to(1.0), tmp_path, budget=0.0)
    assert (again.setting, again.promise, again.effective) == (first.setting, first.promise, first.effective)
    assert made.asked == []


@pytest.mark.slow
def test_what_was_measured_before_a_stop_is_kept(tmp_path: Path) -> None:
    stops = iter([False] * 100)
    with pytest.raises(Interrupted):
        tuned(says_up_to(1.0), tmp_path, should_stop=lambda: next(stops, True))
    assert len(Results(tmp_path / "t.jsonl").rows) == 100


@pytest.mark.slow
def test_what_the_plain_model_does_takes_little_of_the_time_on_a_slow_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each question takes three seconds, its text read."""
    now = 0.0
    monkeypatch.setattr("selfextend_local.evaluation.tune.time", SimpleNamespace(monotonic=lambda: now))

    def say(prompt: str, setup: Setup, n_tokens: int) -> str:
        nonlocal now
        now += 3.0
        return planted_number(prompt)

    found, made = tuned(say, tmp_path, budget=600.0)
    asked = len(found.candidate.trials[0].said)
    assert asked <= found.base.count < 48  # with time enough it is asked 48
    assert 3.0 * found.base.count <= 0.15 * 600.0
    assert len(found.candidates) > 1 and found.promise.count >= asked and now <= 600.0


class Machine(Scripted):
    """A reader that takes `seconds_a_token` of a clock for what it didn't read just before."""

    pace = staticmethod(lambda setup: 1.0)

    def __init__(self, words: Words, clock: SimpleNamespace, seconds_a_token: float, say: Callable[[str, Setup, int], str]) -> None:
        super().__init__(words, say)
        self.clock, self.seconds_a_token, self.known = clock, seconds_a_token, (Setup(), [0])
        self.texts: list[tuple[Setup, int]] = []

    def read(self, tokens: Sequence[int]) -> None:
        setup, before = self.known
        shared = common_prefix(before, tokens) if setup == self.setup else 0
        if shared < 0.9 * len(tokens):
            self.texts.append((self.setup, len(tokens)))
        self.clock.now += self.pace(self.setup) * self.seconds_a_token * (len(tokens) - shared)
        self.known = (self.setup, list(tokens))

    def nll(self, tokens: Sequence[int], start: int = 1) -> Any:
        self.read(tokens)
        return super().nll(tokens, start)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tuning, Machine]]:
    """Tunes on a machine of so many seconds a token, which begins with a new clock each time."""
    clock, words = SimpleNamespace(now=0.0), Words()
    monkeypatch.setattr("selfextend_local.evaluation.tune.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr("selfextend_local.evaluation.runner.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def tuned_there(seconds_a_token: float, say: Any = None) -> tuple[Tuning, Machine]:
        clock.now = 0.0
        made = Machine(words, clock, seconds_a_token, say or says_up_to(1.0))
        known = Results(tmp_path / "there.jsonl")
        return tune(subject(words, WINDOW), ScriptedReaders(made), known, TARGET, prose(3000), budget_seconds=300.0), made

    return tuned_there


@pytest.mark.slow
@pytest.mark.parametrize("seconds_a_token", [0.001, 0.008, 0.02, 0.04])
def test_the_time_holds_on_fast_and_slow_machines_and_all_of_it_is_planned(seconds_a_token: float, machine: Any) -> None:
    found, made = machine(seconds_a_token)
    assert made.clock.now <= 300.0
    assert found.promise.count >= 6
    tried = [row["setting"] for row in describe(found)]
    assert not set(tried) & set(found.untried)
    assert bool(found.untried) == (seconds_a_token > 0.001)
    # A text of each that is left, as long as those before took.
    assert found.untried_seconds == pytest.approx(len(found.untried) * TARGET * seconds_a_token, rel=0.5)


@pytest.mark.slow
def test_the_texts_of_the_promise_are_planned_by_what_the_chosen_setting_takes(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "pace", staticmethod(lambda setup: 4.0 if setup.group_attention.recall else 1.0))
    found, made = machine(0.01, say=lambda prompt, setup, n: planted_number(prompt) if int(planted_number(prompt)) % 2 else "nothing")
    assert found.automatic and not found.ga.recall and any(one.setup.group_attention.recall for one in found.candidates)
    assert found.narrow_seconds > 0 and made.clock.now <= 300.0
    # A text of recall wouldn't fit what is left, and not one of groups either.
    assert 300.0 - made.clock.now < 1.5 * TARGET * 0.01


@pytest.mark.slow
def test_what_can_not_be_kept_comes_last(machine: Any) -> None:
    found, _ = machine(0.007)
    assert not [one for one in found.candidates if one.method.name != "selfextend"] or not set(found.untried) - {"plain", "yarn"}
    assert found.untried and set(found.untried) <= {"plain", "yarn"}


@pytest.mark.slow
def test_where_the_time_does_for_few_one_of_each_kind_is_tried_first(machine: Any) -> None:
    found, _ = machine(0.017)
    tried = [one.setup.group_attention for one in found.candidates]
    assert 3 <= len(tried) <= 5
    assert len({(ga.mode, ga.w) for ga in tried[:3]}) == 3 == len({ga.mode for ga in tried[:3]})
    assert {"yarn", "plain"} <= set(found.untried)


@pytest.mark.slow
def test_a_time_that_does_for_one_text_is_spent_on_the_promise(machine: Any) -> None:
    with pytest.raises(TuneError, match="--budget-minutes"):
        machine(0.15)
    found, made = machine(0.07)  # what it took before is no reason to refuse
    assert found.automatic and found.reason == "no other setting was tried"
    assert [n > 2000 for _, n in made.texts].count(True) == 1 and made.clock.now <= 300.0
    assert describe(found)[0]["asked"] == found.promise.count > 0


@pytest.mark.slow
def test_the_same_command_goes_on_with_what_was_not_tried(machine: Any) -> None:
    first, _ = machine(0.02)
    again, made = machine(0.02)
    # The promise has its texts: more of the time is for the choice.
    assert len(again.candidates) > 2 * len(first.candidates) and len(again.untried) < len(first.untried)
    assert made.clock.now <= 300.0
    # What is known isn't read again.
    read = [setup for setup, n in made.texts if n > 2000]
    assert not [one.setting for one in first.candidates if one.setup in read and one.setup != again.candidate.setup]


@pytest.mark.slow
def test_one_text_with_two_items_more_is_no_reason_to_leave_the_automatic_choice(machine: Any) -> None:
    missed: set[str] = set()

    def say(prompt: str, setup: Setup, n_tokens: int) -> str:
        number = planted_number(prompt)
        if setup.group_attention.progressive and (len(missed) < 2 or number in missed):
            missed.add(number)
            return "nothing"
        return number

    found, _ = machine(0.02, say=say)
    automatic, *others = found.candidates
    assert max(sum(one.said.values()) for one in others) == sum(automatic.said.values()) + 2
    assert found.automatic and "two standard errors" in found.reason


@pytest.mark.slow
def test_what_is_known_roughly_is_promised_as_an_interval(machine: Any) -> None:
    rough, _ = machine(0.02)
    assert rough.promise.count < 40 and re.match(r"\d+ to 100 % of keys and facts \(100 %; ", rough.sentence)
    assert f"{rough.promise.count} asked in fresh texts" in rough.sentence
    # Some 35 of 35 are known within five points: a text for each six that are missing.
    assert asked_for(rough.promise) == 35 and rough.narrow_seconds == pytest.approx(46 * -(-(35 - rough.promise.count) // 6), rel=0.1)
    well, _ = machine(0.0005)
    assert well.narrow_seconds == 0
    assert well.sentence.startswith(f"100 % of keys and facts ({100 * well.promise.low:.0f} to 100; ")


def test_an_interval_is_wilsons() -> None:
    assert (interval(8, 8).low, interval(8, 8).high) == (pytest.approx(0.6756, abs=1e-4), 1.0)
    assert interval(17, 24).low == pytest.approx(0.5083, abs=1e-4)


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFEXTEND_PROFILES", str(tmp_path / "profiles"))
    return tmp_path


def profile(**changes: object) -> Profile:
    return replace(Profile("m", 0.6, 512, 16_384, "2026-11-23", ("all found",)), **changes)  # type: ignore[arg-type]


def model_file(folder: Path, content: bytes = b"GGUF" * 1000) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_a_profile_is_for_one_model_file_whatever_its_name(profiles: Path) -> None:
    model = model_file(profiles)
    save_profile(model, profile())
    assert load_profile(model) == profile()
    assert load_profile(model.rename(profiles / "renamed.gguf")) == profile()
    assert load_profile(model_file(profiles, b"GGUF" * 999 + b"gguf")) is None


def test_identity_sees_the_middle_and_the_end_of_large_files(profiles: Path) -> None:
    size = 8 << 20
    seen = set()
    for at in (None, 10, size // 2 + 5, size - 1):
        data = bytearray(size)
        if at is not None:
            data[at] = 1
        seen.add(model_identity(model_file(profiles, bytes(data))))
    assert len(seen) == 4


def test_auto_obeys_the_profile_and_the_user_wins(profiles: Path) -> None:
    model = model_file(profiles)
    assert with_profile(Settings(), model) == Settings()
    save_profile(model, profile())
    assert with_profile(Settings(), model) == Settings(ga_w=512, ga_fraction=0.6, ga_mode="two-level", tuned=True)
    save_profile(model, profile(ga_temperature=0.3))
    assert with_profile(Settings(), model).ga_temperature == 0.3
    assert with_profile(Settings(ga_temperature=0.0), model).ga_temperature == 0.0
    save_profile(model, profile())
    assert with_profile(Settings(ga_w=2048), model) == Settings(ga_w=2048, ga_fraction=0.6, ga_mode="two-level", tuned=True)
    assert with_profile(Settings(ga_fraction=0.2), model) == Settings(ga_w=512, ga_fraction=0.2, ga_mode="two-level", tuned=True)
    save_profile(model, profile(ga_mode="recall", ga_recall=4096))
    assert with_profile(Settings(), model).recalls and with_profile(Settings(), model).ga_recall == 4096
    save_profile(model, profile())
    for given in (Settings(ga_n=4), Settings(ga_w=1024, ga_fraction=0.5), Settings(ga_mode="progressive")):
        assert with_profile(given, model) == given


def test_the_plan_says_that_it_was_tuned(profiles: Path) -> None:
    model = model_file(profiles)
    save_profile(model, profile())
    settings = with_profile(Settings(need_tokens=16_000), model)
    made = make_plan(settings, 8192, sliding_window=0, memory=Memory(1 << 34), n_layers=30, measure=lambda *_: None)
    assert "(n=4, w=512, tuned)" in made.describe()
    assert made.group_attention == group_attention_for(settings, 16_000, 8192)


WRONG = [
    json.dumps(profile(**one).__dict__)
    for one in ({"ga_fraction": 3.0}, {"ga_temperature": 11.0}, {"ga_recall": 32}, {"ga_mode": "recall"})
]


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "m"}', *WRONG])
def test_a_damaged_profile_is_an_error_that_names_it(profiles: Path, content: str) -> None:
    model = model_file(profiles)
    path = save_profile(model, profile())
    path.write_text(content)
    with pytest.raises(ModelError, match="Delete it"):
        load_profile(model)
    assert path == profile_path(model)
