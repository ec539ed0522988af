"""SelfExtendLlama where programs for llama_cpp.Llama would notice a difference."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama, llama_cpp
from support.gguf_edit import parse
from support.tiny_models import TinyModel

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import ContextOverflow, GroupAttentionError, ModelNotFound, SelfExtendError

pytestmark = pytest.mark.native

WINDOW = 128  # of the tiny models


def tokens(n: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(1).integers(3, 250, n)]


def test_a_vocabulary_alone_is_opened(tiny_model: TinyModel, tmp_path: Path) -> None:
    gguf = parse(tiny_model("gqa").read_bytes())
    gguf.tensors, gguf.data = [], b""
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf.dump())
    for model in (path, tiny_model("gqa")):
        ours, theirs = SelfExtendLlama(model, vocab_only=True), Llama(str(model), vocab_only=True, verbose=False)
        text = "A line — and\nanother </s>".encode()
        for special in (False, True):
            assert ours.tokenize(text, special=special) == theirs.tokenize(text, special=special)
        assert ours.detokenize(ours.tokenize(text)) == theirs.detokenize(theirs.tokenize(text))
        assert ours.n_vocab() == theirs.n_vocab()
        ours.close()
        theirs.close()


@pytest.mark.parametrize("kind", ["recurrent", "alibi", "no-rope"])
@pytest.mark.parametrize("n_ctx", [32, 100, 256, 0, None])
def test_a_model_without_rotary_positions_is_plain_where_the_text_fits(tiny_model: TinyModel, kind: str, n_ctx: int | None) -> None:
    ours = SelfExtendLlama(tiny_model(kind), n_ctx=n_ctx, n_threads=1, logits_all=True)
    theirs = Llama(str(tiny_model(kind)), n_ctx=256, n_batch=512, n_threads=1, flash_attn=True, logits_all=True, verbose=False)
    assert ours.capacity <= WINDOW or n_ctx is not None
    text = tokens(min(100, ours.capacity))
    ours.eval(text)
    theirs.eval(text)
    assert np.array_equal(ours.scores[len(text) - 1], theirs.scores[len(text) - 1])
    with pytest.raises(ContextOverflow):
        ours.eval(tokens(300))
    ours.close()
    theirs.close()


def test_pickling_keeps_what_was_asked(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), ga_n=4, ga_w=32, kv_type="q8_0", n_ctx=300, seed=7, n_threads=1)
    again: Any = pickle.loads(pickle.dumps(llm))
    assert again.plan == llm.plan
    assert again.state_settings() == llm.state_settings()
    text = tokens(290)
    llm.eval(text)
    again.eval(text)
    assert np.array_equal(llm._decoder.logits(1), again._decoder.logits(1))
    llm.close()
    again.close()


def test_overflow_and_a_missing_file_are_value_errors_in_known_words(tiny_model: TinyModel, tmp_path: Path) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, ga_n="auto", n_threads=1)
    with pytest.raises(ValueError, match=r"Requested tokens \((\d+)\) exceed context window of (\d+)") as too_long:
        llm.create_completion(tokens(300))
    assert isinstance(too_long.value, ContextOverflow) and pickle.loads(pickle.dumps(too_long.value)).n_tokens == 301
    llm.close()
    with pytest.raises(ValueError, match="Model path does not exist") as missing:
        SelfExtendLlama(tmp_path / "missing.gguf")
    assert isinstance(missing.value, ModelNotFound)


def test_the_window_of_kv_overrides_counts(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, kv_overrides={"llama.context_length": 2048}, n_threads=1)
    assert llm.plan.n_ctx_train == 2048
    assert not llm.group_attention_for(256).enabled
    llm.close()


def test_type_k_and_type_v_are_a_kv_type(tiny_model: TinyModel) -> None:
    by_name = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, kv_type="q8_0", n_threads=1)
    by_number = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, type_k=8, type_v=8, n_threads=1)
    assert by_name.plan == by_number.plan and by_number.plan.kv_type == "q8_0"
    by_name.close()
    by_number.close()


def test_scaled_positions_and_groups_are_not_both(tiny_model: TinyModel) -> None:
    yarn: dict[str, Any] = dict(rope_scaling_type=llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN, rope_freq_scale=0.25, n_threads=1)
    llm = SelfExtendLlama(tiny_model("gqa"), **yarn)
    assert llm.capacity == 4 * WINDOW and not llm.group_attention_for(4 * WINDOW).enabled
    llm.eval(tokens(300))
    assert not llm.group_attention.enabled
    llm.close()
    with pytest.raises(GroupAttentionError, match="take one of the two"):
        SelfExtendLlama(tiny_model("gqa"), ga_n=4, **yarn)


def test_zero_is_the_trained_window(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=0, n_threads=1)
    assert llm.plan.n_ctx_train == WINDOW and llm.plan.n_ctx == 256  # llama.cpp's padding
    llm.close()


def test_a_grouped_state_comes_back_with_its_groups(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_threads=1, logits_all=True)
    text = tokens(400)
    llm.prefill(text)
    grouped, state = llm.group_attention, llm.save_state()
    llm.eval([5])
    wanted = llm._decoder.logits(1).copy()
    llm.reset()
    llm.prefill(tokens(20))
    assert llm.group_attention != grouped
    llm.load_state(state)
    assert llm.group_attention == grouped
    llm.eval([5])
    np.testing.assert_allclose(llm._decoder.logits(1), wanted, atol=0.02)
    llm.close()


def test_a_program_that_decodes_by_itself_has_the_whole_capacity(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_threads=1, logits_all=True)
    text = tokens(400)
    for part in (text[:200], text[200:]):
        array = (llama_cpp.llama_token * len(part))(*part)
        assert llama_cpp.llama_decode(llm.ctx, llama_cpp.llama_batch_get_one(array, len(part))) == 0
    theirs = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), (llm.n_vocab(),)).copy()
    llm.reset()
    llm.pin_group_attention(llm.group_attention_for(llm.capacity))
    llm.eval(text)
    np.testing.assert_allclose(llm.scores[len(text) - 1], theirs, atol=2e-3)
    llm.close()


def test_embeddings_say_that_they_are_plain(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, embedding=True, pooling_type=1, n_threads=1, ga_n="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llm.embed("short")
    with pytest.warns(UserWarning, match="without groups, beyond the trained window of 128"):
        llm.embed("long " * 60)
    llm.close()


@pytest.mark.parametrize(("key", "kind", "value"), [("pooling_type", 4, 1), ("pooling_type", 4, 3), ("attention.causal", 7, False)])
def test_a_model_that_takes_texts_as_a_whole_is_plain(tiny_model: TinyModel, tmp_path: Path, key: str, kind: int, value: int) -> None:
    """As bge and Qwen3-Embedding say of themselves. Groups for a long context were refused, and with them the model."""
    path = tmp_path / "embeds.gguf"
    path.write_bytes(parse(tiny_model("gqa").read_bytes()).set(f"llama.{key}", kind, value).dump())
    ours, theirs = (
        make(str(path), n_ctx=WINDOW, embedding=True, n_threads=1, flash_attn=True, verbose=False) for make in (SelfExtendLlama, Llama)
    )
    for text in ("short", "long " * 20):
        np.testing.assert_array_equal(ours.embed(text), theirs.embed(text))
    ours.close()
    theirs.close()


def test_openais_json_schema_is_obeyed(tiny_model: TinyModel) -> None:
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, n_threads=1)
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = llm.create_chat_completion([{"role": "user", "content": "hi"}], response_format=form, max_tokens=40, temperature=0.0)
    assert json.loads(answer["choices"][0]["message"]["content"])["a"] in (1, 2)
    llm.close()


ASKED = [{"role": "user", "content": "hi"}]
LONG = {"type": "string", "maxLength": 20_000}


def tool(**properties: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": "note", "description": "", "parameters": schema}}


NAMED: Any = {"type": "function", "function": {"name": "note"}}


@pytest.mark.parametrize("choice", [NAMED, "auto"])
@pytest.mark.parametrize("chat_format", [None, "chatml-function-calling"])
def test_the_arguments_of_a_tool_are_json(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, chat_format: str | None, choice: Any
) -> None:
    """llama-cpp-python's own grammar lets a string hold line ends."""
    drawn: list[str] = []
    init = Llama._init_sampler

    def noted(*args: Any, **kwargs: Any) -> Any:
        drawn.append(kwargs["grammar"]._grammar if kwargs.get("grammar") else "")
        return init(*args, **kwargs)

    monkeypatch.setattr(Llama, "_init_sampler", noted)
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=512, n_threads=1, chat_format=chat_format)
    fields = {"tools": [tool(what={"type": "string"})], "tool_choice": choice, "max_tokens": 8, "temperature": 0.0}
    llm.create_chat_completion(ASKED, **fields)
    with_schema = [rules for rules in drawn if "what" in rules]
    assert len(with_schema) == (choice is NAMED or chat_format is not None)
    assert all(r'[^"\\\x00-\x1F]' in rules for rules in with_schema)
    llm.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object", "schema": LONG}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": LONG}}},
        {"tools": [tool(what=LONG)], "tool_choice": NAMED},
        {"functions": [tool(what=LONG)["function"]], "function_call": {"name": "note"}},
    ],
)
def test_a_schema_that_is_too_much_is_refused_before_it_is_converted(tiny_model: TinyModel, fields: dict[str, Any]) -> None:
    """llama-cpp-python converted it in this process, and took any JSON where that failed."""
    llm = SelfExtendLlama(tiny_model("gqa"), n_ctx=256, n_threads=1)
    with pytest.raises(SelfExtendError, match="maxLength is 20,000, and 1,000 is the most"):
        llm.create_chat_completion(ASKED, **fields)
    with pytest.raises(SelfExtendError, match="response_format is none of"):
        llm.create_chat_completion(ASKED, response_format={"type": "json"})
    if "tools" in fields:  # that nobody follows
        assert llm.create_chat_completion(ASKED, tools=fields["tools"], tool_choice="none", max_tokens=2)["choices"]
    llm.close()
