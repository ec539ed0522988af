"""SelfExtendLlama on tiny random models: a drop-in, plain while the text fits, interruptible, honest about its limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama, LlamaGrammar
from support.driver import GPU_LAYERS

from selfextend_local import native
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.engine.peek import ModelPeek
from selfextend_local.engine.plan import MEMORY_SHARE, Settings, group_attention_for
from selfextend_local.errors import (
    ContextOverflow,
    GroupAttentionError,
    Interrupted,
    MemoryBudgetError,
    ModelError,
    ModelNotFound,
    ModelUnsupported,
)
from selfextend_local.positions import MICRO_BATCH, GroupAttention, reach

pytestmark = pytest.mark.native

Tiny = Callable[[str], Path]
TEXT = list(np.random.default_rng(7).integers(3, 250, 700))


def tokens(count: int) -> list[int]:
    return [int(t) for t in TEXT[:count]]


@pytest.fixture
def extended(tiny_model: Tiny) -> Any:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024, logits_all=True)
    yield llm
    llm.close()


def test_a_text_that_fits_is_the_plain_model_s_bit_for_bit(tiny_model: Tiny, extended: SelfExtendLlama) -> None:
    plain = Llama(
        str(tiny_model("gqa")), n_ctx=1024, n_threads=extended.n_threads, n_threads_batch=extended.n_threads_batch,
        n_ubatch=extended.context_params.n_ubatch, flash_attn=True, logits_all=True, verbose=False,
    )
    plain.eval(tokens(48))
    extended.eval(tokens(48))
    assert extended.group_attention.n == 1
    assert np.array_equal(plain.scores[:48], extended.scores[:48])
    plain.close()


@pytest.mark.slow
def test_n_grows_with_the_conversation_and_returns_to_plain_with_a_short_one(extended: SelfExtendLlama) -> None:
    seen = []
    for count in (40, 60, 100, 300, 700):
        extended.prefill(tokens(count))
        seen.append(extended.group_attention.n)
    assert seen[0] == 1
    assert seen == sorted(seen)
    assert seen[-1] > 4
    extended.prefill(tokens(40))
    assert extended.group_attention.n == 1


@pytest.mark.slow
def test_growing_agrees_with_setting_n_once(tiny_model: Tiny, extended: SelfExtendLlama) -> None:
    for count in range(50, 651, 50):
        extended.prefill(tokens(count))
    at_once = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024, logits_all=True)
    at_once.prefill(tokens(700), expect=700)
    extended.prefill(tokens(700))
    assert extended.group_attention == at_once.group_attention
    assert np.isfinite(extended.scores[699]).all()
    at_once.close()


def test_the_expected_length_sets_n_once(extended: SelfExtendLlama) -> None:
    sizes = []
    extended.prefill(tokens(700), expect=900, progress=lambda done, total: sizes.append(extended.group_attention.n))
    assert len(set(sizes)) == 1


def test_prefix_reuse_between_turns(extended: SelfExtendLlama) -> None:
    assert extended.prefill(tokens(200)).n_evaluated == 200
    again = extended.prefill(tokens(260))
    assert (again.n_reused, again.n_evaluated) == (200, 60)
    branch = extended.prefill([*tokens(150), 9, 9, 9])
    assert (branch.n_reused, branch.n_evaluated) == (150, 3)
    assert extended.prefill([*tokens(150), 9, 9, 9]).n_evaluated == 0


@pytest.mark.slow
def test_an_interrupted_prefill_keeps_what_it_has_and_goes_on(tiny_model: Tiny) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024, n_batch=64, n_ubatch=64, logits_all=True)
    progress: list[tuple[int, int]] = []
    with pytest.raises(Interrupted) as stopped:
        llm.prefill(tokens(640), expect=700, progress=lambda d, t: progress.append((d, t)), should_stop=lambda: len(progress) >= 4)
    # the first micro-batch ends where the boundary's first step will be, at w = 16 modulo the micro-batch
    assert stopped.value.n_done == 16 + 2 * 64 == llm.n_tokens
    rest = llm.prefill(tokens(640), expect=700)
    assert (rest.n_reused, rest.n_evaluated) == (144, 496)
    whole = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024, n_batch=64, n_ubatch=64, logits_all=True)
    whole.prefill(tokens(640), expect=700)
    assert np.array_equal(whole.scores[639], llm.scores[639])
    llm.close()
    whole.close()


def test_a_stop_inside_a_micro_batch_takes_effect_there(tiny_model: Tiny) -> None:
    if GPU_LAYERS:
        pytest.skip("only the CPU backend asks the abort callback")
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=1024)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with pytest.raises(Interrupted) as stopped:
        llm.prefill(tokens(600), should_stop=stop)
    assert stopped.value.n_done == 0
    assert llm.prefill(tokens(600)).n_evaluated == 600
    llm.close()


def test_an_exception_in_the_stop_callback_reaches_the_caller(extended: SelfExtendLlama) -> None:
    def stop() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extended.prefill(tokens(100), should_stop=stop)
    assert extended.prefill(tokens(100)).n_prompt == 100


def test_streaming_chat_grammar_and_logits_processors_work(extended: SelfExtendLlama) -> None:
    messages = [{"role": "user", "content": "x" * 200}]
    chunks = list(extended.create_chat_completion(messages, max_tokens=4, stream=True, temperature=0))
    assert chunks[-1]["choices"][0]["finish_reason"] in ("length", "stop")
    grammar = LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
    assert extended.create_completion("a" * 200, grammar=grammar, max_tokens=4)["choices"][0]["text"] in ("yes", "no")

    def only_seven(_: Any, scores: Any) -> Any:
        scores[:] = -np.inf
        scores[70] = 0
        return scores

    generated = extended.generate(tokens(90), logits_processor=[only_seven], temp=0)
    assert [next(generated) for _ in range(3)] == [70, 70, 70]
    assert extended.group_attention.n > 1


def test_states_are_saved_and_restored(extended: SelfExtendLlama) -> None:
    extended.prefill(tokens(300))
    state = extended.save_state()
    extended.eval([5])
    first = extended.scores[300].copy()
    extended.reset()
    extended.load_state(state)
    extended.eval([5])
    assert np.allclose(first, extended.scores[300], atol=1e-5)


def test_embeddings_work(tiny_model: Tiny) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=128, embedding=True)
    assert len(llm.create_embedding("hello")["data"][0]["embedding"]) > 0
    llm.close()


def test_too_long_a_prompt_says_how_many_tokens_over(extended: SelfExtendLlama) -> None:
    extended.prefill(tokens(100))
    with pytest.raises(ContextOverflow, match="1,100 tokens are 76 more than the 1,024 that fit. Take n_ctx=1280") as caught:
        extended.prefill(tokens(700) + tokens(400))
    assert caught.value.over == 76
    assert extended.n_tokens == 100
    with pytest.raises(ContextOverflow):
        extended.create_completion("a" * 2000)


def test_what_cannot_hold_is_refused_before_loading(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_cpp.Llama.__init__", lambda *a, **k: pytest.fail("the weights were loaded"))
    with pytest.raises(GroupAttentionError, match="doesn't fit the trained window of 128"):
        SelfExtendLlama(tiny_model("gqa"), ga_n=4, ga_w=200)
    with pytest.raises(GroupAttentionError, match="power of two"):
        SelfExtendLlama(tiny_model("gqa"), ga_n=3)
    with pytest.raises(MemoryBudgetError, match="MiB are available"):
        monkeypatch.setattr("psutil.virtual_memory", lambda: type("M", (), {"available": 1 << 16})())
        SelfExtendLlama(tiny_model("gqa"), n_ctx=1024)


@pytest.mark.slow
def test_the_kv_type_follows_the_free_memory(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    types = []
    with ModelPeek(tiny_model("gqa")) as peek:
        grouped = group_attention_for(Settings(), 2048, peek.info.n_ctx_train)
        size = dict(n_ctx=2048, n_batch=512, n_ubatch=MICRO_BATCH, flash_attn=True, group_attention=grouped)
        uses = [native.memory_use(peek._model, kv_type=kv_type, **size) for kv_type in ("f16", "q8_0", "q4_0")]
    for host, _ in uses:
        free = int((host.kv_cache + host.compute) / MEMORY_SHARE) + 1024
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: type("M", (), {"available": free})())
        llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=2048, kv_type="auto")
        types.append((llm.plan.kv_type, llm.state_settings()["kv_type_k"], llm.state_settings()["kv_type_v"]))
        assert llm.prefill(tokens(300)).n_evaluated == 300
        llm.close()
    assert types == [(t, t, t) for t in ("f16", "q8_0", "q4_0")]


def test_layers_go_where_the_plan_says(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "free_gpu_memory", lambda: 1 << 30)
    with ModelPeek(tiny_model("gqa")) as peek:
        plan = peek.plan(Settings(n_ctx=512, gpu_layers="auto"))
    assert plan.gpu_layers == 3
    assert re.search(r"3 of 3 layers on the GPU \(\d+ MiB of the 1,024 MiB free there\)", plan.describe())
    monkeypatch.undo()
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_gpu_layers="auto", plan=plan)
    assert llm.model_params.n_gpu_layers == 3
    llm.close()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("alibi", "no rotary positions"), ("no-rope", "no rotary positions"), ("recurrent", "no rotary positions")],
)
def test_unsupported_models_are_named_as_such(tiny_model: Tiny, kind: str, reason: str) -> None:
    with pytest.raises(ModelUnsupported, match=reason):
        SelfExtendLlama(tiny_model(kind), ga_n=4, n_ctx=256)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swa", "hybrid", "qkv-bias", "partial-rotary"])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_every_supported_kind_reads_beyond_its_window(tiny_model: Tiny, kind: str, kv_type: str) -> None:
    llm = SelfExtendLlama(tiny_model(kind), n_ctx=1024, kv_type=kv_type, logits_all=True)
    llm.prefill(tokens(600))
    assert llm.group_attention.n > 1
    assert np.isfinite(llm.scores[599]).all()
    llm.close()


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model file"):
        SelfExtendLlama(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match="can't be loaded"):
        SelfExtendLlama(tmp_path / "bad.gguf")


def test_peek_reads_metadata_without_weights(tiny_model: Tiny) -> None:
    with ModelPeek(tiny_model("swa")) as peek:
        assert peek.info.n_ctx_train == 128
        assert peek.info.sliding_window == 32
        assert peek.tokenize("abc")


def test_loading_is_reported(tiny_model: Tiny) -> None:
    seen: list[int] = []
    SelfExtendLlama(tiny_model("gqa"), n_ctx=128, load_progress=lambda done, total: seen.append(done)).close()
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_tokens_of_any_length_come_out_whole(tmp_path: Path) -> None:
    from support.scripted_model import make_scripted_model

    long = "é" * 200
    llm = SelfExtendLlama(make_scripted_model(tmp_path / "long.gguf", {"1": [long, " end"]}), n_ctx=256)
    answer = llm.create_completion("<|user|>x1", max_tokens=8)["choices"][0]["text"]
    assert answer == long + " end"
    llm.close()


def test_generating_stops_between_tokens_and_within_slow_ones(extended: SelfExtendLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    # Every step counts as slow, so that the library polls within a token.
    monkeypatch.setattr("selfextend_local.engine.llama.SECONDS_WITHOUT_POLL", -1.0)
    with pytest.raises(Interrupted):
        for _ in extended.generate(tokens(20), temp=0, should_stop=should_stop):
            pass
    kept, before = int(extended.n_tokens), asked
    assert next(extended.generate(tokens(20), temp=0)) >= 0
    assert asked == before  # what was asked to stop it is asked no more
    assert kept <= 20 + asked


@pytest.mark.parametrize("kind", ["gqa", "swa", "hybrid", "recurrent"])
def test_what_was_read_before_a_stop_within_a_micro_batch_is_kept_and_goes_on(tiny_model: Tiny, kind: str) -> None:
    if GPU_LAYERS:
        pytest.skip("only the CPU backend asks the abort callback")
    options = {"ga_n": 1, "n_ctx": 128} if kind == "recurrent" else {"n_ctx": 1024}
    llm, whole = (SelfExtendLlama(tiny_model(kind), logits_all=True, **options) for _ in range(2))
    llm.prefill(tokens(40), expect=110)
    asked = iter(range(1000))
    with pytest.raises(Interrupted) as stopped:
        llm.prefill(tokens(110), expect=110, should_stop=lambda: next(asked) > 20)
    assert stopped.value.n_done == llm.n_tokens == 40
    assert llm.prefill(tokens(110), expect=110).n_reused == 40
    whole.prefill(tokens(40), expect=110)
    whole.prefill(tokens(110), expect=110)
    assert np.array_equal(llm.scores[109], whole.scores[109])
    llm.close()
    whole.close()


@pytest.mark.slow
def test_what_a_memory_refuses_to_drop_is_read_again(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hybrid memory does with what an unfinished micro-batch left, if the state before it can't be put back."""
    llm = SelfExtendLlama(tiny_model("hybrid"), n_ctx=1024)
    llm.prefill(tokens(200))
    monkeypatch.setattr("selfextend_local.native.restore_recurrent_state", lambda *_: False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted, match="nothing is kept") as stopped:
        llm.prefill(tokens(600), should_stop=lambda: next(asked) > 20)
    assert stopped.value.n_done == llm.n_tokens == 0
    assert llm.prefill(tokens(600)).n_evaluated == 600
    llm._held = -1
    monkeypatch.setattr("selfextend_local.native.drop_positions", lambda *_: False)
    assert llm.prefill(tokens(610)).n_evaluated == 10
    assert llm.n_tokens == 610
    llm.close()


def test_a_plan_that_was_made_is_used(tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelPeek(tiny_model("gqa")) as peek:
        plan = peek.plan(Settings(need_tokens=300))
    monkeypatch.setattr(ModelPeek, "plan", lambda *a, **k: pytest.fail("it was planned twice"))
    llm = SelfExtendLlama(tiny_model("gqa"), need_tokens=300, plan=plan)
    assert llm.plan is plan
    llm.close()


def test_where_recall_is_refused_the_context_ends_where_groups_do(fixture_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most, take = reach(512, progressive=True), native.set_group_attention

    def refuse(ctx: Any, ga: GroupAttention) -> None:
        if ga.recall:
            raise ModelUnsupported("no recall here")
        take(ctx, ga)

    monkeypatch.setattr("selfextend_local.native.set_group_attention", refuse)
    llm = SelfExtendLlama(fixture_model, n_ctx=most + 600)
    assert llm.capacity == most and llm.plan.groups_only == "no recall here" and not llm.plan.group_attention.recall
    llm.close()
    with pytest.raises(ContextOverflow, match=f"{most + 600:,} tokens are 600 more than the {most:,} that fit"):
        SelfExtendLlama(fixture_model, need_tokens=most + 600)


@pytest.mark.parametrize("length", [10, 150])
def test_the_next_growth_is_known_before_a_text_is_read(extended: SelfExtendLlama, length: int) -> None:
    extended.reset()  # type: ignore[no-untyped-call]
    foretold = extended.next_growth(length)
    extended.prefill(tokens(length))
    assert foretold == extended.next_growth()
    assert foretold is None or foretold[0] > length


def test_the_next_growth_is_where_n_grows(extended: SelfExtendLlama) -> None:
    extended.prefill(tokens(10))
    growth = extended.next_growth()
    assert growth is not None
    length, group = growth
    extended.prefill(tokens(length - 1))
    assert extended.group_attention.n < group.n
    extended.prefill(tokens(length))
    assert extended.group_attention == group
