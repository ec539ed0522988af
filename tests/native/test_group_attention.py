"""Group attention in the patched library computes what the reference computes, whatever happens to the cache meanwhile."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import reference
from support.driver import ABORTED, GPU_LAYERS, DecodeFailed, Engine, Token
from support.logits import CUTS, assert_close, text
from support.reference import Reference
from support.tiny_models import REFERENCE_KINDS, REFUSED_KINDS, SLIDING_WINDOW, TinyModel

pytestmark = pytest.mark.native

N_TOKENS = 120
DEFAULT = (4, 32, 16)  # n, w, r

Scheme = tuple[int, int, int]


def expected_logits(path: Path, tokens: Sequence[int], *stretches: tuple[int, Scheme]) -> np.ndarray:
    """The reference's logits; each stretch (end, scheme) says with which scheme the tokens up to `end` were decoded."""
    return _expected_logits(path, tuple(tokens), stretches)


@functools.cache
def _expected_logits(path: Path, tokens: tuple[int, ...], stretches: tuple[tuple[int, Scheme], ...]) -> np.ndarray:
    distance = np.zeros((len(tokens), len(tokens)), dtype=int)
    start = 0
    for end, scheme in stretches:
        distance[start:end] = reference.stepped_distance(len(tokens), *scheme)[start:end]
        start = end
    assert start == len(tokens)
    return Reference(path).logits(tokens, distance)


def grouped(path: Path, scheme: Scheme = DEFAULT, **parameters: Any) -> Engine:
    engine = Engine(path, **parameters)
    assert engine.set_group_attn(*scheme) == 0
    return engine


# What it computes


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
@pytest.mark.parametrize("scheme", [(1, 32, 16), (2, 32, 16), (4, 64, 8), (8, 40, 24)])
def test_agrees_with_the_reference(tiny_model: TinyModel, kind: str, scheme: Scheme) -> None:
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, scheme))
    with grouped(path, scheme) as engine:
        assert engine.get_group_attn() == scheme
        assert_close(engine.decode(text()), expected)
        assert engine.pos_max() == N_TOKENS - 1


def test_layers_without_rope_are_left_as_they_are(tiny_model: TinyModel) -> None:
    path = tiny_model("some-without-rope")
    with grouped(path) as engine:
        assert_close(engine.decode(text()), expected_logits(path, text(), (N_TOKENS, DEFAULT)))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [(8, 1, 8), (4, 3, 4), (2, 16, 2), (16, 16, 64)])
@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_agrees_with_narrow_windows(tiny_model: TinyModel, kind: str, scheme: Scheme) -> None:
    """Narrower than the sliding window too: the local layers then group keys as the others do."""
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, scheme))
    with grouped(path, scheme) as engine:
        assert_close(engine.decode(text(), batches=[100, 1]), expected)


# Largest and root-mean-square difference with other cache types, flash attention on.
# Measured with n=4: f16 2.6e-2 and 4.6e-3, q8_0 0.5 and 0.07; with n=1 2.8e-2 and 3.5e-3, 0.34 and 0.06.
CACHE_BOUNDS = {"f16": (5e-2, 1e-2), "q8_0": (1.0, 0.15)}


@pytest.mark.parametrize("cache_type", CACHE_BOUNDS)
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_agrees_with_smaller_cache_types(tiny_model: TinyModel, kind: str, cache_type: str) -> None:
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, type_k=cache_type, type_v=cache_type, flash_attn=True) as engine:
        difference = engine.decode(text(), batches=[64, 1]) - expected
    largest, mean_square = CACHE_BOUNDS[cache_type]
    assert np.abs(difference).max() < largest
    assert np.sqrt(np.mean(difference**2)) < mean_square


@pytest.mark.parametrize(("cache_type", "flash_attn"), [("f32", False), ("f16", False), ("f16", True), ("q8_0", True), ("q4_0", True)])
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_errs_no_more_than_the_plain_model(tiny_model: TinyModel, kind: str, cache_type: str, flash_attn: bool) -> None:
    """Whatever the backend and its arithmetic: cut into the same micro-batches, grouped logits are as near to the reference as plain."""
    path, cuts = tiny_model(kind), [48, 16]
    kv: dict[str, Any] = {"type_k": cache_type, "type_v": "f32" if cache_type == "f32" else cache_type, "flash_attn": flash_attn}
    error = {}
    for scheme in ((1, 32, 16), DEFAULT):
        with grouped(path, scheme, **kv) as engine:
            difference = engine.decode(text(), batches=cuts) - expected_logits(path, text(), (N_TOKENS, scheme))
        error[scheme[0]] = float(np.sqrt(np.mean(difference**2)))
    print(f"{kind} {cache_type} flash_attn={flash_attn}: root mean square {error[1]:.2g} with n=1, {error[4]:.2g} with n=4")
    assert error[4] < 2 * error[1]


@pytest.mark.parametrize("kind", ["gqa", "partial-rotary"])
def test_agrees_under_linear_scaling(tiny_model: TinyModel, kind: str) -> None:
    """Positions scaled by 1/2: all distances are."""
    path = tiny_model(kind)
    expected = Reference(path).logits(text(), reference.stepped_distance(N_TOKENS, *DEFAULT) * 0.5)
    with grouped(path, rope_scaling_type=1, rope_freq_scale=0.5) as engine:
        assert_close(engine.decode(text()), expected)


@pytest.mark.parametrize("kind", ["gqa", "partial-rotary"])
def test_agrees_under_yarn(tiny_model: TinyModel, kind: str) -> None:
    path, scaling = tiny_model(kind), reference.Yarn(factor=4.0, original_window=128)
    expected = Reference(path, yarn=scaling).logits(text(), reference.stepped_distance(N_TOKENS, *DEFAULT))
    with grouped(path, rope_scaling_type=2, rope_freq_scale=0.25, yarn_orig_ctx=128) as engine:
        assert_close(engine.decode(text()), expected)


def test_text_that_starts_late(tiny_model: TinyModel) -> None:
    """What counts is the place in the text, not the number of keys."""
    path, start = tiny_model("gqa"), 203
    distance = reference.stepped_distance(start + N_TOKENS, *DEFAULT)[start:, start:]
    with grouped(path) as engine:
        assert_close(engine.decode(text(), pos0=start), Reference(path).logits(text(), distance))


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_groups_change_the_logits(tiny_model: TinyModel, kind: str) -> None:
    """Guards the tests above: a library that ignores the setting cannot pass them."""
    plain = expected_logits(tiny_model(kind), text(), (N_TOKENS, (1, 32, 16)))
    four = expected_logits(tiny_model(kind), text(), (N_TOKENS, DEFAULT))
    assert np.abs(plain - four)[:48].max() < 1e-9
    assert np.abs(plain - four)[64:].max(axis=1).min() > 0.1


def test_is_off_until_it_is_set(tiny_model: TinyModel) -> None:
    with Engine(tiny_model("gqa")) as engine:
        assert engine.get_group_attn()[0] == 1


# Ways to cut the batches

@pytest.mark.parametrize("kind", REFERENCE_KINDS)
@pytest.mark.parametrize("cut", CUTS)
def test_any_way_to_cut_the_batches(tiny_model: TinyModel, kind: str, cut: str) -> None:
    path = tiny_model(kind)
    parameters, batches = CUTS[cut]
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, **parameters) as engine:
        assert_close(engine.decode(text(), batches=batches), expected)


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_same_micro_batches_give_the_same_bits(tiny_model: TinyModel, kind: str) -> None:
    """n=4, w=32, r=16: the boundary steps at 48, 64, 80, ... whoever cuts there, the caller or the library."""
    path = tiny_model(kind)
    with grouped(path, n_ubatch=16) as engine:
        by_micro_batch = engine.decode(text())
        engine.clear()
        by_caller = engine.decode(text(), batches=[16])
        engine.clear()
        again = engine.decode(text(), batches=[48, 32])
    assert np.array_equal(by_micro_batch, by_caller)
    assert np.array_equal(by_micro_batch, again)
    with grouped(path, n_ubatch=64) as engine:
        by_step = engine.decode(text())
        engine.clear()
        assert np.array_equal(by_step, engine.decode(text(), batches=[48, 16]))


def test_a_graph_that_is_used_again_has_the_scheme_of_now(tiny_model: TinyModel) -> None:
    """A reused graph may keep nothing from the call that built it: here that call was on another thread's stack."""
    path, tokens = tiny_model("gqa"), text()
    expected = expected_logits(path, tokens, (80, (2, 32, 16)), (N_TOKENS, DEFAULT))
    with grouped(path, (2, 32, 16)) as engine, ThreadPoolExecutor(1) as other:
        got = [engine.decode(tokens[:78]), other.submit(engine.decode, tokens[78:79], 78).result()]
        other.submit(sorted, range(100_000), key=str).result()  # writes over what that call left on its stack
        got.append(engine.decode(tokens[79:80], 79))
        assert engine.set_group_attn(*DEFAULT) == 0
        got += [engine.decode([token], at) for at, token in enumerate(tokens[80:], start=80)]
    assert_close(np.concatenate(got), expected)


def test_a_batch_that_does_not_fit_changes_nothing(tiny_model: TinyModel) -> None:
    path, tokens = tiny_model("gqa"), text(256)
    expected = expected_logits(path, tokens, (256, DEFAULT))
    with grouped(path, n_ctx=256) as engine:
        assert_close(engine.decode(tokens[:200]), expected[:200])
        with pytest.raises(DecodeFailed):
            engine.decode(tokens[:100], pos0=200)
        assert engine.pos_max() == 199
        assert_close(engine.decode(tokens[200:]), expected[200:])


# What happens to the cache meanwhile


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gqa", "partial-rotary", "swa"])
@pytest.mark.parametrize("back_to", [100, 70, 10])
def test_rollback(tiny_model: TinyModel, kind: str, back_to: int) -> None:
    path = tiny_model(kind)
    tokens = text()[:back_to] + text(40, seed=4)
    expected = expected_logits(path, tokens, (len(tokens), DEFAULT))
    with grouped(path) as engine:
        engine.decode(text())
        assert engine.seq_rm(0, back_to)
        assert_close(engine.decode(tokens[back_to:]), expected[back_to:])


@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_rollback_token_by_token(tiny_model: TinyModel, kind: str) -> None:
    """Back over several boundary steps, one token at a time, then on again."""
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path) as engine:
        engine.decode(text())
        for position in range(N_TOKENS - 1, 75, -7):
            assert engine.seq_rm(0, position)
            assert_close(engine.decode(text()[position : position + 1]), expected[position : position + 1])
        assert_close(engine.decode(text()[position + 1 :]), expected[position + 1 :])


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_change_of_n_in_mid_text(tiny_model: TinyModel, kind: str) -> None:
    path = tiny_model(kind)
    stretches = [(60, (1, 32, 16)), (80, (4, 32, 16)), (95, (8, 48, 8)), (105, (1, 32, 16)), (N_TOKENS, (2, 32, 2))]
    expected = expected_logits(path, text(), *stretches)
    with Engine(path) as engine:
        start = 0
        for end, scheme in stretches:
            assert engine.set_group_attn(*scheme) == 0
            assert_close(engine.decode(text()[start:end]), expected[start:end])
            start = end


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["whole state", "one sequence"])
@pytest.mark.parametrize("restored_scheme", [DEFAULT, (8, 32, 16), (1, 32, 16)])
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_save_and_restore(tiny_model: TinyModel, kind: str, restored_scheme: Scheme, whole: bool) -> None:
    path, cut = tiny_model(kind), 100
    expected = expected_logits(path, text(), (cut, DEFAULT), (N_TOKENS, restored_scheme))
    seq = None if whole else 0
    with grouped(path) as engine:
        engine.decode(text()[:cut])
        state = engine.save(seq)
    with grouped(path, restored_scheme) as engine:
        engine.decode(text(30, seed=5))
        assert engine.load(state, seq) == len(state)
        assert engine.pos_max() == cut - 1
        assert_close(engine.decode(text()[cut:]), expected[cut:])


def test_restore_into_another_sequence(tiny_model: TinyModel) -> None:
    path, cut = tiny_model("gqa"), 100
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, n_seq_max=2) as engine:
        engine.decode(text()[:cut], seq=0)
        assert engine.load(engine.save(0), seq=1)
        assert_close(engine.decode(text()[cut:], seq=1), expected[cut:])
        assert_close(engine.decode(text()[cut:], seq=0), expected[cut:])


@pytest.mark.parametrize("kind", ["gqa", "hybrid"])
def test_restore_several_sequences(tiny_model: TinyModel, kind: str) -> None:
    path, cuts = tiny_model(kind), (100, 70)
    texts = [text(N_TOKENS, seed=20 + seq) for seq in range(2)]
    with grouped(path, n_seq_max=2) as engine:
        for seq, cut in enumerate(cuts):
            engine.decode(texts[seq][:cut], seq=seq)
        state = engine.save()
    with grouped(path, n_seq_max=2) as engine:
        assert engine.load(state) == len(state)
        for seq, cut in enumerate(cuts):
            expected = expected_logits(path, texts[seq], (N_TOKENS, DEFAULT))
            assert_close(engine.decode(texts[seq][cut:], seq=seq), expected[cut:])


def test_state_saved_between_a_change_and_the_next_decode(tiny_model: TinyModel) -> None:
    """The keys are still turned for the old setting then; the state must say so."""
    path, cut = tiny_model("gqa"), 100
    expected = expected_logits(path, text(), (cut, (1, 32, 16)), (N_TOKENS, DEFAULT))
    with Engine(path) as engine:
        engine.decode(text()[:cut])
        assert engine.set_group_attn(*DEFAULT) == 0
        state = engine.save(0)
    with grouped(path) as engine:
        assert engine.load(state, 0) == len(state)
        assert_close(engine.decode(text()[cut:]), expected[cut:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_several_sequences_in_a_unified_cache(tiny_model: TinyModel, kind: str) -> None:
    """Three texts of different lengths: first interleaved token by token in shared batches, then one after the other."""
    path, lengths = tiny_model(kind), (N_TOKENS, 90, 55)
    texts = [text(length, seed=10 + seq) for seq, length in enumerate(lengths)]
    rows = [Token(texts[s][p], p, s) for p in range(80) for s in range(3) if p < lengths[s]]
    got: list[list[np.ndarray]] = [[], [], []]
    with grouped(path, n_seq_max=3, n_ctx=512, n_ubatch=64) as engine:
        for start in range(0, len(rows), 50):
            batch = rows[start : start + 50]
            for row, logits in zip(batch, engine.decode_batch(batch), strict=True):
                got[row.seq].append(logits)
        for seq, length in enumerate(lengths):
            if length > 80:
                got[seq] += list(engine.decode(texts[seq][80:], seq=seq))
    for seq, length in enumerate(lengths):
        assert_close(np.array(got[seq]), expected_logits(path, texts[seq], (length, DEFAULT)))


def test_a_sequence_that_ends_leaves_the_others_right(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, n_seq_max=2) as engine:
        engine.decode(text(100, seed=6), seq=1)
        assert_close(engine.decode(text()[:90], seq=0), expected[:90])
        assert engine.seq_rm(1, -1)
        assert_close(engine.decode(text()[90:100], seq=0), expected[90:100])
        other = text(100, seed=7)
        assert_close(engine.decode(other, seq=1), expected_logits(path, other, (100, DEFAULT)))
        engine.seq_keep(0)
        assert_close(engine.decode(text()[100:], seq=0), expected[100:])


@pytest.mark.slow
def test_sliding_window_cache_that_wraps(tiny_model: TinyModel) -> None:
    """256 cells of the local layers, 300 tokens: cells are used again, before and after a boundary step and a rollback."""
    path, tokens = tiny_model("swa"), text(300)
    scheme = (4, SLIDING_WINDOW, 16)
    expected = expected_logits(path, tokens, (300, scheme))
    with grouped(path, scheme, n_ubatch=64) as engine:
        assert_close(engine.decode(tokens[:290], batches=[64]), expected[:290])
        assert engine.seq_rm(0, 280)
        assert_close(engine.decode(tokens[280:], batches=[1]), expected[280:])


@pytest.mark.parametrize("first", [DEFAULT, (1, 32, 16)], ids=["grouped", "plain at first"])
@pytest.mark.parametrize("saved", [False, True], ids=["", "saved in between"])
def test_context_shift(tiny_model: TinyModel, first: Scheme, saved: bool) -> None:
    """seq_rm and seq_add, as a chat does when it is full: later tokens see the keys that stay at their new places. What is moved is
    turned with the next decode only; a change of the setting or a saved state in between must not lose it."""
    path, cut, gone = tiny_model("gqa"), 90, range(10, 40)
    place = np.arange(N_TOKENS) - np.where(np.arange(N_TOKENS) >= gone.stop, len(gone), 0)
    distance = reference.stepped_distance(N_TOKENS, *first).copy()
    distance[cut:] = reference.stepped_distance(N_TOKENS, *DEFAULT)[np.ix_(place[cut:], place)]
    removed = np.zeros_like(distance, dtype=bool)
    removed[cut:, gone.start : gone.stop] = True
    expected = Reference(path).logits(text(), distance, removed)
    with grouped(path, first) as engine:
        engine.decode(text()[:cut])
        assert engine.seq_rm(0, gone.start, gone.stop)
        assert engine.seq_add(0, gone.stop, -1, -len(gone)) is True
        assert engine.set_group_attn(*DEFAULT) == 0
        if saved:
            state = engine.save(0)
            engine.clear()
            assert engine.load(state, 0) == len(state)
        assert_close(engine.decode(text()[cut:]), expected[cut:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_an_aborted_boundary_step_leaves_the_cache_usable(tiny_model: TinyModel, kind: str) -> None:
    """The abort callback ends the decode after k operations, for many k: in the rotation of some layer, or later."""
    if GPU_LAYERS:
        pytest.skip("only the CPU backend asks the abort callback")
    path, before, n_tokens = tiny_model(kind), 48, 70
    expected = expected_logits(path, text()[:n_tokens], (n_tokens, DEFAULT))
    aborted = []
    with grouped(path) as engine:
        for k in [*range(24), *range(24, 160, 17)]:
            engine.clear()
            engine.decode(text()[:before])
            left = [k]

            def stop(left: list[int] = left) -> bool:
                left[0] -= 1
                return left[0] < 0

            engine.set_abort_callback(stop)
            try:
                engine.decode(text()[before:n_tokens])
            except DecodeFailed as failure:
                aborted.append(failure.code)
            finally:
                engine.set_abort_callback(None)
            start = engine.pos_max() + 1
            assert before <= start
            if start < n_tokens:
                assert_close(engine.decode(text()[start:n_tokens]), expected[start:])
    assert len(aborted) > 24
    assert set(aborted) == {ABORTED}


# What it refuses


@pytest.mark.parametrize(
    "arguments", [(0, 32, 16), (-1, 32, 16), (4, 0, 16), (4, -8, 16), (4, 32, 0), (4, 32, -16), (4, 32, 18), (8, 32, 4)]
)
def test_refuses_bad_arguments(tiny_model: TinyModel, arguments: Scheme) -> None:
    with grouped(tiny_model("gqa")) as engine:
        assert engine.set_group_attn(*arguments) < 0
        assert engine.get_group_attn() == DEFAULT


@pytest.mark.parametrize("kind", REFUSED_KINDS)
def test_refuses_models_without_a_plain_rotary_key(tiny_model: TinyModel, kind: str) -> None:
    with Engine(tiny_model(kind), n_ctx=128) as engine:
        before = engine.decode(text(60))
        assert engine.set_group_attn(*DEFAULT) < 0
        assert engine.get_group_attn()[0] == 1
        engine.clear()
        assert np.array_equal(engine.decode(text(60)), before)


def test_refuses_several_streams(tiny_model: TinyModel) -> None:
    with Engine(tiny_model("gqa"), n_seq_max=2, kv_unified=False) as engine:
        assert engine.set_group_attn(*DEFAULT) < 0


def test_refuses_cells_that_sequences_share(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    with Engine(path, n_seq_max=2) as engine:
        engine.decode(text()[:60])
        assert engine.seq_cp(0, 1) is True
        assert engine.set_group_attn(*DEFAULT) < 0
        assert engine.seq_rm(1, -1)
        assert engine.set_group_attn(*DEFAULT) == 0
        expected = expected_logits(path, text(), (60, (1, 32, 16)), (N_TOKENS, DEFAULT))
        assert_close(engine.decode(text()[60:]), expected[60:])


@pytest.mark.parametrize("kind", ["gqa", "swa"])
def test_refuses_to_copy_a_sequence(tiny_model: TinyModel, kind: str) -> None:
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, n_seq_max=2) as engine:
        engine.decode(text()[:60])
        assert engine.seq_cp(0, 1) is False
        assert engine.pos_max(1) == -1
        assert_close(engine.decode(text()[60:]), expected[60:])


def test_refuses_tokens_that_sequences_share(tiny_model: TinyModel) -> None:
    path = tiny_model("gqa")
    shared = [Token(token, position, 0, also=(1,)) for position, token in enumerate(text()[:8])]
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path, n_seq_max=2) as engine:
        with pytest.raises(DecodeFailed):
            engine.decode_batch(shared)
        assert (engine.pos_max(0), engine.pos_max(1)) == (-1, -1)
        assert_close(engine.decode(text()), expected)
        engine.clear()
        assert engine.set_group_attn(1, 32, 16) == 0
        assert_close(engine.decode_batch(shared), expected[:8])


@pytest.mark.parametrize("whole", [True, False], ids=["whole state", "one sequence"])
def test_refuses_states_that_are_cut_or_damaged(tiny_model: TinyModel, whole: bool) -> None:
    path, seq = tiny_model("gqa"), None if whole else 0
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path) as engine:
        engine.decode(text()[:60])
        state = engine.save(seq)
        for damaged in (b"", state[:3], state[:20], state[:200], state[: len(state) // 2], state[:-1], bytes(len(state))):
            assert engine.load(damaged, seq) == 0
        engine.clear()
        assert_close(engine.decode(text()), expected)


W, R, N_LAYER, STATE_VERSION = 32, 16, 2, 2


def copies_at(state: bytes, n: int) -> int:
    """Where the note of the exact copies stands in a state: for how many keys there is room, how many copies follow, and the first."""
    head = struct.pack("<QII", W + 2 * R, n, 0)
    assert state.count(head) == 1
    return state.index(head)


@pytest.mark.parametrize("damage", ["more copies than keys", "of no key", "twice", "of another size", "cut", "of the version before"])
def test_refuses_states_whose_copies_are_damaged(tiny_model: TinyModel, damage: str) -> None:
    n_tokens = W + R  # all have a copy
    with Engine(tiny_model("gqa"), type_k="q8_0", type_v="f16", flash_attn=True) as engine:
        assert engine.set_group_attn(4, W, R) == 0
        engine.decode(text()[:n_tokens])
        state = engine.save(0)
        expected = engine.decode(text()[n_tokens:], pos0=n_tokens)
        place = copies_at(state, n_tokens)
        notes, rows = place + 12, place + 12 + 8 * n_tokens
        tag = struct.pack("<I", 0x53450000 | STATE_VERSION << 12 | 1)
        assert tag in state
        broken = {
            "more copies than keys": lambda s: s[: place + 8] + struct.pack("<I", 2**32 - 1) + s[notes:],
            "of no key": lambda s: s[: rows - 8] + struct.pack("<I", 2**32 - 1) + s[rows - 4 :],
            "twice": lambda s: s[:notes] + struct.pack("<I", 1) + s[notes + 4 :],
            "of another size": lambda s: s[:rows] + struct.pack("<Q", 2**40) + s[rows + 8 :],
            "cut": lambda s: s[: rows + 100],
            "of the version before": lambda s: s.replace(tag, struct.pack("<I", 0x53450001), 1),
        }[damage]
        engine.clear()
        assert engine.load(broken(state), 0) == 0
        engine.clear()
        assert engine.load(state, 0) == len(state)
        assert np.array_equal(engine.decode(text()[n_tokens:], pos0=n_tokens), expected)


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_sequence_goes_on_as_another_one_bit_for_bit(tiny_model: TinyModel, kv_type: str) -> None:
    cut = 100
    with Engine(tiny_model("gqa"), type_k=kv_type, type_v="f16", flash_attn=True, n_seq_max=2, n_ctx=512) as engine:
        assert engine.set_group_attn(4, W, R) == 0
        engine.decode(text()[:cut])
        state = engine.save(0)
        expected = engine.decode(text()[cut:], pos0=cut)
        engine.clear()
        assert engine.load(state, 1) == len(state)
        assert np.array_equal(engine.decode(text()[cut:], pos0=cut, seq=1), expected)


# The stock library beside it: SELFEXTEND_STOCK_LIB names the folder of its libllama, built for the same CPU (patches/README.md)

STOCK = os.environ.get("SELFEXTEND_STOCK_LIB")
CACHES = [("f32", False), ("f16", False), ("f16", True), ("q8_0", True), ("q4_0", True)]
STOCK_SCRIPT = f"""
import os, sys
from pathlib import Path
import numpy as np
from support.driver import Engine

folder = Path(sys.argv[1])
tokens = np.load(folder / "tokens.npy").tolist()
for model in map(Path, sys.argv[2:]):
    for cache_type, flash_attn in {CACHES!r}:
        with Engine(model, type_k=cache_type, type_v=cache_type, flash_attn=flash_attn, n_ubatch=64) as engine:
            np.save(folder / f"{{model.stem}}-{{cache_type}}-{{flash_attn}}.npy", engine.decode(tokens, batches=[90, 1, 29]))
            if os.environ.get("GGML_CPU_OWN_KERNELS"):
                engine.clear()
                assert engine.set_group_attn(1, 32, 16) == 0
                np.save(folder / f"{{model.stem}}-{{cache_type}}-{{flash_attn}}-set.npy", engine.decode(tokens, batches=[90, 1, 29]))
    if os.environ.get("GGML_CPU_OWN_KERNELS"):
        continue
    with Engine(model) as engine:
        engine.decode(tokens)
        (folder / f"{{model.stem}}.whole").write_bytes(engine.save())
        (folder / f"{{model.stem}}.sequence").write_bytes(engine.save(0))
        if (folder / f"{{model.stem}}.our-whole").exists():
            assert engine.load((folder / f"{{model.stem}}.our-whole").read_bytes()) == 0
            assert engine.load((folder / f"{{model.stem}}.our-sequence").read_bytes(), 0) == 0
"""


@pytest.fixture(scope="module")
def stock(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stock library computes and saves for each kind. It has been asked to load our states and has refused."""
    if not STOCK:
        pytest.skip("SELFEXTEND_STOCK_LIB is not set")
    folder = tmp_path_factory.mktemp("stock")
    np.save(folder / "tokens.npy", text())
    models = [tiny_model(kind) for kind in REFERENCE_KINDS + REFUSED_KINDS]
    for kind in REFERENCE_KINDS:
        with grouped(tiny_model(kind)) as engine:
            engine.decode(text())
            (folder / f"{tiny_model(kind).stem}.our-whole").write_bytes(engine.save())
            (folder / f"{tiny_model(kind).stem}.our-sequence").write_bytes(engine.save(0))
    run_stock_script(folder, models, {"LLAMA_CPP_LIB_PATH": STOCK})
    return folder


def run_stock_script(folder: Path, models: list[Path], environment: dict[str, str]) -> None:
    tests = str(Path(__file__).resolve().parents[1])
    python_path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", STOCK_SCRIPT, str(folder), *map(str, models)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": python_path, "GGML_NO_BACKTRACE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def without_our_kernels(stock: Path, tiny_model: TinyModel) -> Path:
    """What this library computes with ggml's kernels, in a process of its own."""
    ours = stock / "ours"
    ours.mkdir()
    np.save(ours / "tokens.npy", text())
    run_stock_script(ours, [tiny_model(kind) for kind in REFERENCE_KINDS + REFUSED_KINDS], {"GGML_CPU_OWN_KERNELS": "0"})
    return ours


@pytest.mark.parametrize("kind", REFERENCE_KINDS + REFUSED_KINDS)
def test_without_groups_it_is_the_stock_library_bit_for_bit(
    tiny_model: TinyModel, stock: Path, without_our_kernels: Path, kind: str
) -> None:
    """But for our kernels for CPUs: without them, or where they have nothing to do."""
    path = tiny_model(kind)
    for cache_type, flash_attn in CACHES:
        name = f"{path.stem}-{cache_type}-{flash_attn}"
        expected = np.load(stock / f"{name}.npy")
        for file in (f"{name}.npy", f"{name}-set.npy"):
            assert np.array_equal(np.load(without_our_kernels / file), expected), file
        if not flash_attn:
            with Engine(path, type_k=cache_type, type_v=cache_type, flash_attn=flash_attn, n_ubatch=64) as engine:
                assert np.array_equal(engine.decode(text(), batches=[90, 1, 29]), expected), name


@pytest.mark.parametrize("kind", REFERENCE_KINDS)
def test_states_of_the_stock_library_are_refused(tiny_model: TinyModel, stock: Path, kind: str) -> None:
    path = tiny_model(kind)
    expected = expected_logits(path, text(), (N_TOKENS, DEFAULT))
    with grouped(path) as engine:
        engine.decode(text()[:100])
        assert engine.load((stock / f"{path.stem}.whole").read_bytes()) == 0
        assert engine.load((stock / f"{path.stem}.sequence").read_bytes(), 0) == 0
        assert_close(engine.decode(text()[100:], pos0=100), expected[100:])  # nothing has changed
