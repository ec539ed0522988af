"""The reader against the tests' own driver and against Llama.generate: same likelihoods, same answers, whatever is reused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.driver import GPU_LAYERS, Engine
from support.nll import token_nll
from support.tiny_models import TinyModel

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import Interrupted
from selfextend_local.evaluation.methods import Setup
from selfextend_local.evaluation.model_reader import MEASURED, ModelReaders
from selfextend_local.evaluation.upstream_schedule import UpstreamSchedule
from selfextend_local.positions import GroupAttention

pytestmark = pytest.mark.native

SETTINGS = replace(MEASURED, threads=1, gpu_layers=GPU_LAYERS)

TOKENS = [3 + (37 * i * i + 11 * i) % 250 for i in range(700)]
# Of a token's likelihood. Logits differ by up to 0.02 on CUDA, see test_group_attention.py.
BOUND = 0.04 if GPU_LAYERS else 2e-3
GROUPED = Setup(GroupAttention(4, 32, 16))
YARN = Setup(context={"rope_scaling_type": 2, "rope_freq_scale": 0.2, "yarn_orig_ctx": 128})


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Path:
    return tiny_model("gqa")


@pytest.mark.parametrize("setup", [Setup(), GROUPED], ids=["plain", "grouped"])
def test_likelihoods_are_those_of_the_driver(model: Path, setup: Setup) -> None:
    ga = setup.group_attention
    with Engine(model, n_ctx=1024, type_k="f16", type_v="f16", flash_attn=True) as engine:
        assert engine.set_group_attn(ga.n, ga.w, ga.r) == 0
        wanted = token_nll(engine, TOKENS)
    with ModelReaders(model, SETTINGS) as readers:
        found = readers.reader(setup, 1024).nll(TOKENS)
    np.testing.assert_allclose(found, wanted, atol=BOUND)


def test_upstream_s_schedule_moves_the_keys(model: Path) -> None:
    n, w = 4, 512
    with Engine(model, n_ctx=1024, type_k="f16", type_v="f16", flash_attn=True) as engine:
        wanted = token_nll(engine, TOKENS, UpstreamSchedule(engine, n, w))
    with ModelReaders(model, SETTINGS) as readers:
        found = readers.reader(Setup(GroupAttention(n, w, 512), upstream=True), 1024).nll(TOKENS)
        plain = readers.reader(Setup(), 1024).nll(TOKENS)
    np.testing.assert_allclose(found, wanted, atol=BOUND)
    np.testing.assert_allclose(found[:511], plain[:511], atol=BOUND)
    assert np.abs(found[600:] - plain[600:]).max() > 0.01


@pytest.mark.parametrize(
    "setup", [Setup(), GROUPED, Setup(GroupAttention(4, 32, 16), upstream=True), YARN], ids=["plain", "grouped", "upstream", "yarn"]
)
def test_reusing_a_prefix_changes_nothing(model: Path, setup: Setup) -> None:
    other = [*TOKENS[:300], *reversed(TOKENS[300:400])]
    with ModelReaders(model, SETTINGS) as readers:
        reader = readers.reader(setup, 1024)
        reader.nll(TOKENS[:600])
        reused = reader.nll(other, 320)
        reader.forget()
        np.testing.assert_allclose(reused, reader.nll(other, 320), atol=max(BOUND, 5e-3))


def test_answers_are_those_of_generate(model: Path) -> None:
    llm = SelfExtendLlama(model, n_ctx=512, n_threads=1)
    llm.pin_group_attention(GROUPED.group_attention)
    wanted = [token for token, _ in zip(llm.generate(TOKENS[:400], temp=0.0), range(12), strict=False)]
    with ModelReaders(model, SETTINGS) as readers:
        reader = readers.reader(GROUPED, 512)
        assert reader.answer(TOKENS[:400], 12, ()) == llm.detokenize(wanted).decode("utf-8", "replace")
        # The same again, all of the prompt but its last token being known.
        assert reader.answer(TOKENS[:400], 12, ()) == llm.detokenize(wanted).decode("utf-8", "replace")
        stop = wanted[3]
        before = wanted[: wanted.index(stop)]
        assert reader.answer(TOKENS[:400], 12, {stop}) == llm.detokenize(before).decode("utf-8", "replace")
    llm.close()


def test_weights_are_loaded_again_only_for_other_context_parameters(model: Path) -> None:
    with ModelReaders(model, SETTINGS) as readers:
        first = readers.reader(Setup(), 512)
        assert readers.reader(GROUPED, 300) is first
        assert readers.reader(YARN, 300) is not first


def test_a_stop_ends_the_reading(model: Path) -> None:
    with ModelReaders(model, SETTINGS, should_stop=lambda: True) as readers, pytest.raises(Interrupted):
        readers.reader(Setup(), 1024).nll(TOKENS)
