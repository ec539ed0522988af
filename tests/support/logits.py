"""Texts of random tokens, ways to cut them into batches, and the comparison of their logits with the reference's."""

from __future__ import annotations

from typing import Any

import numpy as np

from .driver import GPU_LAYERS
from .tiny_models import N_VOCAB

# Largest difference of a logit (standard deviation 2) from the float64 reference with float32 keys; measured 7e-5 over all tests.
# On CUDA 0.05: for micro-batches of 4 to 16 tokens it multiplies in TF32, which has ten bits of mantissa (plain model too, see
# test_errs_no_more_than_the_plain_model). On Vulkan 0.04, which multiplies in f16; the plain model errs by as much (test_reference.py).
F32_BOUND = 0.08 if GPU_LAYERS else 1e-3

CUTS: dict[str, tuple[dict[str, Any], list[int] | None]] = {
    "one batch": ({}, None),
    "micro-batches that meet the steps": ({"n_ubatch": 16}, None),
    "small odd batches": ({}, [5, 1, 1, 33, 7]),
    "token by token after a prompt": ({"n_ubatch": 64}, [70, 1]),
    "micro-batches that miss the steps": ({"n_ubatch": 23}, [100, 20]),
}


def text(n_tokens: int = 120, seed: int = 3) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, N_VOCAB, n_tokens)]


def assert_close(got: np.ndarray, expected: np.ndarray, bound: float = F32_BOUND) -> None:
    assert got.shape == expected.shape
    wrong = np.abs(got - expected).max(axis=1)
    assert wrong.max() < bound, f"first wrong row {np.argmax(wrong >= bound)} of {len(wrong)}, largest difference {wrong.max():.2g}"
