"""SelfExtendLlama.generate draws as Llama.generate does, without what that does between two tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama, LlamaGrammar

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import ContextOverflow

pytestmark = pytest.mark.native

Tiny = Callable[[str], Path]
PROMPT = [int(t) for t in np.random.default_rng(3).integers(3, 250, 90)]

CHAINS: dict[str, dict[str, Any]] = {
    "greedy": dict(temp=0.0),
    "as it is by default": {},
    "penalties": dict(temp=0.0, repeat_penalty=1.5, frequency_penalty=0.3, presence_penalty=0.2),
    "hot, all filters": dict(temp=1.5, top_k=20, top_p=0.9, min_p=0.02, typical_p=0.95),
    "mirostat": dict(mirostat_mode=2, mirostat_tau=4.0),
    "distribution as it is": dict(temp=-1.0),
    "grammar": dict(temp=0.0, grammar=LlamaGrammar.from_string('root ::= [a-z]+ "," root', verbose=False)),
}


@pytest.fixture
def llm(tiny_model: Tiny) -> Iterator[SelfExtendLlama]:
    opened = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_threads=1)
    yield opened
    opened.close()


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_the_tokens_are_those_of_llama_generate(tiny_model: Tiny, chain: dict[str, Any]) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), ga_n=4, n_ctx=256, n_threads=1)
    llm.set_seed(11)
    ours = list(islice(llm.generate(PROMPT, **chain), 60))
    llm.reset()
    assert list(islice(Llama.generate(llm, PROMPT, **chain), 60)) == ours
    llm.reset()
    assert list(islice(llm.generate(PROMPT, **chain), 60)) == ours
    if chain.get("temp") != 0.0:
        llm.set_seed(12)
        llm.reset()
        assert list(islice(llm.generate(PROMPT, **chain), 60)) != ours
    llm.close()


def test_nothing_of_the_parent_runs_between_tokens(llm: SelfExtendLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = llm.generate(PROMPT, temp=0.0)
    next(drawn)
    for method in ("eval", "sample", "generate"):
        monkeypatch.setattr(Llama, method, lambda *a, **k: pytest.fail("the slow way"))
    monkeypatch.setattr(SelfExtendLlama, "eval", lambda *a: pytest.fail("the way for many tokens"))
    assert len(list(islice(drawn, 4))) == 4


def test_a_token_costs_few_calls(llm: SelfExtendLlama) -> None:
    """Calls of Python and C functions between two tokens: the driver's cost, counted, the same on every machine."""
    drawn = llm.generate(PROMPT[:40], temp=0.0)
    next(drawn)
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(8):
            next(drawn)
    finally:
        sys.setprofile(None)
    assert calls <= 8 * 16


def test_the_group_grows_while_tokens_are_drawn(llm: SelfExtendLlama) -> None:
    llm.prefill(PROMPT[:40])
    drawn = llm.generate(PROMPT[:40], temp=0.0)
    sizes = [(next(drawn), llm.group_attention.n)[1] for _ in range(400)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] > 4
    assert llm.group_attention == llm.group_attention_for(llm.n_tokens)


def test_it_ends_with_the_context(llm: SelfExtendLlama) -> None:
    count = 0
    with pytest.raises(ContextOverflow, match="513 tokens are 1 more than the 512 that fit"):
        for _ in llm.generate(PROMPT, temp=0.0):
            count += 1
    assert llm.n_tokens == 512
    assert count == 512 - len(PROMPT) + 1


def test_what_is_sent_into_it_is_read_too(llm: SelfExtendLlama) -> None:
    drawn = llm.generate(PROMPT, temp=0.0)
    first = next(drawn)
    after = drawn.send([5, 6, 7])
    assert llm.cached_tokens()[-4:].tolist() == [first, 5, 6, 7]
    assert next(llm.generate([*PROMPT, first, 5, 6, 7], temp=0.0)) == after


def test_what_the_caller_does_to_the_cache_between_two_tokens_holds(llm: SelfExtendLlama) -> None:
    drawn = llm.generate(PROMPT, temp=0.0)
    tokens = [next(drawn) for _ in range(6)]
    llm.n_tokens = len(PROMPT)  # go back to the prompt: the sixth token is read right behind it
    following = next(drawn)
    assert llm.cached_tokens().tolist() == [*PROMPT, tokens[5]]
    assert next(llm.generate([*PROMPT, tokens[5]], temp=0.0)) == following


def test_logprobs_and_callbacks_still_see_logits(tiny_model: Tiny) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, logits_all=True, n_threads=1)
    found = llm.create_completion(PROMPT, max_tokens=3, temperature=0, logprobs=2)["choices"][0]["logprobs"]
    assert len(found["token_logprobs"]) >= 3  # one more where a token is part of a character
    stopping = llm.generate(PROMPT, temp=0.0, stopping_criteria=lambda ids, logits: len(ids) > len(PROMPT) + 1)
    assert len(list(stopping)) < 4
    llm.close()
