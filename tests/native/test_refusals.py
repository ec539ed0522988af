"""What group attention can't do right is refused, and leaves the context as it was."""

from __future__ import annotations

import ctypes
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support import architectures, reference
from support.driver import Engine, library
from support.logits import assert_close, text
from support.reference import Reference
from support.tiny_models import N_EMBD, TinyModel

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import ModelUnsupported

pytestmark = pytest.mark.native

SCHEME = (4, 32, 16)
ROPE_KIND = -4
IMAGE: dict[str, Any] = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}
POOLING = {"mean": 1, "cls": 2, "last": 3}


def test_a_state_with_shared_cells(tiny_model: TinyModel) -> None:
    """As they are refused in place: one sequence's step would move the other's keys."""
    path, tokens = tiny_model("gqa"), text(120)
    with Engine(path, n_seq_max=2) as engine:
        engine.decode(tokens[:30])
        assert engine.seq_cp(0, 1)
        state = engine.save()
        assert engine.set_group_attn(*SCHEME) < 0
    with Engine(path, n_seq_max=2) as engine:
        assert engine.set_group_attn(*SCHEME) == 0
        assert engine.load(state) == 0
        engine.clear()
        expected = Reference(path).logits(tokens, reference.stepped_distance(len(tokens), *SCHEME))
        assert_close(engine.decode(tokens), expected)
    with Engine(path, n_seq_max=2) as engine:
        assert engine.load(state) == len(state), "without groups it is a state like any other"


def pooled(path: Path, n: int, kind: str | None) -> tuple[int, np.ndarray]:
    """The status of group attention, and the embedding of a text [n_embd], or of each token."""
    tokens = text(120)
    with Engine(path, embeddings=True, pooling_type=POOLING[kind] if kind else 0) as engine:
        status = engine.set_group_attn(n, *SCHEME[1:])
        api, context = engine._api, engine._ctx
        batch = api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index], batch.n_seq_id[index], batch.logits[index] = token, index, 1, 1
            batch.seq_id[index][0] = 0
        assert api.llama_decode(context, batch) == 0
        api.llama_batch_free(batch)

        def row(pointer: object) -> np.ndarray:
            return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (N_EMBD,)).copy()

        if kind:
            return status, row(api.llama_get_embeddings_seq(context, 0))
        return status, np.stack([row(api.llama_get_embeddings_ith(context, index)) for index in range(len(tokens))])


@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_embeddings_pooled_over_a_text(tiny_model: TinyModel, kind: str) -> None:
    """A step cuts the text into micro-batches, of which llama.cpp pools the last alone."""
    status, got = pooled(tiny_model("gqa"), 4, kind)
    assert status < 0
    assert (got == pooled(tiny_model("gqa"), 1, kind)[1]).all()


def test_embeddings_of_the_last_token(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    each, last = pooled(path, 4, None), pooled(path, 4, "last")
    assert each[0] == last[0] == 0
    assert_close(last[1][None], each[1][-1:])
    assert np.abs(each[1] - pooled(path, 1, None)[1]).max() > 0.1


def draft(path: Path, target: Engine) -> int:
    """What llama_decode returns for the token after the target's text, on a draft that reads the target's keys."""
    with Engine(path, ctx_other=target._ctx) as engine:
        api = engine._api
        batch = api.llama_batch_init(1, 0, 1)
        hidden = (ctypes.c_float * architectures.N_EMBD)(*np.ones(architectures.N_EMBD))
        batch.n_tokens, batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = 1, 5, target.pos_max() + 1, 1, 1
        batch.seq_id[0][0] = 0
        batch.embd = ctypes.cast(hidden, type(batch.embd))
        code = int(api.llama_decode(engine._ctx, batch))
        batch.embd = None
        api.llama_batch_free(batch)
        assert engine.set_group_attn(*SCHEME) < 0, "it has no keys to group"
        return code


def test_a_draft_that_reads_its_targets_keys(tmp_path: Path) -> None:
    """Its queries are rotated for the plain text, the target's far keys for groups."""
    architectures.make_model("gemma4", tmp_path / "target.gguf")
    architectures.make_draft(tmp_path / "draft.gguf")
    tokens = [token % architectures.N_VOCAB for token in text(100)]
    with Engine(tmp_path / "target.gguf") as target:
        target.decode(tokens)
        assert draft(tmp_path / "draft.gguf", target) == 0
        target.clear()
        assert target.set_group_attn(*SCHEME) == 0
        target.decode(tokens)
        assert draft(tmp_path / "draft.gguf", target) < 0
        assert target.set_group_attn(1, *SCHEME[1:]) == 0
        target.decode(tokens[:1])
        assert draft(tmp_path / "draft.gguf", target) == 0


def decode_image(engine: Engine, first: int, side: int) -> int:
    """What llama_decode says to an image of side x side vectors of noise at one place of the text, as M-RoPE numbers them."""
    n = side * side
    batch = engine._api.llama_batch_init(n, N_EMBD, 1)
    vectors = np.random.default_rng(1).standard_normal(n * N_EMBD).astype(np.float32)
    ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
    place, row, column = np.full(n, first), first + np.arange(n) // side, first + np.arange(n) % side
    positions = np.concatenate([place, row, column, np.zeros(n)]).astype(np.int32)
    pointer = ctypes.POINTER(ctypes.c_int32)
    own = ctypes.cast(batch.pos, ctypes.c_void_p).value
    batch.pos = positions.ctypes.data_as(pointer)
    batch.n_tokens = n
    for index in range(n):
        batch.n_seq_id[index], batch.logits[index] = 1, 0
        batch.seq_id[index][0] = 0
    try:
        return int(engine._api.llama_decode(engine._ctx, batch))
    finally:
        batch.pos = ctypes.cast(own, pointer)
        engine._api.llama_batch_free(batch)


def test_an_image_in_a_model_with_mrope(tiny_model: TinyModel) -> None:
    """Under groups its batch is refused; where one is in the cache, groups are."""
    path = tiny_model("mrope")
    expected = Reference(path).logits(text(120), reference.stepped_distance(120, *SCHEME))
    with Engine(path) as engine:
        assert engine.set_group_attn(*SCHEME) == 0
        assert_close(engine.decode(text(120)[:60]), expected[:60])
        with library().errors() as said:
            assert decode_image(engine, 60, 3) != 0
        assert "reads text only" in " ".join(said)
        assert_close(engine.decode(text(120)[60:]), expected[60:])  # nothing has changed
        engine.clear()
        assert engine.set_group_attn(1, *SCHEME[1:]) == 0
        engine.decode(text(120)[:20])
        assert decode_image(engine, 20, 3) == 0
        with library().errors() as said:
            assert engine.set_group_attn(*SCHEME) == ROPE_KIND
        assert "holds an image" in " ".join(said)


@pytest.mark.parametrize("kind", ["mrope", "gqa"])
def test_images_in_the_class(tiny_model: TinyModel, kind: str) -> None:
    with pytest.raises(ModelUnsupported, match="chat_handler: SelfExtendLlama reads text only"):
        SelfExtendLlama(tiny_model(kind), n_ctx=512, chat_handler=SimpleNamespace(clip_model_path="mmproj.gguf"))
    with closing(SelfExtendLlama(tiny_model(kind), ga_n=4, ga_w=32, n_ctx=256)) as llm:
        with pytest.raises(ModelUnsupported, match="A message holds image_url: SelfExtendLlama reads text only"):
            llm.create_chat_completion([{"role": "system", "content": "Be brief."}, IMAGE])
        assert llm.n_tokens == 0
