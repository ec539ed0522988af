"""A question about a kept text is asked behind it, taken back and another asked: the thousandth is answered as well as the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support import reference
from support.driver import Engine
from support.logits import text
from support.reference import Reference
from support.tiny_models import TinyModel

pytestmark = [pytest.mark.native, pytest.mark.process]

Levels = Sequence[tuple[int, int, int]]  # n, w, r from the nearest on

TWO_LEVELS: Levels = [(4, 32, 16)]
PROGRESSIVE: Levels = [(2, 16, 8), (4, 32, 16), (8, 64, 32)]
KEPT = {1: 101, 3: 157}  # tokens of the text by the number of levels: the question crosses a border of each level
QUESTION = 13
TIMES = 1000


def errors(path: Path, levels: Levels, cache_type: str) -> dict[int, float]:
    """Root mean square difference of a question's logits from the float64 reference, by how often it was asked before."""
    kept = KEPT[len(levels)]
    tokens = text(kept + QUESTION)
    wanted = Reference(path).logits(tokens, reference.progressive_distance(len(tokens), levels))[kept:]
    found = {}
    with Engine(path, type_k=cache_type, type_v="f16", flash_attn=True) as engine:
        assert engine.set_levels(levels) == 0
        engine.decode(tokens[:kept], batches=[48, 16])
        for asked in range(TIMES + 1):
            got = engine.decode(tokens[kept:], pos0=kept)
            assert engine.seq_rm(0, kept)
            if asked in (0, TIMES):
                found[asked] = float(np.sqrt(np.mean((got - wanted) ** 2)))
    return found


@pytest.mark.parametrize(
    ("levels", "cache_type"),
    [
        pytest.param(TWO_LEVELS, "f16", id="f16"),
        pytest.param(TWO_LEVELS, "q8_0", id="q8_0"),
        pytest.param(TWO_LEVELS, "q4_0", id="q4_0"),
        pytest.param(PROGRESSIVE, "q8_0", id="progressive-q8_0"),
        pytest.param(PROGRESSIVE, "q4_0", id="progressive-q4_0"),
    ],
)
def test_the_thousandth_question_is_read_as_well_as_the_first(tiny_model: TinyModel, levels: Levels, cache_type: str) -> None:
    found = errors(tiny_model("gqa"), levels, cache_type)
    print(f"{cache_type}, {len(levels)} levels: {found[0]:.4f} at first, {found[TIMES]:.4f} after {TIMES} times")
    assert found[TIMES] < 1.1 * found[0]
