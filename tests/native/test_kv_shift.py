"""Defects of the shift of keys in the cache. Each test fails on the stock library and passes on the patched one."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from support import reference
from support.driver import GPU_LAYERS, Engine, Node
from support.processes import assert_runs
from support.reference import Reference
from support.tiny_models import HEAD_DIM, N_HEAD_KV, N_VOCAB, TinyModel

pytestmark = pytest.mark.native

# Largest difference of a logit after a shift of float32 keys; without the defect 3e-5 is measured, with it 2 to 6.
# On CUDA 0.02, see test_group_attention.py.
F32_BOUND = 0.08 if GPU_LAYERS else 1e-3


def text(n_tokens: int, seed: int = 2) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, N_VOCAB, n_tokens)]


@pytest.mark.parametrize("kind", ["gqa", "partial-rotary", "qkv-bias"])
def test_pos_div_rotates_the_right_way(tiny_model: TinyModel, kind: str) -> None:
    """Design 3.1: half the text is moved to position / 4, and the rest is moved up behind it."""
    tokens, half, end, divisor = text(80), 32, 64, 4
    with Engine(tiny_model(kind)) as engine:
        engine.decode(tokens[:end])
        engine.seq_div(0, 0, half, divisor)
        gap = half - half // divisor
        engine.seq_add(0, half, end, -gap)
        got = engine.decode(tokens[end:], pos0=end - gap)

    distance = reference.plain_distance(len(tokens)).copy()
    distance[end:, :half] = (np.arange(end, len(tokens)) - gap)[:, None] - np.arange(half) // divisor
    expected = Reference(tiny_model(kind)).logits(tokens, distance)[end:]
    assert np.abs(got - expected).max() < F32_BOUND


@pytest.mark.parametrize("n_shifts", [1, 4])
def test_k_shift_under_yarn_keeps_magnitudes(tiny_model: TinyModel, n_shifts: int) -> None:
    """Design 3.2: all positions moved by the same amount change nothing, whatever the magnitude factor."""
    tokens, start = text(80), 48
    yarn: dict[str, Any] = {"rope_scaling_type": 2, "rope_freq_scale": 0.25, "yarn_orig_ctx": 128}
    with Engine(tiny_model("gqa"), **yarn) as engine:
        expected = engine.decode(tokens)[start:]
        engine.clear()
        engine.decode(tokens[:start])
        for shift in range(n_shifts):
            engine.seq_add(0, 0, -1, 8)
            # a decoded and removed token applies the shift, so that the next one does not merge with it
            engine.decode(tokens[:1], pos0=start + 8 * (shift + 1))
            engine.seq_rm(0, start + 8 * (shift + 1))
        got = engine.decode(tokens[start:], pos0=start + 8 * n_shifts)
    assert np.abs(got - expected).max() < F32_BOUND


GGML_TYPES = {"q8_0": 8, "q4_0": 2}


def cached_keys(engine: Engine, cache_type: str, n_cells: int, row_bytes: int, n_layer: int = 2) -> np.ndarray:
    """K of a sequence [layer, cell, byte]: in its state a type (4 bytes), a row size (8) and the rows for each layer, where K begins
    behind the layout of V (4) and the number of layers (4). What the patches add stands before and behind."""
    section, state = 12 + n_cells * row_bytes, engine.save(0)
    head = struct.pack("<IIiQ", 0, n_layer, GGML_TYPES[cache_type], row_bytes)
    assert state.count(head) == 1
    start = state.index(head) + 8
    keys = np.frombuffer(state, dtype=np.uint8)[start : start + n_layer * section].reshape(n_layer, section)
    return keys[:, 12:].reshape(n_layer, n_cells, row_bytes)


@pytest.mark.parametrize(("cache_type", "block_bytes"), [("q8_0", 34), ("q4_0", 18)])
def test_k_shift_touches_only_cells_that_move(tiny_model: TinyModel, cache_type: str, block_bytes: int) -> None:
    """Design 3.3: the keys that stay keep their bytes, and the work follows the cells that move, not the size of the cache."""
    tokens, start, moved = text(96), 64, 4
    row_bytes = HEAD_DIM * N_HEAD_KV // 32 * block_bytes
    rotated_by_size: dict[int, int] = {}
    for n_ctx in (512, 4096):
        rotated = [0]

        def count(node: Node, rotated: list[int] = rotated) -> None:
            rotated[0] += node.n_values if node.operation == "ROPE" else 0

        cache: dict[str, Any] = {"type_k": cache_type, "type_v": cache_type, "flash_attn": True}
        with Engine(tiny_model("gqa"), n_ctx=n_ctx, on_node=count, **cache) as engine:
            engine.decode(tokens)
            before = cached_keys(engine, cache_type, len(tokens), row_bytes)
            engine.seq_rm(0, start - moved, start)
            engine.seq_add(0, start, -1, -moved)
            rotated[0] = 0
            engine.decode(tokens[:1])
            rotated_by_size[n_ctx] = rotated[0]
            engine.seq_rm(0, len(tokens) - moved)
            after = cached_keys(engine, cache_type, len(tokens) - moved, row_bytes)
        stay, gone = start - moved, start
        assert (after[:, :stay] == before[:, :stay]).all()
        assert (after[:, stay:] != before[:, gone:]).any(axis=2).all(), "a cell that should move did not"
    assert rotated_by_size[4096] == rotated_by_size[512]


# Largest and root-mean-square difference of a logit when all keys are turned, and so quantised twice.
# Measured: q8_0 0.12 and 0.03, q4_0 1.0 and 0.24.
REQUANTISED_BOUNDS = {"q8_0": (0.5, 0.1), "q4_0": (4.0, 0.6)}


@pytest.mark.slow
@pytest.mark.parametrize("cache_type", REQUANTISED_BOUNDS)
@pytest.mark.parametrize("kind", ["gqa", "partial-rotary"])
def test_quantised_k_with_partial_rotary_survives_a_shift(tiny_model: TinyModel, kind: str, cache_type: str) -> None:
    """Design 3.4: the rotation before quantising spans the head, so the shift must undo it over the whole head.
    In a process of its own, since the stock library aborts ("gqa" shows that a full rotary dimension works there)."""
    largest, mean_square = REQUANTISED_BOUNDS[cache_type]
    script = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from support.driver import Engine

        tokens, start, shift = np.random.default_rng(2).integers(3, 200, 96).tolist(), 64, 7
        with Engine(Path(sys.argv[1]), type_k="{cache_type}", type_v="f16", flash_attn=True) as engine:
            expected = engine.decode(tokens)[start:]
            engine.clear()
            engine.decode(tokens[:start])
            engine.seq_add(0, 0, -1, shift)
            difference = engine.decode(tokens[start:], pos0=start + shift) - expected
        largest, mean_square = np.abs(difference).max(), np.sqrt(np.mean(difference**2))
        print("{kind} {cache_type}", largest, mean_square)
        assert largest < {largest} and mean_square < {mean_square}, (largest, mean_square)
    """
    assert_runs(script, tiny_model(kind))


@pytest.mark.slow
def test_a_boundary_step_keeps_the_graphs_of_the_context(tiny_model: TinyModel) -> None:
    """A step has a scheduler of its own: each token after the first reuses the graph of the one before, also where a step falls.
    In a process of its own, since a library that computes a graph which the step has taken apart aborts."""
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        from support.driver import Engine

        tokens, window = np.random.default_rng(2).integers(3, 200, 72).tolist(), 16
        with Engine(Path(sys.argv[1]), n_ctx=256) as engine:
            engine.set_group_attn(4, window, window)
            engine.decode(tokens[:1])
            for at, token in enumerate(tokens[1:], start=1):
                before = engine.n_graphs_reused()
                engine.decode([token])
                assert engine.n_graphs_reused() == before + 1, f"the graph was built anew for the token at {at}"
    """
    assert_runs(script, tiny_model("gqa"))


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["seq_add(0, 0, -1, 3)", "seq_div(0, 0, -1, 2)"])
def test_unsupported_models_return_an_error(tiny_model: TinyModel, operation: str) -> None:
    """Design 3.7: M-RoPE positions cannot be moved. In a process of its own, since the stock library aborts."""
    script = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from support.driver import Engine

        tokens = np.random.default_rng(2).integers(3, 200, 40).tolist()
        with Engine(Path(sys.argv[1])) as engine:
            expected = engine.decode(tokens)[20:]
            engine.clear()
            engine.decode(tokens[:20])
            assert engine.{operation} is False
            assert engine.pos_min() == 0 and engine.pos_max() == 19
            assert np.abs(engine.decode(tokens[20:]) - expected).max() < 1e-3
    """
    assert_runs(script, tiny_model("mrope"))
