"""One engine on tiny random models: contexts that grow, shared beginnings, answers that don't depend on what came before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_models import TinyModel

from selfextend_local.batch.defaults import BATCH
from selfextend_local.batch.job import Job, Limits, ModelSettings
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.worker import ModelWorker
from selfextend_local.documents import Document, Page
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import Interrupted
from selfextend_local.generation.completion import LocalModel, Prompt
from selfextend_local.generation.sampling import Sampling
from selfextend_local.summarize import Instruction, Summary, summarize_document

pytestmark = pytest.mark.native


def document(text: str) -> Document:
    return Document(Path("a.txt"), "A", (Page(1, "1", text),), (), paged=False)


@pytest.fixture(params=["gqa", "swa", "hybrid"])
def llm(tiny_model: TinyModel, request: pytest.FixtureRequest) -> Iterator[SelfExtendLlama]:
    llm = SelfExtendLlama(tiny_model(request.param), n_ctx=1024, n_threads=1)
    yield llm
    llm.close()


def engine(model: Path, instruction: Instruction, **limits: float) -> ModelWorker:
    return ModelWorker(Job(instruction, ModelSettings(model, replace(BATCH, n_ctx=512, threads=1)), Limits(**limits)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_answer_does_not_depend_on_what_was_read_before(llm: SelfExtendLlama) -> None:
    model = LocalModel(llm)
    sampling = Sampling(max_tokens=12)
    prompts = [Prompt((("user", f"Please sum this up: {i} {'word ' * 10 * i}"),), 20) for i in (1, 2, 2, 15, 6, 1)]
    alone = []
    for prompt in prompts:
        llm.reset()
        alone.append(model.answer(prompt, sampling))
    together = [model.answer(prompt, sampling) for prompt in prompts]
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.cached_tokens for a in alone] == [0] * 6
    assert len({a.ga_n for a in together}) > 1


def test_the_shared_beginning_is_exactly_the_instruction(llm: SelfExtendLlama) -> None:
    if llm.info.architecture != "llama":
        pytest.skip("memories that can't go back share nothing")
    model = LocalModel(llm)
    for name in ("alpha", "alps"):  # both begin with the same letters, which are not part of what is shared
        answer = model.answer(Prompt((("user", f"Sum up: {name}"),), len("Sum up: ")), Sampling(max_tokens=2))
    assert answer.cached_tokens == answer.prompt_tokens - len("alps\n\nAssistant:")


def test_a_beginning_that_a_border_has_passed_is_read_again(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024, n_threads=1)
    prefix = list(range(5, 15))
    assert llm.restart(prefix, expect=300) == 0
    llm.prefill([*prefix, 20, 21], expect=300)
    assert llm.restart(prefix, expect=300) == len(prefix)
    llm.prefill([*prefix, *range(20, 220)], expect=300)
    assert llm.group_attention.boundary(209) > 0
    assert llm.restart(prefix, expect=300) == 0
    llm.close()


def test_a_stop_during_the_answer_drops_it(llm: SelfExtendLlama) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 60

    with pytest.raises(Interrupted):
        summarize_document(llm, document("Some text."), max_words=400, should_stop=stop)
    assert summarize_document(llm, document("Some text."), max_words=3).how == "whole"


@pytest.mark.process
def test_the_context_grows_with_the_documents_and_the_rest_is_read_in_parts(tiny_model: TinyModel) -> None:
    plans: list[str] = []
    job = Job(Instruction(max_tokens=8), ModelSettings(tiny_model("gqa"), replace(BATCH, n_ctx=3072, threads=1)))
    e = ModelWorker(job, on_load=plans.append)
    short, long = document("word " * 20), document("word " * 500)
    assert e.need(short) < 2048 < e.need(long) < e.largest
    for each in (short, short, long):
        outcome = e.run(each)
        assert isinstance(outcome, Summary) and outcome.how == "whole"
    assert len(plans) == 2
    over = e.run(document("word " * 1500))
    assert isinstance(over, Summary) and over.how == "parts"
    assert len(plans) == 2
    e.close()


def test_a_document_that_takes_too_long_is_a_failure(tiny_model: TinyModel) -> None:
    e = engine(tiny_model("gqa"), Instruction(max_tokens=8), answer_s=1e-6)
    outcome = e.run(document("word"))
    assert isinstance(outcome, Failure) and outcome.code == "timeout"
    e.close()


@pytest.mark.slow
def test_json_that_was_cut_is_a_failure(tiny_model: TinyModel) -> None:
    e = engine(tiny_model("gqa"), Instruction(max_tokens=2, schema='{"enum": ["a long answer in one piece"]}'))
    outcome = e.run(document("word"))
    assert isinstance(outcome, Failure) and outcome.code == "incomplete_json"
    e.close()


def test_a_request_that_is_no_request_is_a_failure(tiny_model: TinyModel) -> None:
    e = engine(tiny_model("gqa"), Instruction())
    for message in ({"role": "wizard", "content": "x"}, "x", {"role": "user", "content": None}):
        outcome = e.run({"messages": [message]})
        assert isinstance(outcome, Failure) and "send text only" in outcome.message
    e.close()
