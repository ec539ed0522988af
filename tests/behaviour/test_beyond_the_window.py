"""What a user sees beyond the trained window: the plain model is lost, group attention reads on. On the fixture model.

The model finds every key inside its window of 512 tokens; `tests/fixture_model/README.md` has the shares over many prompts,
from which the lengths here keep a distance.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fixture_model import NOISE_LINE, UNSEEN_TEXT, WINDOW, passkey_prompt

from selfextend_local.chat.conversation import Chat, Sampling
from selfextend_local.documents import load_document
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.positions import PLAIN, GroupAttention

pytestmark = [pytest.mark.process, pytest.mark.native]

DEPTHS = (0.1, 0.5, 0.8)


def loaded(path: Path, **settings: Any) -> Iterator[SelfExtendLlama]:
    llm = SelfExtendLlama(path, **settings)
    yield llm
    llm.close()


@pytest.fixture(scope="module", params=["f16", "q8_0"])
def extended(request: pytest.FixtureRequest, fixture_model: Path) -> Iterator[SelfExtendLlama]:
    yield from loaded(fixture_model, n_ctx=4 * WINDOW, kv_type=request.param)


@pytest.fixture(scope="module")
def plain(fixture_model: Path) -> Iterator[SelfExtendLlama]:
    for llm in loaded(fixture_model, n_ctx=4 * WINDOW, logits_all=True):
        llm.pin_group_attention(PLAIN)
        yield llm


def completed(llm: SelfExtendLlama, prompt: str) -> str:
    """The next words, greedy."""
    return str(llm.create_completion(prompt, max_tokens=8, temperature=0)["choices"][0]["text"])


@pytest.mark.parametrize("depth", DEPTHS)
def test_inside_the_window_the_plain_model_finds_the_key(plain: SelfExtendLlama, depth: float) -> None:
    prompt, key = passkey_prompt(1, WINDOW - 24, depth)
    assert key in completed(plain, prompt)


@pytest.mark.parametrize("windows", [2, 3])
@pytest.mark.parametrize("depth", DEPTHS)
def test_beyond_it_the_plain_model_is_lost_and_group_attention_is_not(
    plain: SelfExtendLlama, extended: SelfExtendLlama, windows: int, depth: float
) -> None:
    prompt, key = passkey_prompt(2, windows * WINDOW, depth)
    assert key in completed(extended, prompt)
    assert extended.group_attention.enabled
    assert key not in completed(plain, prompt)


@pytest.mark.parametrize("n", [4, 8, 16])
def test_a_fixed_group_finds_the_key_too(fixture_model: Path, n: int) -> None:
    prompt, key = passkey_prompt(3, {4: 2, 8: 4, 16: 4}[n] * WINDOW - 256, 0.3)
    for llm in loaded(fixture_model, ga_n=n, need_tokens={4: 2, 8: 4, 16: 4}[n] * WINDOW - 240):
        assert key in completed(llm, prompt)
        assert llm.group_attention.n == n


def nll(llm: SelfExtendLlama, tokens: list[int], after: int) -> float:
    """Nats for each token from index `after` on, in the mean."""
    llm.reset()
    llm.eval(tokens)
    scores = llm.scores[after - 1 : len(tokens) - 1].astype(np.float64)
    top = scores.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
    return float((log_sum - scores[np.arange(len(scores)), tokens[after:]]).mean())


def test_unseen_text_stays_readable_beyond_the_window_with_groups_alone(plain: SelfExtendLlama) -> None:
    tokens = plain.tokenize(UNSEEN_TEXT.read_bytes(), add_bos=False)[: 3 * WINDOW]
    inside = nll(plain, tokens[:WINDOW], WINDOW // 2)
    without = nll(plain, tokens, 2 * WINDOW)
    plain.pin_group_attention(GroupAttention(8, 64, 32))
    grouped = nll(plain, tokens, 2 * WINDOW)
    plain.pin_group_attention(PLAIN)
    assert grouped < inside + 0.5
    assert without > grouped + 1.0


def test_a_passage_is_copied_over_a_distance_beyond_the_window(plain: SelfExtendLlama) -> None:
    words = UNSEEN_TEXT.read_text(encoding="utf-8").split()
    passage = " ".join(random.Random(5).sample(words, 24))
    prompt = f"{passage}\n{' '.join([NOISE_LINE] * 42)}\n{passage}".encode()
    tokens = plain.tokenize(prompt, add_bos=False)
    repeated = len(tokens) - len(plain.tokenize(passage.encode(), add_bos=False)) + 6
    assert repeated > 2 * WINDOW
    without = nll(plain, tokens, repeated)
    plain.pin_group_attention(GroupAttention(8, 64, 32))
    grouped = nll(plain, tokens, repeated)
    plain.pin_group_attention(PLAIN)
    assert grouped < 1.5
    assert without > grouped + 2.0


def test_a_conversation_outgrows_the_window_and_still_knows_its_document(fixture_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.md"
    lines = [NOISE_LINE] * 4
    lines[1] = "The pass key of the north vault is 48213."
    path.write_text("# Keys\n\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    for llm in loaded(fixture_model, n_ctx=4 * WINDOW):
        chat = Chat(llm, documents=[load_document(path)], sampling=Sampling(max_tokens=24))
        question = "What is the pass key of the north vault?"
        assert "48213" in "".join(chat.ask(question))
        assert not llm.group_attention.enabled
        for _ in range(4):
            "".join(chat.ask(" ".join([NOISE_LINE] * 10) + f" {question}"))
        assert "48213" in "".join(chat.ask(question))
        assert llm.group_attention.enabled
        assert chat.n_used > 2 * WINDOW


def test_recall_is_the_plain_model_up_to_the_window_and_takes_over_behind_it(fixture_model: Path) -> None:
    words = list(np.random.default_rng(3).integers(10, 1000, 3 * WINDOW).tolist())
    within = WINDOW - 8
    plain = SelfExtendLlama(fixture_model, ga_n=1, n_ctx=WINDOW, logits_all=True)
    llm = SelfExtendLlama(fixture_model, ga_mode="recall", n_ctx=3 * WINDOW, logits_all=True)
    plain.prefill(words[:within])
    llm.prefill(words[:within])
    assert not llm.group_attention.enabled
    assert np.array_equal(llm.scores[:within], plain.scores[:within])
    growth = llm.next_growth()
    assert growth is not None and growth[0] == WINDOW + 1 and growth[1].recall
    more = llm.prefill(words[: 2 * WINDOW])
    assert (more.n_reused, llm.group_attention) == (within, growth[1])
    llm.prefill(words[:within])
    assert not llm.group_attention.enabled
    assert np.array_equal(llm.scores[:within], plain.scores[:within])
    plain.close()
    llm.close()


def test_the_automatic_choice_goes_from_groups_to_recall_in_mid_text(fixture_model: Path) -> None:
    words = list(np.random.default_rng(3).integers(10, 1000, 9 * WINDOW).tolist())
    llm = SelfExtendLlama(fixture_model, n_ctx=9 * WINDOW)
    llm.prefill(words[: 7 * WINDOW])
    assert llm.group_attention.mode == "progressive"
    assert llm.prefill(words[: 9 * WINDOW - 4]).n_reused == 7 * WINDOW
    assert llm.group_attention.mode == "recall"
    assert llm.takes_group_attention(GroupAttention(64, 64, 32, progressive=True), 9 * WINDOW)
    llm.close()
