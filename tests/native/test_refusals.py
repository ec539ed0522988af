"""What group attention can't do right is refused, and leaves the context as it was."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from support import architectures, reference
from support.driver import Engine
from support.logits import assert_close, text
from support.reference import Reference
from support.tiny_models import N_EMBD, TinyModel

pytestmark = pytest.mark.native

SCHEME = (4, 32, 16)
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
