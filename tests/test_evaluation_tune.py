"""Tuning a scripted model that finds keys up to a known share of its window; the profile and who obeys it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted import Scripted, ScriptedReaders, Words, subject

from selfextend_local.engine.plan import Memory, Settings, group_attention_for, make_plan
from selfextend_local.engine.tuned import Profile, load_profile, profile_path, save_profile, with_profile
from selfextend_local.errors import ModelError
from selfextend_local.evaluation.methods import Setup
from selfextend_local.evaluation.results import Results
from selfextend_local.evaluation.tune import TuneError, Tuning, _in_order, candidates, tune
from selfextend_local.positions import GroupAttention, choose
from selfextend_local.storage.identity import model_identity

WINDOW = 4096


def finds_up_to(share: float) -> object:
    def say(prompt: str, setup: Setup, n_tokens: int) -> str:
        reached = setup.group_attention.largest_rotation(n_tokens) <= share * WINDOW
        return prompt.split("The pass key is ")[1].split(".")[0] if reached else "nothing"

    return say


def tuned(share: float, target: int, folder: Path, budget: float = 600.0) -> Tuning:
    words = Words()
    made = ScriptedReaders(Scripted(words, finds_up_to(share)))  # type: ignore[arg-type]
    return tune(subject(words, WINDOW), made, Results(folder / "t.jsonl"), target, budget_seconds=budget)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("target", [6000, 16_384])
def test_the_setting_works_at_the_target_and_auto_takes_it(share: float, target: int, tmp_path: Path) -> None:
    found = tuned(share, target, tmp_path)
    assert found.verified
    assert found.ga.largest_rotation(target - 40) <= share * WINDOW
    assert choose(target, WINDOW, w=found.ga.w, fraction=found.fraction, progressive=found.ga.progressive) == found.ga
    # The part that is relied on is one in which the model was seen to work.
    assert found.fraction <= share + 0.15


def test_temperatures_are_tried_with_each_setting_and_the_one_that_works_is_kept(tmp_path: Path, profiles: Path) -> None:
    words = Words()
    say = finds_up_to(1.0)

    def sharpened(prompt: str, setup: Setup, n_tokens: int) -> str:
        works = setup.temperature == 0.3 or not setup.group_attention.enabled
        return say(prompt, setup, n_tokens) if works else ""  # type: ignore[operator,no-any-return]

    made, asked = ScriptedReaders(Scripted(words, sharpened)), subject(words, WINDOW)
    results = Results(tmp_path / "t.jsonl")
    found = tune(asked, made, results, 16_384, budget_seconds=600, temperatures=(0.0, 0.3))
    assert found.verified and found.temperature == 0.3
    assert [(t.temperature, t.passed) for t in found.trials[-2:]] == [(0.0, False), (0.3, True)]
    assert found.setting.endswith(", c=0.3")
    assert {row["config"].get("ga_temperature") for row in results.rows} == {None, 0.3}


def test_within_the_reliable_part_nothing_is_grouped(tmp_path: Path) -> None:
    found = tuned(0.7, 2000, tmp_path)
    assert found.verified and not found.ga.enabled


@pytest.mark.slow
def test_a_model_that_finds_nothing_beyond_is_told_so(tmp_path: Path) -> None:
    words = Words()
    say = finds_up_to(1.0)
    plain_only = lambda p, setup, n: say(p, setup, n) if not setup.group_attention.enabled else ""  # type: ignore[operator] # noqa: E731
    made = ScriptedReaders(Scripted(words, plain_only))
    found = tune(subject(words, WINDOW), made, Results(tmp_path / "t.jsonl"), 16_384, budget_seconds=600)
    assert not found.verified
    assert "nothing found all of them" in found.reason


def test_a_model_too_weak_to_answer_is_tuned_by_copying(tmp_path: Path) -> None:
    words = Words()
    made = ScriptedReaders(Scripted(words, lambda p, s, n: "no idea"))
    found = tune(subject(words, WINDOW), made, Results(tmp_path / "t.jsonl"), 8192, budget_seconds=600)
    assert found.verified
    assert "repeated passages" in found.reason


def test_a_budget_that_ends_at_once_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="--budget-minutes"):
        tuned(0.5, 8192, tmp_path, budget=0.0)


def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    first = tuned(0.45, 16_384, tmp_path)
    words = Words()
    made = ScriptedReaders(Scripted(words, finds_up_to(0.45)))  # type: ignore[arg-type]
    # No budget at all is enough for what is known already.
    again = tune(subject(words, WINDOW), made, Results(tmp_path / "t.jsonl"), 16_384, budget_seconds=0.0)
    assert (again.ga, again.fraction) == (first.ga, first.fraction)
    assert made.asked == []


def test_candidates_stay_within_the_fraction_and_begin_with_the_smallest_group() -> None:
    rotary = replace(subject(Words(), WINDOW).rotary, sliding_window=0)
    found = candidates(32_768, rotary, 0.375)
    assert found
    assert all(ga.largest_rotation(32_768) < 0.375 * WINDOW for ga in found)
    reached = [ga.largest_rotation(32_768) for ga in found]
    assert reached == sorted(reached, reverse=True)
    assert {ga.progressive for ga in found} == {True, False}


def test_every_candidate_has_its_turn() -> None:
    rotary = replace(subject(Words(), 8192).rotary, sliding_window=0)
    order = [ga for _, ga in _in_order(32_768, rotary, 0.5)]
    assert len(order) == len(set(order)) and set(order) == set(candidates(32_768, rotary, 0.5))
    assert order[:4] == candidates(32_768, rotary, 0.5)[:4]
    assert order[4].largest_rotation(32_768) < 0.375 * 8192  # not the fifth: sooner to one that leaves more of the window unused
    # The one that reads 32,768 tokens with SmolLM2 (docs/results.md).
    assert GroupAttention(64, 256, 512) in order


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
    for given in (Settings(ga_n=4), Settings(ga_w=1024, ga_fraction=0.5), Settings(ga_mode="progressive")):
        assert with_profile(given, model) == given


def test_the_plan_says_that_it_was_tuned(profiles: Path) -> None:
    model = model_file(profiles)
    save_profile(model, profile())
    settings = with_profile(Settings(need_tokens=16_000), model)
    made = make_plan(settings, 8192, sliding_window=0, memory=Memory(1 << 34), n_layers=30, measure=lambda *_: None)
    assert "(n=4, w=512, tuned)" in made.describe()
    assert made.group_attention == group_attention_for(settings, 16_000, 8192)


WRONG = [json.dumps(profile(**one).__dict__) for one in ({"ga_fraction": 3.0}, {"ga_temperature": 11.0})]


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "m"}', *WRONG])
def test_a_damaged_profile_is_an_error_that_names_it(profiles: Path, content: str) -> None:
    model = model_file(profiles)
    path = save_profile(model, profile())
    path.write_text(content)
    with pytest.raises(ModelError, match="Delete it"):
        load_profile(model)
    assert path == profile_path(model)
