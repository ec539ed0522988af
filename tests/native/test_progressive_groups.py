"""Several levels of groups: the library computes what the reference computes, whatever happens to the cache meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support import reference
from support.driver import Engine
from support.logits import CUTS, assert_close, text
from support.reference import Reference
from support.tiny_models import REFERENCE_KINDS, TinyModel

from selfextend_local.positions import GroupAttention

pytestmark = pytest.mark.native

N_TOKENS = 200
Levels = list[tuple[int, int, int]]
THREE: Levels = [(2, 16, 8), (4, 40, 16), (8, 96, 32)]
COARSE_STEPS: Levels = [(2, 16, 4), (8, 40, 64)]


def expected(path: str, levels: Levels, n_tokens: int = N_TOKENS) -> np.ndarray:
    return Reference(path).logits(text(n_tokens), reference.progressive_distance(n_tokens, levels))


def levelled(path: str, levels: Levels, **parameters: int) -> Engine:
    engine = Engine(path, **parameters)
    assert engine.set_levels(levels) == 0
    return engine


def test_one_level_is_the_two_level_form() -> None:
    one = reference.progressive_distance(150, [(4, 32, 16)])
    visible = np.tril(np.ones(one.shape, dtype=bool))
    assert np.array_equal(one[visible], np.asarray(reference.stepped_distance(150, 4, 32, 16))[visible])


@pytest.mark.parametrize("ga", [GroupAttention(8, 16, 8, True), GroupAttention(16, 5, 16, True), GroupAttention(2, 32, 16, True)])
def test_the_arithmetic_of_the_package_is_the_reference_s(ga: GroupAttention) -> None:
    levels = [(level.n, level.w, level.r) for level in ga.levels]
    theirs = reference.progressive_distance(300, levels)
    for i in (0, 17, 100, 299):
        assert [ga.relative_position(i, j) for j in range(i + 1)] == list(theirs[i, : i + 1])


@pytest.mark.slow
@pytest.mark.parametrize("levels", [THREE, COARSE_STEPS], ids=["three levels", "coarse steps"])
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_agrees_with_the_reference(tiny_model: TinyModel, kind: str, levels: Levels) -> None:
    path = tiny_model(kind)
    with levelled(path, levels) as engine:
        assert engine.get_levels() == levels
        assert_close(engine.decode(text(N_TOKENS)), expected(path, levels))


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_any_way_to_cut_the_batches(tiny_model: TinyModel, cut: str) -> None:
    path = tiny_model("gqa")
    parameters, batches = CUTS[cut]
    with levelled(path, THREE, **parameters) as engine:
        assert_close(engine.decode(text(N_TOKENS), batches=batches), expected(path, THREE))


def test_rollback_across_coarse_steps(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    with levelled(path, COARSE_STEPS) as engine:
        engine.decode([*text(110), *text(90, seed=9)])
        assert engine.seq_rm(0, 110)
        assert_close(engine.decode(text(N_TOKENS)[110:], pos0=110), expected(path, COARSE_STEPS)[110:])


def test_changes_of_the_levels_in_mid_text(tiny_model: TinyModel) -> None:
    path, stretches = tiny_model("gqa"), [(80, [(4, 32, 16)]), (150, THREE), (180, [(1, 32, 16)]), (N_TOKENS, COARSE_STEPS)]
    distance = np.zeros((N_TOKENS, N_TOKENS), dtype=int)
    start = 0
    for end, levels in stretches:
        plain = levels[0][0] == 1
        whole = reference.plain_distance(N_TOKENS) if plain else reference.progressive_distance(N_TOKENS, levels)
        distance[start:end] = whole[start:end]
        start = end
    wanted = Reference(path).logits(text(N_TOKENS), distance)
    with Engine(path) as engine:
        start = 0
        for end, levels in stretches:
            assert engine.set_levels(levels) == 0
            assert_close(engine.decode(text(N_TOKENS)[start:end]), wanted[start:end])
            start = end


def test_save_and_restore(tiny_model: TinyModel) -> None:
    path, cut = tiny_model("gqa"), 130
    with levelled(path, THREE) as engine:
        engine.decode(text(N_TOKENS)[:cut])
        state = engine.save(0)
    with levelled(path, THREE) as engine:
        assert engine.load(state, 0) == len(state)
        assert_close(engine.decode(text(N_TOKENS)[cut:], pos0=cut), expected(path, THREE)[cut:])


WRONG: dict[str, Sequence[tuple[int, int, int]]] = {
    "no level": [],
    "more than eight": [(2**k, 16 * k, 512) for k in range(1, 10)],
    "n no multiple of the one before": [(4, 16, 48), (6, 32, 48)],
    "r no multiple of the one before": [(2, 16, 8), (4, 32, 12)],
    "w smaller than the one before": [(2, 16, 8), (4, 8, 8)],
    "r no multiple of n": [(2, 16, 8), (16, 32, 8)],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_refuses_levels_out_of_order(tiny_model: TinyModel, wrong: str) -> None:
    with levelled(tiny_model("gqa"), THREE) as engine:
        assert engine.set_levels(WRONG[wrong]) == -1
        assert engine.get_levels() == THREE
