"""Items answered side by side: the same answers, and the same logits, as one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.driver import GPU_LAYERS
from support.tiny_models import TinyModel

from selfextend_local import native
from selfextend_local.batch.defaults import BATCH
from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job, Limits, ModelSettings
from selfextend_local.batch.local_runner import LocalRunner
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.runner import Finished, Watcher
from selfextend_local.batch.worker import ModelWorker
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.generation.completion import Completion, LocalModel, Prompt
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.slots import Slots
from selfextend_local.summarize import Instruction, Summary

pytestmark = pytest.mark.native

ASKED = "Tell me about "
THREAD = replace(BATCH, threads=1)


@pytest.fixture
def llm(fixture_model: Path) -> Iterator[SelfExtendLlama]:
    llm = SelfExtendLlama(fixture_model, n_ctx=512, n_threads=1)
    yield llm
    llm.close()


def side_by_side(llm: SelfExtendLlama, prompts: list[Prompt], samplings: list[Sampling], slots: int) -> list[Completion]:
    together = Slots(llm, LocalModel(llm), slots, 512)
    answers: dict[int, Completion] = {}
    under_way: dict[int, int] = {}
    waiting = list(range(len(prompts)))
    while waiting or under_way:
        while waiting and together.takes(40):
            number = waiting.pop(0)
            under_way[together.begin(prompts[number], samplings[number])] = number
        for slot, answer in together.step():
            answers[under_way.pop(slot)] = answer
    together.close()
    return [answers[number] for number in range(len(prompts))]


def plain(answer: Completion) -> tuple[object, ...]:
    return (answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens, answer.ga_n, answer.ga_w)


@pytest.mark.slow
def test_answers_are_those_given_one_at_a_time(llm: SelfExtendLlama) -> None:
    prompts = [Prompt((("user", f"{ASKED}{'the king and ' * i}Moses"),), len(ASKED)) for i in (1, 7, 3, 3, 0, 5, 2)]
    samplings = [Sampling(max_tokens=10 + 5 * i, temperature=0.8 * (i % 2), seed=i) for i in range(len(prompts))]
    model = LocalModel(llm)
    alone = [model.answer(prompt, sampling) for prompt, sampling in zip(prompts, samplings, strict=True)]
    for slots in (2, 3, 8):
        answers = side_by_side(llm, prompts, samplings, slots)
        assert list(map(plain, answers)) == list(map(plain, alone))
        assert [a.cached_tokens for a in answers] == [0] + [answers[1].cached_tokens] * 6
        assert answers[1].cached_tokens == alone[1].cached_tokens > 3


@pytest.mark.parametrize("kind", ["gqa", "swa", "hybrid"])
def test_every_kind_of_memory_can_hold_several(tiny_model: TinyModel, kind: str) -> None:
    llm = SelfExtendLlama(tiny_model(kind), n_ctx=512, n_threads=1)
    prompts = [Prompt((("user", f"Tell {i} {'x' * i}"),), 5) for i in range(7)]
    samplings = [Sampling(max_tokens=6)] * 7
    model = LocalModel(llm)
    alone = [model.answer(*each) for each in zip(prompts, samplings, strict=True)]
    assert list(map(plain, side_by_side(llm, prompts, samplings, 3))) == list(map(plain, alone))
    llm.close()


def test_the_very_logits_are_the_same_beside_any_others(llm: SelfExtendLlama) -> None:
    texts = [list(range(300 + 17 * i, 340 + 20 * i)) for i in range(5)]
    decoder = native.Decoder(llm.ctx)
    alone = []
    for text in texts:
        llm.reset()
        llm.prefill(text[:-1])
        llm.prefill(text)
        alone.append(decoder.logits(1)[0].copy())
    sequences = native.Sequences(llm._model.model, llm.context_params, 5, 512)
    for number, text in enumerate(texts):
        sequences.read(number, text[:-1], 0)
    for rows in ([0, 1, 2, 3, 4], [1, 2], [3], [0, 2, 4]):
        assert sequences.step([(i, texts[i][-1], len(texts[i]) - 1) for i in rows]) is native.DecodeStatus.OK
        for row, number in enumerate(rows):
            logits = native.bindings().llama_get_logits_ith(sequences.context, row)
            assert np.array_equal(np.ctypeslib.as_array(logits, (decoder.n_vocab,)), alone[number])
            sequences.forget(number, len(texts[number]) - 1)
    sequences.close()


def test_a_full_slot_does_not_end_the_others(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_threads=1)
    model = LocalModel(llm)
    model.prompts.stop_tokens = frozenset()
    llm.ends_answers = lambda token: False  # type: ignore[method-assign]
    together = Slots(llm, model, 2, 256)
    for text in ("x" * 40, "y"):
        together.begin(Prompt((("user", text),)), Sampling(max_tokens=1000))
    answers = [answer for _ in range(256) for _, answer in together.step()]
    assert [a.prompt_tokens + a.completion_tokens for a in answers] == [256, 256]
    together.close()
    llm.close()


def test_what_needs_groups_or_more_room_gets_no_slot(llm: SelfExtendLlama) -> None:
    together = Slots(llm, LocalModel(llm), 2, 400)
    assert together.takes(150)
    assert not together.takes(300) and llm.group_attention_for(300).enabled
    together.close()


def requests(*texts: str) -> list[Item]:
    return [Item(str(i), body={"messages": [{"role": "user", "content": text}], "max_tokens": 20}) for i, text in enumerate(texts)]


def run(model: Path, items: list[Item], together: int, answer_s: float | None = None) -> dict[str, Finished]:
    job = Job(Instruction(), ModelSettings(model, THREAD, together), Limits(answer_s=answer_s))
    runner = LocalRunner(job)
    try:
        return {finished.item.custom_id: finished for finished in runner.run(items, Watcher(), lambda: False)}
    finally:
        runner.close()


def outcomes(found: dict[str, Finished]) -> dict[str, object]:
    return {name: f.outcome.text if isinstance(f.outcome, Summary) else f.outcome for name, f in found.items()}


@pytest.mark.slow
def test_a_batch_has_the_same_results_with_and_without_slots(fixture_model: Path) -> None:
    items = requests(*(f"{ASKED}{'the land of ' * i} Egypt" for i in (0, 4, 200, 2, 30, 1, 3, 6, 50, 5)), "the sea and " * 3000)
    items[3].body["messages"] = [{"role": "wizard"}]  # type: ignore[index]
    found = {n: outcomes(run(fixture_model, items, n)) for n in (1, 2, 8)}
    assert len(found[1]) == len(items)
    assert found[2] == found[1] == found[8]
    assert [type(found[8][str(i)]) for i in (2, 3, 4)] == [str, Failure, str]


def test_those_that_take_too_long_fail_and_the_others_do_not(fixture_model: Path) -> None:
    items = requests(*("A" * i for i in range(1, 5)))
    assert {f.outcome.code for f in run(fixture_model, items, 4, 1e-6).values() if isinstance(f.outcome, Failure)} == {"timeout"}
    assert len(run(fixture_model, items, 4, 60)) == 4


def test_the_time_of_writing_counts(fixture_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "spent", lambda *_: 61.0)
    found = run(fixture_model, requests("Who was Moses?", "Who was Ruth?"), 2, 60)
    assert [f.outcome.code for f in found.values() if isinstance(f.outcome, Failure)] == ["timeout", "timeout"]


def test_a_stop_ends_those_under_way(fixture_model: Path) -> None:
    runner = LocalRunner(Job(Instruction(), ModelSettings(fixture_model, THREAD, together=4)))
    stopped: list[bool] = []
    work = runner.run(requests("A", "B", "C", "D", "E", "F"), Watcher(), lambda: bool(stopped))
    first = next(work)
    stopped.append(True)
    assert isinstance(first.outcome, Summary)
    assert len(list(work)) < 4
    runner.close()


def test_a_cpu_answers_one_at_a_time_unless_told_otherwise(fixture_model: Path) -> None:
    """docs/batch.md: computing empty slots costs a CPU more than it gains."""
    if GPU_LAYERS:
        pytest.skip("for a CPU")
    for together, opens in (("auto", False), (2, True)):
        engine = ModelWorker(Job(Instruction(), ModelSettings(fixture_model, THREAD, together)))
        engine.make_room(100)
        assert engine.takes(100) is opens
        engine.close()
