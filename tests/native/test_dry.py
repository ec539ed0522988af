"""DRY over an answer: it keeps the model from going round in circles, and what the prompt says may be said again for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.generation.loops import loop_at_end

pytestmark = pytest.mark.native

KEY = "The pass key is 48213. Remember it. 48213 is the pass key."
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@pytest.fixture(scope="module")
def llm(fixture_model: Path) -> Iterator[SelfExtendLlama]:
    made = SelfExtendLlama(fixture_model, n_ctx=1024)
    yield made
    made.close()


def drawn(llm: SelfExtendLlama, prompt: str, count: int, dry: float, temperature: float = 0.0) -> list[int]:
    llm.set_seed(7)
    return list(islice(llm.generate(llm.tokenize(prompt.encode(), add_bos=False), temp=temperature, dry=dry), count))


@pytest.mark.slow
def test_an_answer_that_goes_round_in_circles_stops_doing_so(llm: SelfExtendLlama) -> None:
    prompt = f"{NOISE}\n" * 6
    assert loop_at_end(drawn(llm, prompt, 150, 0.0))
    assert not any(loop_at_end(said[:end]) for said in [drawn(llm, prompt, 150, 0.8)] for end in range(151))


def test_what_the_prompt_says_may_be_quoted_for_nothing(llm: SelfExtendLlama) -> None:
    # Eight times in the prompt; as a repetition of the answer's own words it would cost more than any logit.
    prompt = f"{NOISE}\n{KEY}\n" * 4 + "What is the pass key? The pass key is"
    # The space, the five digits and the full stop.
    plain, penalised = (drawn(llm, prompt, 7, dry) for dry in (0.0, 50.0))
    assert b"48213" in llm.detokenize(plain)
    assert penalised == plain


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_seed_gives_the_same_answer(llm: SelfExtendLlama, temperature: float) -> None:
    answers = []
    for _ in range(2):
        llm.reset()  # a prompt whose last token alone is read again may be rounded otherwise
        answers.append(drawn(llm, f"{NOISE}\n" * 3, 60, 0.8, temperature))
    assert answers[0] == answers[1]
