"""Attention temperature: queries beyond the trained window are multiplied by 1 + c ln((i + 1)/L)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import reference
from support.driver import Engine
from support.logits import text
from support.reference import Reference
from support.tiny_models import TRAINED_WINDOW, TinyModel

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import GroupAttentionError

pytestmark = pytest.mark.native

C = 0.5
N_TOKENS = TRAINED_WINDOW + 200
SCHEME = (8, 64, 64)
INVALID, MEMORY = -1, -2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gqa", "swa", "hybrid"])
def test_queries_beyond_the_window_are_sharpened(tiny_model: TinyModel, kind: str) -> None:
    assert_sharpened(tiny_model(kind), flash_attn=False, tolerance=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gqa", "swa", "hybrid"])
def test_so_they_are_with_flash_attention(tiny_model: TinyModel, kind: str) -> None:
    """The bound is that of our kernels; ggml's own errs by 0.023."""
    assert_sharpened(tiny_model(kind), flash_attn=True, tolerance=0.02)


def assert_sharpened(path: Path, flash_attn: bool, tolerance: float) -> None:
    tokens = text(N_TOKENS)
    wanted = Reference(path, temperature=C).logits(tokens, reference.stepped_distance(N_TOKENS, *SCHEME))
    with Engine(path, n_ctx=N_TOKENS, flash_attn=flash_attn) as engine:
        assert engine.set_group_attn(*SCHEME) == 0
        without = engine.decode(tokens)
        engine.clear()
        assert engine.set_temperature(C) == 0
        assert engine.get_temperature() == C
        logits = engine.decode(tokens)
    assert np.abs(logits - wanted).max() < tolerance
    assert np.abs(without - wanted)[TRAINED_WINDOW + 100 :].max() > 5 * tolerance
    assert np.array_equal(logits[: TRAINED_WINDOW // 2], without[: TRAINED_WINDOW // 2])


def test_off_is_the_plain_graph(tiny_model: TinyModel) -> None:
    tokens = text(N_TOKENS)
    operations: list[str] = []
    with Engine(tiny_model("gqa"), n_ctx=N_TOKENS) as engine:
        plain = engine.decode(tokens)
    with Engine(tiny_model("gqa"), n_ctx=N_TOKENS, on_node=lambda node: operations.append(node.operation)) as engine:
        engine.decode(tokens[:1])
        before = operations[:]
        engine.clear()
        assert engine.set_temperature(C) == 0
        changed = engine.decode(tokens)
        engine.clear()
        assert engine.set_temperature(0.0) == 0
        operations.clear()
        engine.decode(tokens[:1])
        assert operations == before
        engine.clear()
        assert np.array_equal(engine.decode(tokens), plain)
    assert not np.array_equal(changed, plain)


def test_a_graph_that_is_used_again_has_the_temperature_of_now(tiny_model: TinyModel) -> None:
    tokens = text(N_TOKENS)
    answers = []
    for change in (False, True):
        with Engine(tiny_model("gqa"), n_ctx=N_TOKENS + 8) as engine:
            engine.set_temperature(0.1 if change else 2.0)
            engine.decode(tokens[:-3])
            engine.set_temperature(2.0)
            answers.append(engine.decode(tokens[-3:], batches=[1, 1, 1]))
    with Engine(tiny_model("gqa"), n_ctx=N_TOKENS + 8) as engine:
        engine.set_temperature(0.1)
        engine.decode(tokens[:-3])
        fixed = engine.decode(tokens[-3:], batches=[1, 1, 1])
    assert not np.array_equal(answers[1], fixed)
    assert np.abs(answers[1] - answers[0]).max() > 0  # the keys before were computed at another one


@pytest.mark.parametrize("c", [-0.1, 11.0, float("nan"), float("inf")])
def test_refuses_what_is_no_temperature(tiny_model: TinyModel, c: float) -> None:
    with Engine(tiny_model("gqa")) as engine:
        assert engine.set_temperature(c) == INVALID
        assert engine.get_temperature() == 0.0


def test_the_package_sets_it(tiny_model: TinyModel) -> None:
    tokens = text(N_TOKENS)
    with Engine(tiny_model("gqa"), n_ctx=512, type_k="f16", type_v="f16", flash_attn=True) as engine:
        assert engine.set_group_attn(8, 16, 8) == 0
        assert engine.set_temperature(C) == 0
        wanted = engine.decode(tokens)[-1]
    llm = SelfExtendLlama(tiny_model("gqa"), ga_n=8, ga_w=16, ga_mode="two-level", ga_temperature=C, n_ctx=512, logits_all=True)
    try:
        llm.eval(tokens)
        assert np.abs(llm.scores[N_TOKENS - 1] - wanted).max() < 0.1
        assert llm.state_settings()["ga_temperature"] == C
    finally:
        llm.close()


@pytest.mark.parametrize("c", [-1.0, 11.0])
def test_the_package_refuses_what_is_no_temperature(tiny_model: TinyModel, c: float) -> None:
    with pytest.raises(GroupAttentionError, match="ga_temperature"):
        SelfExtendLlama(tiny_model("gqa"), ga_temperature=c)


def test_refuses_a_memory_without_keys(tiny_model: TinyModel) -> None:
    with Engine(tiny_model("recurrent")) as engine:
        assert engine.set_temperature(C) == MEMORY
        assert engine.set_temperature(0.0) == 0
