"""What once wrote over memory or ended the process. Each in a process of its own: a library that does it takes no test run with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.architectures import make_model
from support.processes import assert_runs
from support.tiny_models import TinyModel

pytestmark = pytest.mark.native

HEAD = """
    import os, resource, sys
    from pathlib import Path
    import numpy as np
    from support.driver import Engine
    from support.logits import assert_close, text

    path = Path(sys.argv[1])
    Q4 = {"type_k": "q4_0", "type_v": "q4_0", "flash_attn": True}
"""


def assert_completes(script: str, path: Path) -> None:
    assert_runs(HEAD + script, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["granite without RoPE", "granitehybrid without RoPE"])
def test_a_cache_without_any_rotated_layer_is_refused(tmp_path: Path, name: str) -> None:
    make_model(name, tmp_path / "model.gguf")
    script = """
    tokens = [token % 128 for token in text(100)]
    with Engine(path) as engine:
        plain = engine.decode(tokens)
        engine.clear()
        assert engine.set_group_attn(4, 32, 16) < 0
        assert engine.get_group_attn()[0] == 1
        assert (engine.decode(tokens) == plain).all()
    """
    assert_completes(script, tmp_path / "model.gguf")


@pytest.mark.slow
def test_a_cache_without_layers_has_no_copies(tmp_path: Path) -> None:
    """All attention layers are local: the cache of the others is empty."""
    make_model("lfm2 with a sliding window", tmp_path / "model.gguf")
    script = """
    tokens = [token % 128 for token in text(100)]
    for kind in ("f32", "q4_0"):
        with Engine(path, type_k=kind, type_v="f32" if kind == "f32" else "f16", flash_attn=kind != "f32") as engine:
            assert engine.set_group_attn(4, 32, 16) == 0
            assert np.isfinite(engine.decode(tokens)).all()
    """
    assert_completes(script, tmp_path / "model.gguf")


@pytest.mark.slow
def test_sequences_that_are_not_there(tiny_model: TinyModel) -> None:
    """Moving them does nothing, and no state goes into them, whatever the cache type."""
    script = """
    with Engine(path, **Q4) as engine:
        assert engine.set_group_attn(4, 1000, 16) == 0
        engine.decode(text(20))
        state, first = engine.save(0), engine.decode(text(20, seed=4))
    with Engine(path, **Q4) as engine:
        assert engine.set_group_attn(4, 1000, 16) == 0
        engine.decode(text(20))
        for seq in range(1, 256):
            engine.seq_add(seq, 0, -1, 1)
            engine.seq_div(seq, 0, -1, 2)
            engine.seq_rm(seq, 0)
            if seq % 50 == 0:
                engine.load(state, seq)
                engine.seq_rm(seq, -1)
        assert (engine.decode(text(20, seed=4)) == first).all()
    """
    assert_completes(script, tiny_model("gqa"))


@pytest.mark.slow
def test_a_third_window_is_like_the_first(tiny_model: TinyModel) -> None:
    """Whether the third table of copies lies where the first lay is up to malloc: a few tries."""
    script = """
    with Engine(path, **Q4) as engine:
        assert engine.set_group_attn(2, 12, 20) == 0
        wanted = engine.decode(text(120))
    for _ in range(12):
        with Engine(path, **Q4) as engine:
            assert engine.set_group_attn(2, 16, 16) == 0
            engine.decode(text(70))
            assert engine.set_group_attn(2, 14, 18) == 0
            assert engine.set_group_attn(2, 12, 20) == 0
            engine.clear()
            assert (engine.decode(text(120)) == wanted).all()
    """
    assert_completes(script, tiny_model("gqa"))


@pytest.mark.slow
def test_copies_take_no_more_than_the_cache_has_cells(tiny_model: TinyModel) -> None:
    """The largest numbers that an int holds are refused or work, but take no memory."""
    script = """
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # AddressSanitizer maps terabytes
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    cells, width, n_layer, f16 = 512, 128, 2, 2
    for n, w, r in ((4, 100_000, 16), (2, 1 << 30, 1 << 30), (2, (1 << 31) - 1, (1 << 31) - 2), (4, 32, 1 << 30)):
        with Engine(path, n_ctx=cells, **Q4) as engine:
            cache = engine.memory_use()
            status = engine.set_group_attn(n, w, r)
            assert status <= 0
            assert engine.memory_use() - cache <= 2 * cells * width * n_layer * f16, (n, w, r)
            assert np.isfinite(engine.decode(text(100))).all()
    """
    assert_completes(script, tiny_model("gqa"))


@pytest.mark.slow
@pytest.mark.parametrize("given", [1, 2, 3])
def test_fewer_threads_than_planned(tiny_model: TinyModel, given: int) -> None:
    """OpenMP may give fewer threads than a graph was planned for: the attention kernel's scratch holds what these few need."""
    script = f"""
    os.environ["OMP_THREAD_LIMIT"] = "{given}"
    f16 = {{"type_k": "f16", "type_v": "f16", "flash_attn": True}}
    with Engine(path, **f16) as engine:
        wanted = engine.decode(text(512, seed=5))
    with Engine(path, n_threads=4, **f16) as engine:
        for _ in range(4):
            engine.clear()
            assert_close(engine.decode(text(512, seed=5)), wanted, 1e-2)
    """
    assert_completes(script, tiny_model("gqa"))


@pytest.mark.slow
def test_more_tokens_than_a_batch_holds(tiny_model: TinyModel) -> None:
    """llama_decode ends the process then: a step of more sequences than that gets a larger batch, and a longer one is refused."""
    script = """
    import pytest
    from selfextend_local import SelfExtendLlama, native

    llm = SelfExtendLlama(path, n_ctx=256, n_batch=2)
    sequences = native.Sequences(llm._model.model, llm.context_params, 3, 64)
    assert all(sequences.read(i, [5, 6], 0) == 0 for i in range(3))
    assert sequences.step([(i, 7, 2) for i in range(3)]) == 0
    with pytest.raises(ValueError, match="3 at a time"):
        sequences.read(0, range(5, 9), 3)
    with pytest.raises(ValueError, match="2 at a time"):
        native.Decoder(llm.ctx).many(range(5, 8), 0)
    """
    assert_completes(script, tiny_model("gqa"))
