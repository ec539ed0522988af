"""Saved states of tiny real models: after a restore the results are those of the model that was saved, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.driver import GPU_LAYERS
from support.full_disk import full_disk

from selfextend_local import positions
from selfextend_local.chat.conversation import Chat, Sampling
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import Interrupted
from selfextend_local.sessions import StateCache
from selfextend_local.sessions import autosave as keeper_module
from selfextend_local.sessions import states as state_cache_module

pytestmark = pytest.mark.native

TEXT = [int(t) for t in np.random.default_rng(7).integers(3, 250, 1500)]
KINDS = ["gqa", "qkv-bias", "partial-rotary", "swa"]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_cache_module, "RESTORE_GAIN", 16)


@pytest.fixture
def load(tiny_model: Any) -> Iterator[Any]:
    """load(kind, **options) -> a model that is closed at the end of the test."""
    with ExitStack() as stack:

        def open_(kind: str, **options: Any) -> SelfExtendLlama:
            llm = SelfExtendLlama(tiny_model(kind), **{"logits_all": True, "n_ctx": 384, "n_threads": 1, **options})
            stack.callback(llm.close)
            return llm

        yield open_


@pytest.fixture
def cache(tmp_path: Path) -> StateCache:
    return StateCache(tmp_path / "states", max_bytes=1 << 30)


def continued(llm: SelfExtendLlama, tokens: list[int], expect: int) -> np.ndarray:
    done = llm.prefill(tokens, expect=expect)
    return np.array(llm.scores[done.n_reused : len(tokens)])


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Bit for bit; on a GPU, whose runs differ among themselves in the order of their sums, within the bound of its logits."""
    if GPU_LAYERS:
        np.testing.assert_allclose(found, wanted, atol=0.08)
    else:
        assert np.array_equal(found, wanted)


SIZES = {"plain": (1, 128, 80, 120), "n=4": (4, 384, 300, 380), "auto": ("auto", 768, 300, 700)}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("kind", [*KINDS, "hybrid"])
def test_a_restored_state_goes_on_bit_for_bit(load: Any, cache: StateCache, kind: str, kv_type: str, size: str) -> None:
    ga_n, n_ctx, cut, end = SIZES[size]
    live = load(kind, ga_n=ga_n, kv_type=kv_type, n_ctx=n_ctx)
    live.prefill(TEXT[:cut], expect=cut + 8)
    assert cache.save(live)
    again = load(kind, ga_n=ga_n, kv_type=kv_type, n_ctx=n_ctx)
    assert cache.restore(again, TEXT[:end], expect=cut + 8) == cut
    assert again.group_attention == live.group_attention
    # With "auto" the group grows between the two calls, from the keys that were restored.
    assert_same(continued(again, TEXT[:end], end), continued(live, TEXT[:end], end))
    assert again.group_attention == live.group_attention
    assert cache.notes == []


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("ga_n", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_state_is_cut_back_bit_for_bit(load: Any, cache: StateCache, kind: str, ga_n: int, kv_type: str) -> None:
    """The next chat about a document shares its beginning only. Sliding windows must find their old keys, twice."""
    cut, n_ctx = (100, 128) if ga_n == 1 else (300, 384)
    live = load(kind, ga_n=ga_n, n_ctx=n_ctx, kv_type=kv_type)
    live.prefill(TEXT[:cut], expect=n_ctx)
    cache.save(live)
    again = load(kind, ga_n=ga_n, n_ctx=n_ctx, kv_type=kv_type)
    for back, other in ((10, 5), (45, 9)):
        prompt = [*TEXT[: cut - back], *[other] * (back + 20)]
        if back == 10:
            assert cache.restore(again, prompt, expect=n_ctx) == cut - back
        assert_same(continued(again, prompt, n_ctx), continued(live, prompt, n_ctx))


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_a_state_saved_after_a_question_was_taken_back(load: Any, cache: StateCache, kv_type: str) -> None:
    """Keys that were moved back are moved on from what they were, of progressive groups also those that have left the ring of copies."""
    cut, n_ctx, options = 900, 1024, {"ga_n": 16, "ga_mode": "progressive", "n_ctx": 1024, "kv_type": kv_type}
    live = load("gqa", **options)
    live.prefill(TEXT[: cut + 100], expect=n_ctx)
    live.prefill(TEXT[:cut], expect=n_ctx)
    cache.save(live)
    again = load("gqa", **options)
    assert cache.restore(again, TEXT[: cut + 10], expect=n_ctx) == cut
    for end in (cut + 110, cut - 300, cut + 120):
        assert_same(continued(again, TEXT[:end], n_ctx), continued(live, TEXT[:end], n_ctx))


def test_a_larger_context_and_other_threads_take_the_state(load: Any, cache: StateCache) -> None:
    live = load("gqa", ga_n=4, n_threads=1)
    live.prefill(TEXT[:300])
    cache.save(live)
    larger = load("gqa", ga_n=4, n_ctx=440, n_threads=2)
    assert cache.restore(larger, TEXT[:310]) == 300
    assert_same(continued(larger, TEXT[:310], 310), continued(live, TEXT[:310], 310))


def test_a_smaller_context_does_not(load: Any, cache: StateCache) -> None:
    live = load("gqa", ga_n=4)
    live.prefill(TEXT[:300])
    cache.save(live)
    smaller = load("gqa", ga_n=4, n_ctx=256)
    assert cache.restore(smaller, TEXT[:200]) == 0
    assert "holds 300 tokens, and this context 256" in cache.notes[0]
    assert smaller.prefill(TEXT[:200]).n_evaluated == 200


@pytest.mark.parametrize(
    "options", [{"kv_type": "q8_0"}, {"flash_attn": False}, {"ga_n": 8}, {"rope_freq_scale": 0.5}], ids=lambda o: next(iter(o))
)
def test_states_of_other_settings_are_not_used(load: Any, cache: StateCache, options: dict[str, Any]) -> None:
    live = load("gqa", ga_n=4)
    live.prefill(TEXT[:300])
    cache.save(live)
    other = load("gqa", **{"ga_n": 4, **options})
    assert cache.restore(other, TEXT[:300]) == 0
    assert "was made with" in cache.notes[0]
    assert other.n_tokens == 0


def test_a_coarser_state_does_not_serve_a_short_text(load: Any, cache: StateCache) -> None:
    live = load("gqa", n_ctx=1024)
    live.prefill(TEXT[:40], expect=700)
    cache.save(live)
    short = load("gqa", n_ctx=1024)
    assert cache.restore(short, TEXT[:45]) == 0
    short.prefill(TEXT[:45])
    assert short.group_attention.n == 1
    assert cache.restore(load("gqa", n_ctx=1024), TEXT[:45], expect=700) == 40


def test_a_state_with_room_for_a_conversation_serves_one_question(load: Any, cache: StateCache) -> None:
    """Read for a conversation, the text has a group one step larger than a single question needs: it isn't read again."""
    live = load("gqa", n_ctx=1024)
    needed = {n: next(t for t in range(60, 1024) if live.group_attention_for(t).n == n) for n in (2, 4, 8)}
    live.prefill(TEXT[:60], expect=needed[4])
    cache.save(live)
    once = load("gqa", n_ctx=1024)
    assert cache.restore(once, TEXT[:70], expect=needed[2]) == 60
    once.prefill(TEXT[:70], expect=needed[2])
    assert once.group_attention.n == 4
    live.reset()
    live.prefill(TEXT[:61], expect=needed[8])
    coarse = StateCache(cache.root.parent / "coarse", max_bytes=1 << 30)
    coarse.save(live)
    assert coarse.restore(load("gqa", n_ctx=1024), TEXT[:70], expect=needed[2]) == 0


def test_what_a_stopped_micro_batch_left_is_not_saved(load: Any, cache: StateCache) -> None:
    if GPU_LAYERS:
        pytest.skip("only the CPU backend asks the abort callback")
    live = load("gqa", ga_n=4, n_batch=64, n_ubatch=64)
    done, polls = 0, 0

    def note(count: int, total: int) -> None:
        nonlocal done
        done = count

    def stop() -> bool:
        nonlocal polls
        polls += done >= 128
        return polls > 10

    with pytest.raises(Interrupted):
        live.prefill(TEXT[:300], progress=note, should_stop=stop)
    assert live.n_tokens == 16 + 2 * 64  # the first one ends at w = 16, where a step will be
    cache.save(live)
    again = load("gqa", ga_n=4, n_batch=64, n_ubatch=64)
    assert cache.restore(again, TEXT[:300]) == live.n_tokens
    assert_same(continued(again, TEXT[:300], 300), continued(live, TEXT[:300], 300))


def test_a_state_that_llama_cpp_refuses_leaves_an_empty_model_that_works(
    load: Any, cache: StateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("gqa", "swa"):
        live = load(kind, ga_n=4)
        live.prefill(TEXT[:300])
        cache.save(live)
        (entry,) = [e for e in cache.entries() if e.n_tokens == 300 and e.info.model == ""][-1:]
        data = bytearray(entry.path.read_bytes())
        data[12 + entry.header_bytes + 20 :] = bytes(len(data) - 12 - entry.header_bytes - 20)
        entry.path.write_bytes(data)
        monkeypatch.setattr(state_cache_module, "verify_state", lambda entry: None)
        again = load(kind, ga_n=4)
        assert cache.restore(again, TEXT[:300]) == 0
        assert "llama.cpp refuses the state" in cache.notes[0]
        assert_same(continued(again, TEXT[:300], 300), np.array(live.scores[:300]))
        cache.prune(0)
        cache.notes.clear()


def test_a_file_size_limit_is_a_note_and_leaves_the_old_entry(load: Any, cache: StateCache) -> None:
    llm = load("gqa", ga_n=4)
    llm.prefill(TEXT[:100])
    assert cache.save(llm)
    llm.prefill(TEXT[:300])
    with full_disk(room=int(0.7 * llm.state_bytes())):
        assert not cache.save(llm)
    assert "could not be saved" in cache.notes[0]
    assert [e.n_tokens for e in cache.entries()] == [100]
    assert len(list(cache.root.iterdir())) == 1
    assert cache.save(llm)


@pytest.fixture
def chat(load: Any, cache: StateCache, monkeypatch: pytest.MonkeyPatch) -> Any:
    """chat() -> a new chat with a new model, or with one that is given, on the same cache. However slow the machine is, a prefill is
    saved on its way only where a test wants it."""
    monkeypatch.setattr(keeper_module, "CHECKPOINT_SECONDS", float("inf"))

    def new(llm: SelfExtendLlama | None = None, **options: Any) -> Chat:
        llm = llm or load("gqa", n_ctx=2048, logits_all=False, **options)
        return Chat(llm, sampling=Sampling(max_tokens=8), reserve=64, cache=cache)

    return new


QUESTION = "What is written here? " * 40  # about 880 tokens of the byte vocabulary


@pytest.mark.slow
def test_the_next_chat_starts_from_the_disk_and_answers_the_same(chat: Any) -> None:
    first = chat()
    list(first.ask(QUESTION))
    first.flush()
    asked_again = "".join(first.ask_again())
    other = chat()
    list(other.ask(QUESTION + "?"))
    assert other.last_stats.restored_tokens > 850
    assert other.last_stats.evaluated_tokens < 32
    same = chat()
    assert "".join(same.ask(QUESTION)) == asked_again
    assert same.last_stats.evaluated_tokens == 1


def test_a_short_chat_is_not_saved(chat: Any, cache: StateCache) -> None:
    talk = chat()
    list(talk.ask("Hello"))
    talk.flush()
    assert cache.entries() == []


@pytest.mark.slow
def test_turns_are_saved_once_there_is_enough_of_them(chat: Any, cache: StateCache) -> None:
    talk = chat()
    list(talk.ask(QUESTION))
    talk.flush()
    (before,) = cache.entries()
    list(talk.ask("And?"))
    talk.flush()
    assert cache.entries() == [before]
    list(talk.ask(QUESTION[:600]))
    talk.flush()
    (after,) = cache.entries()
    assert after.n_tokens > before.n_tokens + 600


def test_closing_the_model_waits_for_what_is_being_saved(load: Any, chat: Any, cache: StateCache) -> None:
    llm = load("gqa", n_ctx=2048, logits_all=False)
    talk = chat(llm)
    list(talk.ask(QUESTION))
    llm.close()
    talk.flush()
    assert len(cache.entries()) == 1
    assert cache.notes == []


def test_a_chat_on_the_same_model_waits_for_what_another_saves(load: Any, cache: StateCache) -> None:
    llm = load("gqa", n_ctx=2048, logits_all=False)
    first, second = (Chat(llm, sampling=Sampling(max_tokens=8), reserve=64, cache=cache) for _ in range(2))
    list(first.ask(QUESTION))
    list(second.ask("Hello"))
    first.flush()
    (entry,) = cache.entries()
    assert entry.n_tokens > 800
    fresh = load("gqa", n_ctx=2048, logits_all=False)
    tokens = [int(t) for t in entry.tokens]
    assert cache.restore(fresh, tokens, expect=1500) == entry.n_tokens


def test_a_stopped_prefill_is_saved(chat: Any, cache: StateCache) -> None:
    talk = chat(n_batch=128, n_ubatch=128)
    seen: list[int] = []
    with pytest.raises(Interrupted):
        list(talk.ask(QUESTION, progress=lambda done, total: seen.append(done), should_stop=lambda: bool(seen) and seen[-1] >= 640))
    talk.flush()
    assert [e.n_tokens for e in cache.entries()] == [16 + 5 * 128]


def test_checkpoints_replace_each_other(chat: Any, cache: StateCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(keeper_module, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(keeper_module, "WORTH_TOKENS", 128)
    talk = chat(n_batch=128, n_ubatch=128)
    seen: list[list[int]] = []
    list(talk.ask(QUESTION, progress=lambda done, total: seen.append([e.n_tokens for e in cache.entries()])))
    assert all(len(entries) <= 1 for entries in seen)
    assert [16 + 128] in seen
    assert [16 + 5 * 128] in seen


def test_checkpoints_take_their_share_of_the_time_only(chat: Any, cache: StateCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a disk that takes 1 s and a clock that moves 1 s with each micro-batch, one write in 20 s is 5 %."""
    clock = [0.0]
    monkeypatch.setattr(keeper_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(keeper_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(keeper_module, "WORTH_TOKENS", 1)
    real, written = cache.save, []

    def slow(*args: Any, **options: Any) -> bool:
        written.append(clock[0])
        clock[0] += 1.0
        return real(*args, **options)

    monkeypatch.setattr(cache, "save", slow)

    def progress(done: int, total: int) -> None:
        clock[0] += 1.0

    talk = chat(n_batch=16, n_ubatch=16)
    list(talk.ask(QUESTION, progress=progress))
    talk.flush()
    during = written[:-1]  # the last is the one after the answer
    assert len(during) >= 3
    assert all(b - a >= 20 for a, b in zip(during, during[1:], strict=False))


# Recall: a text that is read again, resumed or restored is the same to the bit

RECALLING: dict[str, Any] = dict(ga_mode="recall", n_ctx=1536, kv_overrides={"llama.context_length": 512})
"""A trained window that holds what recall attends to."""


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_a_document_that_is_reopened_under_recall_answers_bit_for_bit(load: Any, cache: StateCache, kv_type: str) -> None:
    """Two questions about a document, in a process that read it and in one that restores what the first left after its answer."""
    document, expect = 1100, 1500
    questions = [TEXT[1100:1150], TEXT[1300:1420]]
    prompts = [[*TEXT[:document], *question] for question in questions]

    def asked(llm: SelfExtendLlama, prompt: list[int]) -> np.ndarray:
        llm.prefill(prompt, expect=expect, stops=[document])
        return np.array(llm.scores[len(prompt) - 1])

    first = load("gqa", kv_type=kv_type, **RECALLING)
    wanted = [asked(load("gqa", kv_type=kv_type, **RECALLING), prompt) for prompt in prompts]
    for prompt, logits in zip([*prompts, *prompts], [*wanted, *wanted], strict=True):
        assert_same(asked(first, prompt), logits)
        for _ in zip(range(40), first.generate(prompt, temp=0.0), strict=False):
            pass
    assert cache.save(first)
    for prompt, logits in zip(prompts, wanted, strict=True):
        again = load("gqa", kv_type=kv_type, **RECALLING)
        assert cache.restore(again, prompt, expect=expect) >= document
        found = again.prefill(prompt, expect=expect, stops=[document])
        assert found.n_evaluated <= len(prompt) - document
        assert_same(np.array(again.scores[len(prompt) - 1]), logits)


def test_a_text_that_grows_long_goes_over_to_less_recall_and_is_not_read_again(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "RECALL_LONG", 2)
    monkeypatch.setattr(positions, "RECALLED_LONG", 64)
    llm = load("gqa", **RECALLING)
    seen = []
    for end in (1000, 1024, 1025, 1200, 1010):
        found = llm.prefill(TEXT[:end])
        assert np.isfinite(llm.scores[end - 1]).all()
        seen.append((end, found.n_reused, llm.group_attention.recall))
    assert seen[:4] == [(1000, 0, 96), (1024, 1000, 96), (1025, 1024, 64), (1200, 1025, 64)]
    assert seen[4][1] == 512  # the last cut that a whole reading makes before the end


@pytest.mark.slow
def test_a_reading_that_was_stopped_goes_on_bit_for_bit_under_recall(load: Any, cache: StateCache) -> None:
    whole = load("gqa", n_batch=64, **RECALLING)
    whole.prefill(TEXT, expect=1500)
    for stop_after in (300, 1000, 1460):
        llm = load("gqa", n_batch=64, **RECALLING)
        with pytest.raises(Interrupted):
            llm.prefill(TEXT, expect=1500, should_stop=lambda llm=llm, n=stop_after: llm.n_tokens >= n)
        assert 0 < llm.n_tokens < len(TEXT)
        cache.save(llm)
        again = load("gqa", n_batch=64, **RECALLING)
        assert cache.restore(again, TEXT, expect=1500)
        for one in (llm, again):
            n_held = int(one.n_tokens)
            assert one.prefill(TEXT, expect=1500).n_reused == n_held
            assert_same(one.scores[n_held : len(TEXT)], whole.scores[n_held : len(TEXT)])
