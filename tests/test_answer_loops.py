"""An answer that goes round in circles ends, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.generation.loops import LONGEST, TIMES, TOKENS
from selfextend_local.generation.prompts import ModelVocabulary, Prompts
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import Writing
from selfextend_local.server.requests import text_request

pytestmark = pytest.mark.native


@pytest.fixture
def llm(fixture_model: Path) -> SelfExtendLlama:
    return SelfExtendLlama(str(fixture_model), n_ctx=512, n_threads=1)


def written(llm: SelfExtendLlama, tokens: list[int], sampling: Sampling) -> Writing:
    writing = Writing(llm, Prompts(ModelVocabulary(llm)), sampling, 10_000)
    for token in tokens:
        if writing.is_over:
            break
        writing.take(token)
    return writing


@pytest.mark.parametrize("length", [1, 3, TOKENS // TIMES, LONGEST])
def test_it_ends_when_a_phrase_has_been_said_often_enough(llm: SelfExtendLlama, length: int) -> None:
    beginning, phrase = list(range(300, 310)), list(range(100, 100 + length))
    writing = written(llm, beginning + phrase * 100, Sampling(max_tokens=5000))
    assert (writing.stop_reason, len(writing.tokens)) == ("loop", len(beginning) + max(TIMES * length, TOKENS))


def test_what_a_schema_asks_for_may_repeat(llm: SelfExtendLlama) -> None:
    sampling = Sampling(max_tokens=200, schema='{"type": "array", "items": {"type": "integer"}}')
    assert written(llm, [100] * 300, sampling).stop_reason == "length"


def test_saying_the_same_again_costs_unless_a_schema_or_a_text_that_is_continued_may_ask_for_it() -> None:
    assert Sampling().chain()["dry"] == Sampling().dry > 0
    assert Sampling(schema='{"type": "array"}').chain()["dry"] == 0
    assert text_request({"prompt": "def f("}, Sampling()).sampling.dry == 0
    assert text_request({"prompt": "def f(", "dry": 2}, Sampling()).sampling.dry == 2


def test_what_differs_a_little_goes_on(llm: SelfExtendLlama) -> None:
    lines = [token for number in range(20) for token in (100, 101, 102, 103, 104, 200 + number)]
    assert written(llm, lines, Sampling(max_tokens=len(lines))).stop_reason == "length"
