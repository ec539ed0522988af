"""No text ends the process: every pre-tokenizer of the pinned llama.cpp is given runs without a break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

pytestmark = pytest.mark.native

# `tokenizer_pre == "..."` in the pinned src/llama-vocab.cpp; "whitespace" is no byte-level vocabulary, and not written here.
NAMES = [
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell", "cohere2moe", "command-r",
    "dbrx", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen", "deepseek-v3", "default", "exaone", "exaone-moe", "exaone4",
    "f2llmv2", "falcon", "falcon-h1", "falcon3", "gemma4", "gigachat", "glm4", "glm5", "gpt-2", "gpt-4o", "gpt3-finnish",
    "granite-docling", "granite-embed-multi-311m", "granite-embed-multi-97m", "grok-2", "hunyuan", "hunyuan-dense", "hy_v4",
    "jais", "jais-2", "jina-de", "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano",
    "joyai-llm", "kanana2", "kimi-k2", "kormo", "laguna", "lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3", "llama4",
    "megrez", "mellum", "mellum2", "midm-2.0", "minerva-7b", "minicpm5", "minimax-m2", "modern-bert", "mpt", "olmo", "phi-2",
    "pixtral", "poro-chat", "qwen2", "qwen35", "refact", "roberta-bpe", "sarvam-moe", "seed-coder", "smaug-bpe", "smollm",
    "solar-open", "spark2_5", "stablelm2", "starcoder", "superbpe", "talkie", "tekken", "tiny_aya", "trillion", "ufakzeka",
    "viking", "youtu",
]  # fmt: skip

CHILD = """
import sys
from selfextend_local import native
api = native.bindings()
runs = ["acgt" * 12_000, "A" * 48_000, "e\\u0301" * 12_000, "\\u4e00" * 9_000, " " * 48_000, "\\n" * 9_000, "7" * 9_000, "-" * 9_000]
for path in sys.argv[1:]:
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(path.encode(), params)
    assert model, path
    for run in runs:
        assert native.tokenize(model, "Before " + run + " after.", False)
    print(path, flush=True)
"""


def byte_vocabulary() -> list[str]:
    """The 256 bytes as GPT-2 writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in shown]
    letters = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [letters[b] for b in range(256)]


def write_vocabulary(path: Path, pre: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    tokens = [*byte_vocabulary(), "ac", "gt", "acgt", "<end>"]
    for key, value in (("context_length", 128), ("embedding_length", 32), ("block_count", 1), ("feed_forward_length", 32),
                       ("attention.head_count", 1)):  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["a c", "g t", "ac gt"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_bos_token_id(len(tokens) - 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
def test_a_run_without_a_break_ends_no_process(tmp_path: Path) -> None:
    paths = []
    for name in NAMES:
        paths.append(str(tmp_path / f"{name}.gguf"))
        write_vocabulary(Path(paths[-1]), name)
    code, quiet = CHILD.replace("\\\\", "\\"), {**os.environ, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, env=quiet)
    assert (done.stdout.splitlines(), done.returncode) == (paths, 0), done.stderr[-2000:]
