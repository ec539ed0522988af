"""The design's NLL table on a real model: 3,072 tokens that fit the trained window.

Group attention may cost nothing there (its exact neighbourhood carries the text), and upstream's schedule costs much
on a library that rotates the wrong way.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.driver import Engine
from support.nll import token_nll

from selfextend_local.engine.peek import ModelPeek
from selfextend_local.evaluation.upstream_schedule import UpstreamSchedule

pytestmark = pytest.mark.model

N_TOKENS = 3072
F16, Q8_0 = "f16", "q8_0"


def engine(path: Path, kv_type: str) -> Engine:
    return Engine(path, n_ctx=4096, n_batch=512, n_ubatch=512, type_k=kv_type, type_v=F16, flash_attn=True, n_threads=2)


@pytest.fixture(scope="module")
def tokens(default_model: Path, story: str) -> list[int]:
    with ModelPeek(default_model) as peek:
        return peek.tokenize(story)[:N_TOKENS]


@pytest.fixture(scope="module")
def plain(default_model: Path, tokens: list[int]) -> float:
    with engine(default_model, F16) as e:
        return float(token_nll(e, tokens).mean())


def test_group_attention_costs_nothing_within_the_window(default_model: Path, tokens: list[int], plain: float) -> None:
    with engine(default_model, F16) as e:
        assert e.set_group_attn(4, 512, 256) == 0
        grouped = float(token_nll(e, tokens).mean())
    print(f"NLL plain {plain:.4f}, group attention {grouped:.4f}")
    assert grouped == pytest.approx(plain, abs=0.005)


def test_quantised_keys_lose_nothing(default_model: Path, tokens: list[int]) -> None:
    nll = {}
    for kv_type in (F16, Q8_0):
        with engine(default_model, kv_type) as e:
            assert e.set_group_attn(4, 512, 512) == 0
            nll[kv_type] = float(token_nll(e, tokens[:2048]).mean())
    assert nll[Q8_0] == pytest.approx(nll[F16], abs=0.005)


def test_upstream_s_schedule_is_mended_too(default_model: Path, tokens: list[int], plain: float) -> None:
    """Without the first patch it is far off, by 2.6 nats: `make prove-patches` runs this on such a library."""
    with engine(default_model, F16) as e:
        mended = float(token_nll(e, tokens, UpstreamSchedule(e, 4, 512)).mean())
    print(f"NLL plain {plain:.4f}, upstream's schedule on the mended library {mended:.4f}")
    assert mended == pytest.approx(plain, abs=0.1)
