"""The library without group attention computes what the reference computes, and the reference agrees with itself."""

from __future__ import annotations

import numpy as np
import pytest
from support import reference
from support.driver import GPU_LAYERS, Engine
from support.reference import Reference
from support.tiny_models import N_VOCAB, REFERENCE_KINDS, REFUSED_KINDS, TinyModel

pytestmark = pytest.mark.native

N_TOKENS = 120

# Largest difference of a logit (standard deviation 2) from the float64 reference, over all kinds; measured value beside.
# Flash attention computes in f16 whatever the cache type, so only a run without it can show float32 accuracy, and that on a CPU:
# Vulkan multiplies f32 matrices in f16, or with GGML_VK_DISABLE_F16 those that are not contiguous, as K is (0.036 and 6.4e-3).
BOUNDS = {
    ("f32", False): 0.08 if GPU_LAYERS else 1e-3,  # 7e-5
    ("f16", False): 5e-2,  # 1.7e-2
    ("f16", True): 5e-2,  # 2.8e-2
    ("q8_0", True): 1.0,  # 0.35
}
# The root mean square is sharper for a quantised cache; measured 7e-6, 2.5e-3, 3.5e-3 and 0.06.
RMS_BOUNDS = {("f32", False): 1e-2 if GPU_LAYERS else 1e-4, ("f16", False): 1e-2, ("f16", True): 1e-2, ("q8_0", True): 0.15}

# What two steps too many for the far keys do to the logits of a token, at least (measured 0.65 to 2.3).
TWO_STEPS_SHOW = 0.3


def text(n_tokens: int = N_TOKENS, seed: int = 1) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, N_VOCAB, n_tokens)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_plain_decode_agrees(tiny_model: TinyModel, kind: str) -> None:
    expected = Reference(tiny_model(kind)).logits(text())
    for (cache_type, flash_attn), bound in BOUNDS.items():
        with Engine(tiny_model(kind), type_k=cache_type, type_v=cache_type, flash_attn=flash_attn) as engine:
            difference = engine.decode(text(), batches=[77, 1, 1, 41]) - expected
        assert np.abs(difference).max() < bound, cache_type
        assert np.sqrt(np.mean(difference**2)) < RMS_BOUNDS[cache_type, flash_attn], cache_type


@pytest.mark.slow
def test_sliding_window_cache_that_wraps_agrees(tiny_model: TinyModel) -> None:
    """256 cells of the local layers, 300 tokens: the oldest cells are used again."""
    expected = Reference(tiny_model("swa")).logits(text(300))
    with Engine(tiny_model("swa"), n_ubatch=64) as engine:
        assert np.abs(engine.decode(text(300)) - expected).max() < BOUNDS["f32", False]


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_logits_show_a_key_turned_two_steps_too_far(tiny_model: TinyModel, kind: str) -> None:
    model = Reference(tiny_model(kind))
    plain = reference.plain_distance(N_TOKENS)
    wrong = model.logits(text(), np.where(plain > 20, plain - 2, plain))
    assert np.abs(wrong - model.logits(text()))[30:].max(axis=1).min() > TWO_STEPS_SHOW


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_other_kinds_decode(tiny_model: TinyModel, kind: str) -> None:
    with Engine(tiny_model(kind), n_ctx=128) as engine:
        logits = engine.decode(text(100), batches=[64, 1, 35])
    assert np.isfinite(logits).all()
    assert 1 < logits.std() < 4


# The schemes of the reference


@pytest.mark.parametrize(("n", "w", "r"), [(1, 8, 4), (1, 32, 32), (4, N_TOKENS, 16), (8, 10 * N_TOKENS, 8)])
def test_one_group_or_a_wide_window_is_plain(n: int, w: int, r: int) -> None:
    plain = reference.plain_distance(N_TOKENS)
    assert (reference.stepped_distance(N_TOKENS, n, w, r) == plain).all()
    assert (reference.paper_distance(N_TOKENS, n, w) == plain).all()


@pytest.mark.parametrize(("n", "w", "r"), [(2, 8, 4), (4, 16, 16), (8, 32, 8)])
def test_the_built_form_is_the_papers_outside_the_breathing_window(n: int, w: int, r: int) -> None:
    """Exact below w in both; beyond w + r both floor query and key, and differ by the rounding of the boundary at most."""
    i, j = np.tril_indices(N_TOKENS)
    built = reference.stepped_distance(N_TOKENS, n, w, r)[i, j]
    paper = reference.paper_distance(N_TOKENS, n, w)[i, j]
    near, far = i - j < w, i - j >= w + r
    assert (built[near] == (i - j)[near]).all()
    assert (built[near] == paper[near]).all()
    boundary = np.maximum(0, (i - w) // r * r)
    breathing = ~near & ~far
    assert (built[breathing & (j >= boundary)] == (i - j)[breathing & (j >= boundary)]).all()
    window_now = i - boundary
    assert np.abs(built - paper)[far].max() <= np.max((window_now - w) - (window_now - w) // n) + 1


def test_a_custom_scheme_can_spell_the_built_one() -> None:
    n, w, r = 4, 16, 8

    def boundary(i: int) -> int:
        return max(0, (i - w) // r * r)

    def exact(position: int, b: int) -> int:
        return position - (b - b // n)

    spelt = reference.custom_distance(
        64, lambda i: exact(i, boundary(i)), lambda i, j: j // n if j < boundary(i) else exact(j, boundary(i))
    )
    lower = np.tril_indices(64)
    assert (spelt[lower] == reference.stepped_distance(64, n, w, r)[lower]).all()


def test_largest_rotation_is_what_the_design_promises() -> None:
    """(N - 1 - b) + b / n with b = boundary(N - 1): what has to stay below the trained window."""
    n, w, r = 8, 32, 16
    b = max(0, (N_TOKENS - 1 - w) // r * r)
    assert reference.stepped_distance(N_TOKENS, n, w, r)[-1, 0] == (N_TOKENS - 1 - b) + b // n
