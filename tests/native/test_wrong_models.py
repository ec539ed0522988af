"""Model files that are well-formed and wrong: a sentence, whatever llama.cpp does with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.gguf_edit import Gguf, parse
from support.tiny_models import TinyModel

from selfextend_local.engine import opening
from selfextend_local.errors import ModelError

pytestmark = [pytest.mark.native, pytest.mark.process]

NAN = float("nan")
STRING, ARRAY, UINT, FLOAT = 8, 9, 4, 6



def renamed(gguf: Gguf, names: dict[bytes, bytes]) -> None:
    gguf.set("tokenizer.ggml.tokens", ARRAY, (8, [names.get(token, token) for token in gguf.get("tokenizer.ggml.tokens")[2][1]]))


CHANGES: dict[str, tuple[str, Callable[[Gguf], Any]]] = {
    "no layers": ("gqa", lambda g: g.set("llama.block_count", UINT, 0)),
    "a thousand layers": ("gqa", lambda g: g.set("llama.block_count", UINT, 1000)),
    "no tokens": ("gqa", lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (8, []))),
    "tokens twice": ("gqa", lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (8, [b"a"] * 260))),
    "no tokenizer": ("gqa", lambda g: g.drop("tokenizer.ggml.model")),
    "a negative epsilon": ("gqa", lambda g: g.set("llama.attention.layer_norm_rms_epsilon", FLOAT, -1.0)),
    "an epsilon that is no number": ("gqa", lambda g: g.set("llama.attention.layer_norm_rms_epsilon", FLOAT, NAN)),
    "no heads": ("gqa", lambda g: g.set("llama.attention.head_count", UINT, 0)),
    "many experts": ("gqa", lambda g: g.set("llama.expert_count", UINT, 100_000)),
    "an alignment of one": ("gqa", lambda g: g.set("general.alignment", UINT, 1)),
    "odd rope dimensions": ("gqa", lambda g: g.set("llama.rope.dimension_count", UINT, 63)),
    "many rope dimensions": ("gqa", lambda g: g.set("llama.rope.dimension_count", UINT, 1000)),
    "a window and no pattern": ("swa", lambda g: g.drop("plamo3.attention.sliding_window_pattern")),
    "all layers sliding": ("swa", lambda g: g.set("plamo3.attention.sliding_window_pattern", UINT, 0)),
    "a large token": ("gqa", lambda g: g.set("tokenizer.ggml.bos_token_id", UINT, 2**32 - 1)),
    "a large window": ("gqa", lambda g: g.set("llama.context_length", UINT, 2**31 - 1)),
    "no rope dimensions": ("partial-rotary", lambda g: g.set("stablelm.rope.dimension_count", UINT, 0)),
    "a byte that no token spells": ("gqa", lambda g: renamed(g, {b"<0x6F>": b"other"})),
    "diffusion": ("gqa", lambda g: g.set("general.architecture", STRING, b"dream")),
}

OPENED = """
import sys
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import SelfExtendError
try:
    llm = SelfExtendLlama(sys.argv[1], n_ctx=256, n_threads=1)
    llm.prefill(llm.tokenize(b"one two three"))
    print("answered")
except SelfExtendError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_model_is_a_sentence_or_answers(tiny_model: TinyModel, tmp_path: Path, change: str) -> None:
    kind, changed = CHANGES[change]
    gguf = parse(tiny_model(kind).read_bytes())
    changed(gguf)
    path = tmp_path / "wrong.gguf"
    path.write_bytes(gguf.dump())
    done = subprocess.run([sys.executable, "-c", OPENED, str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("answered", "refused:"))


def test_what_was_opened_once_is_not_tried_again(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_CACHE_DIR", str(tmp_path))
    opening._check.cache_clear()
    tried: list[Path] = []
    monkeypatch.setattr(opening, "_try", tried.append)
    for _ in range(2):
        opening.check(tiny_model("gqa"))
        opening._check.cache_clear()
    assert len(tried) == 1
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_model("gqa").read_bytes())
    opening.check(copy)
    assert len(tried) == 1
    copy.write_bytes(tiny_model("swa").read_bytes())
    opening.check(copy)
    assert len(tried) == 2


def test_an_assertion_is_named(tiny_model: TinyModel, tmp_path: Path) -> None:
    gguf = parse(tiny_model("gqa").read_bytes())
    gguf.set("llama.block_count", UINT, 1000)
    path = tmp_path / "wrong.gguf"
    path.write_bytes(gguf.dump())
    with pytest.raises(ModelError, match=r"llama\.cpp ends the process \(.*GGML_ASSERT.*\)\. Its header is wrong"):
        opening.check(path)
