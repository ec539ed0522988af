"""Recall in the patched library computes what the reference computes, whatever happens to the cache meanwhile."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import recall_reference
from support.driver import GPU_LAYERS, DecodeFailed, Engine, Node
from support.logits import text
from support.recall_reference import Recall, RecallReference
from support.tiny_models import REFUSED_KINDS, TinyModel

pytestmark = pytest.mark.native

N_TOKENS = 240
RECALL = Recall(w=32, r=16, sinks=8, fetched=64, span=8, stretch=8, each=4)
FIRST_LEFT_OUT = 112  # the first position whose border lies behind more than the sinks and what is fetched

KINDS = ("gqa", "qkv-bias", "partial-rotary", "swa", "hybrid", "some-without-rope", "mrope")

# Largest and root-mean-square difference of a logit: the bounds of group attention for these cache types (test_group_attention.py).
BOUNDS = {"f16": (5e-2, 1e-2), "q8_0": (1.0, 0.15), "q4_0": (6.0, 1.2)}


CLEAR = 3e-4
"""In shares of attention: spans that are chosen for less might be others in f16."""


@functools.cache
def example(path: Path, recall: Recall = RECALL, cuts: tuple[int, ...] = (), n_ubatch: int = 512) -> tuple[list[int], np.ndarray]:
    """A text of random tokens up to where a choice is a near tie, and its logits."""
    for seed in range(3, 100):
        tokens = text(N_TOKENS, seed)
        while len(tokens) > max(FIRST_LEFT_OUT + 64, *cuts, 0):
            reference = RecallReference(path, recall, cuts, n_ubatch)
            logits = reference.logits(tokens)
            clear = min((first for first, margin in reference.margins.items() if margin < CLEAR), default=N_TOKENS)
            if clear >= len(tokens):
                return tokens, logits
            tokens = tokens[:clear]  # what is cut off may have been in a micro-batch with what is left
    raise AssertionError("each text has a near tie")


def fetching(path: Path, recall: Recall = RECALL, **parameters: Any) -> Engine:
    parameters = {"type_k": "f16", "type_v": "f16"} | parameters
    engine = Engine(path, flash_attn=True, **parameters)
    status = engine.set_recall(*astuple(recall))
    if GPU_LAYERS and parameters["type_k"] != "f16":
        engine.close()
        assert status < 0
        pytest.skip("recall is refused with a quantised cache on a device")
    assert status == 0
    return engine


def assert_near(got: np.ndarray, wanted: np.ndarray, cache_type: str = "f16") -> None:
    largest, mean_square = BOUNDS[cache_type]
    difference = got - wanted
    wrong = np.abs(difference).max(axis=1)
    assert wrong.max() < largest, f"first wrong row {np.argmax(wrong >= largest)} of {len(wrong)}, largest difference {wrong.max():.2g}"
    assert np.sqrt(np.mean(difference**2)) < mean_square


# What it computes


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_reference(tiny_model: TinyModel, kind: str) -> None:
    path = tiny_model(kind)
    with fetching(path) as engine:
        tokens, expected = example(path)
        assert_near(engine.decode(tokens), expected)


@pytest.mark.slow
def test_something_is_left_out(tiny_model: TinyModel) -> None:
    """Else the other tests would show nothing."""
    path = tiny_model("gqa")
    tokens, expected = example(path)
    difference = np.abs(expected - recall_reference.plain(path, tokens)).max(axis=1)
    assert difference[:FIRST_LEFT_OUT].max() < 1e-9 < 0.1 < np.median(difference[FIRST_LEFT_OUT:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"stretch": 16},
        {"stretch": 5},
        {"each": 16},
        {"first": 64},
        {"first": 80, "stretch": 1},
        {"span": 4},
        {"span": 16, "sinks": 16},
        {"fetched": 16},
        {"w": 40, "r": 48},
    ],
)
def test_agrees_with_other_forms(tiny_model: TinyModel, changed: dict[str, int]) -> None:
    path, recall = tiny_model("gqa"), replace(RECALL, **changed)
    tokens, expected = example(path, recall)
    with fetching(path, recall) as engine:
        assert_near(engine.decode(tokens), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [(150,), (117, 118, 119, 201), tuple(range(170, 180))])
def test_queries_of_a_call_choose_together(tiny_model: TinyModel, cuts: tuple[int, ...]) -> None:
    path = tiny_model("gqa")
    tokens, expected = example(path, cuts=cuts)
    sizes = np.diff([0, *cuts, len(tokens)]).tolist()
    with fetching(path) as engine:
        assert_near(engine.decode(tokens, batches=sizes), expected)


@pytest.mark.slow
@pytest.mark.parametrize("n_ubatch", [8, 16, 40, 64])
@pytest.mark.parametrize("first", [0, 80])
def test_micro_batches_hold_whole_steps_that_choose_for_themselves(tiny_model: TinyModel, n_ubatch: int, first: int) -> None:
    """With a first stage the steps of a micro-batch share what it finds."""
    path, recall = tiny_model("gqa"), replace(RECALL, first=first)
    tokens, expected = example(path, recall, n_ubatch=n_ubatch)
    with fetching(path, recall, n_ubatch=n_ubatch) as engine:
        assert_near(engine.decode(tokens), expected)


@pytest.mark.slow
def test_how_many_steps_a_micro_batch_holds_changes_no_choice(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    tokens, expected = example(path)
    for n_ubatch in (16, 48):
        with fetching(path, n_ubatch=n_ubatch) as engine:
            assert_near(engine.decode(tokens), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
@pytest.mark.parametrize("keep", [1, 4, 16])
def test_tokens_that_are_decoded_one_by_one_share_a_choice(tiny_model: TinyModel, keep: int, cache_type: str) -> None:
    path, recall = tiny_model("gqa"), replace(RECALL, keep=keep, first=80)
    cuts = tuple(range(150, 171))
    tokens, expected = example(path, recall, cuts)
    with fetching(path, recall, type_k=cache_type, type_v=cache_type) as engine:
        got = engine.decode(tokens, batches=np.diff([0, *cuts, len(tokens)]).tolist())
    error = np.sqrt(np.mean((got - expected) ** 2, axis=1))
    assert np.median(error[FIRST_LEFT_OUT:]) < BOUNDS[cache_type][1]
    if cache_type == "f16":
        assert_near(got, expected)


def is_of_cache(node: Node) -> bool:
    """Does it gather keys or values: one token's as f32, many as they are, two f16 in each i32?"""
    return node.operation == "GET_ROWS" and ((node.type == "f32" and "f16" in node.sources) or node.type == "i32")


def test_a_kept_choice_costs_no_gathering(tiny_model: TinyModel) -> None:
    """The nodes of a step that makes no choice: none reads more of the cache than its own token."""
    gathered: list[int] = []

    def on_node(node: Node) -> None:
        if is_of_cache(node):
            gathered.append(node.n_values)

    with fetching(tiny_model("gqa"), replace(RECALL, keep=8), on_node=on_node) as engine:
        engine.decode(text(200))
        largest = []
        for token in text(10, seed=4):
            gathered.clear()
            engine.decode([token])
            largest.append(max(gathered))
    assert [size == min(largest) for size in largest] == [False, *[True] * 7, False, True]
    assert max(largest) > 30 * min(largest)  # counted in i32


@pytest.mark.slow
@pytest.mark.parametrize("cache_type", BOUNDS)
@pytest.mark.parametrize("kind", ["gqa", "partial-rotary"])
def test_cache_types(tiny_model: TinyModel, kind: str, cache_type: str) -> None:
    """Keys that are known less exactly may choose other spans. Half of the tokens that leave something out at least don't show it."""
    path = tiny_model(kind)
    tokens, expected = example(path)
    with fetching(path, type_k=cache_type, type_v=cache_type) as engine:
        error = np.sqrt(np.mean((engine.decode(tokens) - expected) ** 2, axis=1))
    print(cache_type, np.median(error[FIRST_LEFT_OUT:]), error.max())
    assert np.median(error[FIRST_LEFT_OUT:]) < BOUNDS[cache_type][1]


def test_nothing_left_out_is_the_plain_model_bit_for_bit(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    tokens = text(FIRST_LEFT_OUT)
    with Engine(path, type_k="f16", type_v="f16", flash_attn=True) as engine:
        plain = engine.decode(tokens, batches=[16])
    with fetching(path) as engine:
        assert np.array_equal(engine.decode(tokens, batches=[16]), plain)


@pytest.mark.slow
def test_attention_does_not_grow_with_the_text(tiny_model: TinyModel) -> None:
    sizes: Counter[int] = Counter()

    def on_node(node: Node) -> None:
        if is_of_cache(node):
            sizes[node.n_values] += 1

    with fetching(tiny_model("gqa"), n_ctx=2048, on_node=on_node) as engine:
        engine.decode(text(400), batches=[16])
        before = set(sizes)
        engine.decode(text(1500), batches=[16])
        assert before
        assert set(sizes) == before


@pytest.mark.slow
def test_what_was_fetched_can_be_asked_for(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    for recall in (RECALL, replace(RECALL, first=72)):
        reference = RecallReference(path, recall, ())
        tokens, _ = example(path, recall)
        reference.logits(tokens)
        with fetching(path, recall) as engine:
            engine.decode(tokens[:FIRST_LEFT_OUT])
            assert engine.fetched(0) == ([], [])
            engine.decode(tokens[FIRST_LEFT_OUT:])
            for layer, wanted in enumerate(reference.fetched[max(reference.fetched)]):
                spans, shares = engine.fetched(layer)
                assert [span * recall.span for span in spans] == wanted[:: recall.span].tolist()
                assert all(0 < share <= 4 for share in shares)  # of as many heads
            assert engine.fetched(99) == ([], [])
            engine.clear()
            engine.decode(tokens[:20])
            assert engine.fetched(0) == ([], [])


# What happens to the cache


@pytest.mark.slow
@pytest.mark.parametrize("cache_type", BOUNDS)
@pytest.mark.parametrize("kind", ["gqa", "partial-rotary", "mrope"])
def test_a_text_that_was_rolled_back_goes_on_bit_for_bit(tiny_model: TinyModel, kind: str, cache_type: str) -> None:
    """What the cache holds doesn't depend on what was read behind it: keys that a border has passed never moved."""
    path, kept = tiny_model(kind), 150
    with fetching(path, type_k=cache_type, type_v=cache_type) as engine:
        engine.decode(text(kept))
        fresh = engine.decode(text(60, seed=5))
        for between in (20, 200):
            engine.seq_rm(0, kept)
            engine.decode(text(between, seed=9), batches=[7, 16, 1])
            engine.seq_rm(0, kept)
            assert np.array_equal(engine.decode(text(60, seed=5)), fresh)


@pytest.mark.slow
@pytest.mark.parametrize("recall", [RECALL, replace(RECALL, first=72, keep=16)])
def test_rollback(tiny_model: TinyModel, recall: Recall) -> None:
    """Also one token by one, where a choice might be kept that was made for what is gone."""
    path = tiny_model("gqa")
    for kept in (200, 140, 90):
        cuts = (kept, kept + 1, kept + 2)
        tokens, expected = example(path, recall, cuts=cuts)
        with fetching(path, recall) as engine:
            engine.decode(tokens[:kept])
            engine.decode(text(60, seed=9))
            for token in text(3, seed=5):
                engine.decode([token])
            assert engine.seq_rm(0, kept)
            assert_near(engine.decode(tokens[kept:], batches=[1, 1, len(tokens) - kept - 2]), expected[kept:])


@pytest.mark.parametrize("recall", [RECALL, replace(RECALL, first=72, keep=16)])
def test_save_and_restore(tiny_model: TinyModel, recall: Recall) -> None:
    path, cut = tiny_model("gqa"), 170
    with fetching(path, recall) as engine:
        engine.decode(text(N_TOKENS)[:cut])
        state = engine.save()
        whole = engine.decode(text(N_TOKENS)[cut:])
    with fetching(path, recall) as engine:
        engine.load(state)
        assert np.array_equal(engine.decode(text(N_TOKENS)[cut:]), whole)


@pytest.mark.slow
def test_text_whose_cells_are_out_of_order(tiny_model: TinyModel) -> None:
    """A state that was read from another cell on, and a cache whose first cells were free when the rest of the text came."""
    path, cut = tiny_model("gqa"), 100
    tokens, expected = example(path, cuts=(cut,))
    with fetching(path) as engine:
        engine.decode(tokens[:cut])
        state = engine.save(0)
    with fetching(path) as engine:
        engine.decode(text(30, seed=9))
        assert engine.seq_rm(0, 0, 20)
        assert engine.load(state, 0)
        got = engine.decode(tokens[cut:])
    assert_near(got, expected[cut:])


def test_text_with_holes_is_an_error(tiny_model: TinyModel) -> None:
    with fetching(tiny_model("gqa")) as engine:
        engine.decode(text(N_TOKENS))
        assert engine.seq_rm(0, 20, 30)
        with pytest.raises(DecodeFailed):
            engine.decode(text(5))


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_change_in_mid_text(tiny_model: TinyModel, cache_type: str) -> None:
    """Keys that were read with groups, or plainly, are where recall wants them, and back: the same as a state that was read so."""
    path, cut = tiny_model("gqa"), 180
    tokens = text(N_TOKENS)
    kv = {"type_k": cache_type, "type_v": cache_type}
    if GPU_LAYERS and cache_type != "f16":
        pytest.skip("recall is refused with a quantised cache on a device")
    with Engine(path, flash_attn=True, **kv) as engine:
        engine.decode(tokens[:cut])
        plain = engine.decode(tokens[cut:])
        engine.seq_rm(0, cut)
        assert engine.set_recall(*astuple(RECALL)) == 0
        engine.decode(tokens[cut:])
        engine.seq_rm(0, cut)
        assert engine.set_recall(0, 0, 0, 0, 0, 0, 0) == 0
        again = engine.decode(tokens[cut:])
        assert np.sqrt(np.mean((again - plain) ** 2)) < BOUNDS[cache_type][1]


@pytest.mark.parametrize("recall", [RECALL, replace(RECALL, first=72, keep=16)])
def test_less_fetched_in_mid_text_and_back(tiny_model: TinyModel, recall: Recall) -> None:
    path, cut = tiny_model("gqa"), 180
    tokens = text(N_TOKENS)
    with fetching(path, recall) as engine:
        engine.decode(tokens[:cut])
        whole = engine.decode(tokens[cut:])
        engine.seq_rm(0, cut)
        assert engine.set_recall(*astuple(replace(recall, fetched=recall.fetched // 2))) == 0
        assert np.abs(engine.decode(tokens[cut:]) - whole).max() > 1e-3
        engine.seq_rm(0, cut)
        assert engine.set_recall(*astuple(recall)) == 0
        assert np.array_equal(engine.decode(tokens[cut:]), whole)


# What is refused


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_models_without_a_plain_rotary_key(tiny_model: TinyModel, kind: str) -> None:
    with Engine(tiny_model(kind)) as engine:
        assert engine.set_recall(*astuple(RECALL)) < 0


@pytest.mark.parametrize(
    "changed",
    [
        {"r": 12},
        {"sinks": 4},
        {"fetched": 60},
        {"w": 0},
        {"span": 0},
        {"stretch": 0},
        {"each": 0},
        {"first": -8},
        {"first": 32},
        {"keep": 0},
        {"fetched": -8},
    ],
)
def test_values_that_do_not_fit(tiny_model: TinyModel, changed: dict[str, int]) -> None:
    with Engine(tiny_model("gqa"), flash_attn=True) as engine:
        assert engine.set_recall(*astuple(replace(RECALL, **changed))) == -11


def test_contexts_that_can_not(tiny_model: TinyModel) -> None:
    with Engine(tiny_model("gqa")) as engine:
        assert engine.set_recall(*astuple(RECALL)) == -12
    with Engine(tiny_model("gqa"), flash_attn=True, n_seq_max=2) as engine:
        assert engine.set_recall(*astuple(RECALL)) == -13
