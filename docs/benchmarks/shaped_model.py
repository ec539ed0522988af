"""Write a GGUF of a known shape with random weights: speed depends on shapes and types, not on values.

    python docs/benchmarks/shaped_model.py smollm2 /tmp/smollm2-shaped.gguf
    python docs/benchmarks/shaped_model.py mistral-7b /tmp/mistral-shaped.gguf

Matrices are Q8_0 or Q4_K: one random block run, repeated. The values have mean 0, so that activations stay finite.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType


@dataclass(frozen=True)
class Shape:
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    n_ctx_train: int
    rope_base: float
    quantized: GGMLQuantizationType


SHAPES = {
    "smollm2": Shape(30, 576, 1536, 9, 3, 49_152, 8192, 100_000.0, GGMLQuantizationType.Q8_0),
    "tinyllama": Shape(22, 2048, 5632, 32, 4, 32_000, 8192, 10_000.0, GGMLQuantizationType.Q4_K),
    "mistral-7b": Shape(32, 4096, 14_336, 32, 8, 32_000, 8192, 10_000.0, GGMLQuantizationType.Q4_K),
}

_RUN = 4096
"""Random blocks that are repeated."""


def _blocks(kind: GGMLQuantizationType, std: float) -> np.ndarray:
    """uint8 [_RUN, bytes of a block]: random weights of mean 0 and about this standard deviation."""
    rng = np.random.default_rng(1)
    if kind == GGMLQuantizationType.Q8_0:
        blocks = rng.integers(0, 256, (_RUN, 34), dtype=np.uint8)
        blocks[:, :2] = np.array([std / 74], np.float16).view(np.uint8)  # a random int8 has a standard deviation of 74
        return blocks
    assert kind == GGMLQuantizationType.Q4_K
    blocks = rng.integers(0, 256, (_RUN, 144), dtype=np.uint8)
    scale = std / 4.6  # so has a random 4-bit number
    blocks[:, :4] = np.array([scale, 7.5 * scale], np.float16).view(np.uint8)
    blocks[:, 4:12], blocks[:, 12:16] = 1, 0x11  # all sixteen 6-bit scales and minima are 1
    return blocks


def write(shape: Shape, name: str, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"{name} shape, random weights")
    writer.add_context_length(shape.n_ctx_train)
    writer.add_block_count(shape.n_layer)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.n_vocab)
    _add_tokenizer(writer, shape.n_vocab)

    n_kv = shape.n_embd // shape.n_head * shape.n_head_kv
    kind = shape.quantized
    run = _blocks(kind, std=shape.n_embd**-0.5)

    def matrix(tensor: str, n_out: int, n_in: int) -> None:
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        count = n_out * n_in // block_size
        data = np.resize(run, (count, block_bytes)).reshape(n_out, -1)
        writer.add_tensor(f"{tensor}.weight", data, raw_dtype=kind)

    def norm(tensor: str) -> None:
        writer.add_tensor(f"{tensor}.weight", np.ones(shape.n_embd, np.float32))

    # a row of n_embd that is no multiple of 256 (SmolLM2: 576) can't be Q4_K
    matrix("token_embd", shape.n_vocab, shape.n_embd)
    norm("output_norm")
    matrix("output", shape.n_vocab, shape.n_embd)
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        matrix(f"{block}.attn_q", shape.n_embd, shape.n_embd)
        matrix(f"{block}.attn_k", n_kv, shape.n_embd)
        matrix(f"{block}.attn_v", n_kv, shape.n_embd)
        matrix(f"{block}.attn_output", shape.n_embd, shape.n_embd)
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", shape.n_ff, shape.n_embd)
        matrix(f"{block}.ffn_up", shape.n_ff, shape.n_embd)
        matrix(f"{block}.ffn_down", shape.n_embd, shape.n_ff)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    rest = n_vocab - len(special)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*special, *(f"w{index}" for index in range(rest))])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([*kinds, *[gguf.TokenType.NORMAL] * rest])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


if __name__ == "__main__":
    write(SHAPES[sys.argv[1]], sys.argv[1], Path(sys.argv[2]))
