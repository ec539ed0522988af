"""A KV cache in a file computes what one in memory does, leaves nothing behind, and says why it can't be made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.driver import GPU_LAYERS, Engine
from support.full_disk import full_disk
from support.logits import text
from support.tiny_models import TinyModel

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.engine.peek import ModelPeek
from selfextend_local.engine.plan import Settings
from selfextend_local.errors import ModelError

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(sys.platform == "win32", reason="it is refused there"),
    pytest.mark.skipif(GPU_LAYERS > 0, reason="layers on a GPU have their keys there"),
]

RULER = Path(__file__).parent.parent / "data" / "ruler.gguf"
RECALL = (32, 16, 8, 64, 8, 4, 4)


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_it_computes_the_same_bit_for_bit(tiny_model: TinyModel, tmp_path: Path, kind: str, cache_type: str) -> None:
    assert_the_same(tiny_model(kind), tmp_path, cache_type, recall=False)


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_it_computes_the_same_by_recall(tiny_model: TinyModel, tmp_path: Path, kind: str, cache_type: str) -> None:
    assert_the_same(tiny_model(kind), tmp_path, cache_type, recall=True)


def assert_the_same(path: Path, tmp_path: Path, cache_type: str, *, recall: bool) -> None:
    found = []
    for folder in (None, tmp_path):
        with Engine(path, type_k=cache_type, type_v=cache_type, flash_attn=True, swa_full=True, kv_folder=folder) as engine:
            logits = [engine.decode(text(90))]
            assert not recall or engine.set_recall(*RECALL) == 0
            logits.append(engine.decode(text(150, seed=5)))
            state = engine.save()
            engine.seq_rm(0, 200)
            logits.append(engine.decode(text(60, seed=6), batches=[30, 1]))
            engine.clear()
            assert engine.load(state)
            logits.append(engine.decode(text(60, seed=7)))
            assert (engine.file_size() > 0) == (folder is not None)
        found.append(np.concatenate(logits))
    assert np.array_equal(*found)


def test_what_lies_in_the_file_is_not_counted_as_memory(tiny_model: TinyModel, tmp_path: Path) -> None:
    with Engine(tiny_model("gqa"), type_k="f16", type_v="f16", flash_attn=True) as engine:
        in_memory = engine.memory_use()
    with Engine(tiny_model("gqa"), type_k="f16", type_v="f16", flash_attn=True, kv_folder=tmp_path) as engine:
        assert engine.file_size() == in_memory
        assert engine.memory_use() == 0


def test_what_is_fetched_is_counted_as_memory(tiny_model: TinyModel, tmp_path: Path) -> None:
    with Engine(tiny_model("gqa"), type_k="f16", type_v="f16", flash_attn=True, kv_folder=tmp_path) as engine:
        assert engine.memory_use() == 0
        assert engine.set_recall(*RECALL) == 0
        assert engine.memory_use() > 0


def test_the_file_has_no_name(tiny_model: TinyModel, tmp_path: Path) -> None:
    """So that nothing is left behind, however the process ends."""
    with Engine(tiny_model("gqa"), type_k="f16", type_v="f16", kv_folder=tmp_path) as engine:
        engine.decode(text(20))
        assert list(tmp_path.iterdir()) == []


def test_no_folder(tiny_model: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no file of .* MiB for the KV cache in .*nowhere: No such file or directory"):
        Engine(tiny_model("gqa"), kv_folder=tmp_path / "nowhere")


def test_no_room_on_the_disk(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tiny_model("gqa")
    with full_disk(room=4096), pytest.raises(RuntimeError, match="no file of .* MiB for the KV cache in .*: File too large"):
        Engine(path, kv_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


# In Python


def settings(folder: Path | str) -> dict[str, Any]:
    window = {"llama.context_length": 512}  # one that holds what recall attends to
    return dict(ga_mode="recall", n_ctx=1024, kv_file=str(folder), n_threads=1, kv_overrides=window)


def test_a_model_with_its_cache_in_a_folder(tiny_model: TinyModel, tmp_path: Path) -> None:
    found = []
    for folder in ("off", tmp_path / "kv"):
        llm = SelfExtendLlama(tiny_model("gqa"), **settings(folder))
        llm.prefill(text(900))
        found.append(np.array(llm._decoder.logits(1)))
        assert llm.plan.in_file == (folder != "off")
        assert ("f16 in a file" in llm.plan.describe()) == llm.plan.in_file
        llm.close()
    assert np.array_equal(*found)


def test_the_plan_counts_it_as_disk() -> None:
    with ModelPeek(RULER) as peek:
        plans = [peek.plan(Settings(ga_mode="recall", n_ctx=4096, kv_type="f16", kv_file=where)) for where in ("off", "on")]
    assert [plan.in_file for plan in plans] == [False, True]
    assert plans[0].kv_bytes == plans[1].kv_bytes


def test_a_folder_that_cannot_be_made(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="take --kv-file FOLDER"):
        SelfExtendLlama(tiny_model("gqa"), **settings(tmp_path / "file" / "kv"))


def test_a_model_whose_cache_finds_no_room(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tiny_model("gqa")
    with full_disk(room=4096), pytest.raises(ModelError, match="Free some disk, or take --kv-file FOLDER"):
        SelfExtendLlama(path, **settings(tmp_path))
