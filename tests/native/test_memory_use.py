"""llama_get_memory_use: simulated figures are what a real context takes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from support.driver import GPU_LAYERS
from support.processes import assert_runs

from selfextend_local import native
from selfextend_local.positions import GroupAttention

pytestmark = pytest.mark.native

N_LAYER, N_CTX, WIDTH = 2, 512, 2 * 64  # tiny "gqa" model: two KV heads of 64


def context(model: Any) -> Any:
    llama_cpp = native.bindings()
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = N_CTX, 64, 64
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    made = llama_cpp.llama_init_from_model(model, params)
    assert made
    return made


def real_use(path: Path) -> tuple[int, int, int]:
    llama_cpp = native.bindings()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    made = context(model)
    used = [0, 0, 0]
    for host in (True, False):
        parts = [ctypes.c_uint64() for _ in range(3)]
        llama_cpp._lib.llama_get_memory_use(ctypes.c_void_p(made), host, *map(ctypes.byref, parts))
        used = [one + part.value for one, part in zip(used, parts, strict=True)]
    llama_cpp.llama_free(made)
    llama_cpp.llama_model_free(model)
    return used[0], used[1], used[2]


@pytest.mark.parametrize(("kv_type", "bytes_per_value"), [("f16", 2.0), ("q8_0", 34 / 32), ("q4_0", 18 / 32)])
def test_simulated_memory_is_what_the_context_takes(tiny_model: Callable[[str], Path], kv_type: str, bytes_per_value: float) -> None:
    path = tiny_model("gqa")
    model = native.open_model_without_weights(path)
    try:
        use = native.memory_use(model, n_ctx=N_CTX, n_batch=64, n_ubatch=64, kv_type=kv_type, flash_attn=True)
    finally:
        native.free_model(model)
    assert use is not None
    use = native.MemoryUse(*(sum(parts) for parts in zip(*map(astuple, use), strict=True)))
    # a device pads each tensor
    assert use.kv_cache == pytest.approx(N_LAYER * N_CTX * 2 * WIDTH * bytes_per_value, rel=0.02 if GPU_LAYERS else 0)
    if kv_type == "f16":
        weights, kv_cache, compute = real_use(path)
        assert use.kv_cache == kv_cache
        # Vulkan adds 32 bytes to a buffer on the host when it allocates it
        assert use.compute == pytest.approx(compute, abs=32 if GPU_LAYERS else 0)
        assert use.weights == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_copies_of_near_keys_count(tiny_model: Callable[[str], Path], kv_type: str) -> None:
    """w + 2r keys in f16: of a quantised cache as they were computed, of an f16 one as they are before a border moves back."""
    copies = 64
    model = native.open_model_without_weights(tiny_model("gqa"))
    sizes = []
    try:
        for ga in (None, GroupAttention(4, 32, 16)):
            use = native.memory_use(
                model, n_ctx=N_CTX, n_batch=64, n_ubatch=64, kv_type=kv_type, flash_attn=True, group_attention=ga
            )
            assert use is not None
            sizes.append(sum(part.kv_cache for part in use))
    finally:
        native.free_model(model)
    assert sizes[1] - sizes[0] == pytest.approx(N_LAYER * copies * WIDTH * 2, rel=0.02 if GPU_LAYERS else 0)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux") or GPU_LAYERS > 0, reason="pages of the host, on Linux")
def test_cells_that_hold_nothing_take_no_memory(tiny_model: Callable[[str], Path]) -> None:
    """262,144 cells of 1 KiB: in a process of its own, whose memory nothing else has touched."""
    script = """
        import sys
        from pathlib import Path
        import numpy as np
        import psutil
        from support.driver import Engine

        tokens, resident = list(range(3, 103)), psutil.Process().memory_info
        with Engine(Path(sys.argv[1]), n_ctx=512, type_k="f16", type_v="f16") as engine:
            expected = engine.decode(tokens)
        before = resident().rss
        with Engine(Path(sys.argv[1]), n_ctx=262_144, type_k="f16", type_v="f16") as engine:
            assert engine.memory_use() >= 256 << 20
            for _ in range(2):
                assert np.array_equal(engine.decode(tokens), expected)
                print((resident().rss - before) >> 20, "MiB")
                assert resident().rss - before < 64 << 20
                engine.clear()
                assert np.array_equal(engine.decode(tokens[:50]), expected[:50])
                engine.clear()
    """
    assert_runs(script, tiny_model("gqa"))
