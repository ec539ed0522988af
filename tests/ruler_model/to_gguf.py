"""Writes weights of `train`, which are q8_0 already, and the tokenizer as a GGUF file.

    PYTHONPATH=..:../.. python -m ruler_model.to_gguf seed-0.npz tokenizer.json ruler-0.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from fixture_model.to_gguf import _add_tokenizer

WINDOW, N_LAYER, N_HEAD, N_HEAD_KV, HEAD_DIM, ROPE_BASE, NORM_EPS = 1024, 8, 6, 3, 64, 10_000.0, 1e-5


def q8_0(scales: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The bytes of blocks of 32: a float16 scale (rows, blocks) in front of the int8 values (rows, blocks, 32)."""
    rows, blocks = scales.shape
    packed = np.concatenate([scales[..., None].view(np.uint8).reshape(rows, blocks, 2), values.view(np.uint8)], axis=-1)
    return packed.reshape(rows, -1)


def main(weights: str, tokenizer: str, target: str) -> None:
    arrays = np.load(weights)
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(f"selfextend-local ruler {Path(weights).stem}")
    writer.add_description("Does RULER's tasks inside 1,024 tokens; trained to tell methods of context extension apart")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(arrays["output_norm"].shape[0])
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(arrays["blk.0.ffn_up/scales"].shape[0])
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_vocab_size(arrays["token_embd/scales"].shape[0])
    _add_tokenizer(writer, json.loads(Path(tokenizer).read_text(encoding="utf-8")))
    for name in arrays.files:
        if name.endswith("/scales"):
            tensor = name.removesuffix("/scales")
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{tensor}.weight", q8_0(arrays[name], arrays[f"{tensor}/q8"]), raw_dtype=kind)
        elif not name.endswith("/q8"):
            writer.add_tensor(f"{name}.weight", arrays[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
