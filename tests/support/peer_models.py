"""Tiny models for llama-cpp-python's own tests, with what those have written into them: which words follow each other, and token ids.

Their vocabularies are those of the source distribution. Knows GGUF. Loads no C library.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .gguf_edit import Gguf, parse

N_EMBD = 64
N_FF = 32
F32, F16 = 0, 1
U32, ARRAY = 4, 9

# Token -> id, as the tests have it.
PLACES = {"Hello": 9419, "\u0120world": 1814}
# Token -> those that follow it, each as likely as the others.
FOLLOWS = {
    "\u0120fox": ["\u0120jumps"],
    "\u0120jumps": ["\u0120over"],
    "\u0120over": ["\u0120the"],
    "\u0120the": ["\u0120lazy"],
    "\u0120lazy": ["\u0120dog"],
    "\u0120dog": ["."],
    "\u0120par": ["rot"],
    "\u010a": ["true", *"12345"],
}


def completing(vocabulary: bytes, path: Path) -> Path:
    """A model that goes on by its last token alone, with a vocabulary of Qwen."""
    gguf = parse(vocabulary)
    kind, tokens = gguf.get("tokenizer.ggml.tokens")[2]
    for token, place in PLACES.items():
        now = tokens.index(token.encode())
        tokens[now], tokens[place] = tokens[place], tokens[now]
    gguf.set("tokenizer.ggml.tokens", ARRAY, (kind, tokens))
    ids = {token.decode("utf-8", "replace"): i for i, token in enumerate(tokens)}
    embeddings = np.sign(np.random.default_rng(0).standard_normal((len(tokens), N_EMBD))).astype(np.float16)
    output = np.zeros_like(embeddings)
    for token, after in FOLLOWS.items():
        for follower in after:
            output[ids[follower]] += embeddings[ids[token]]
    tensors = {"token_embd.weight": embeddings, "output.weight": output, "output_norm.weight": np.ones(N_EMBD, np.float32)}
    square = np.zeros((N_EMBD, N_EMBD), np.float32)
    tensors |= {f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")}
    tensors |= {f"blk.0.attn_{name}.bias": square[0] for name in ("q", "k", "v")}
    tensors |= {f"blk.0.{name}_norm.weight": np.ones(N_EMBD, np.float32) for name in ("attn", "ffn")}
    tensors |= {f"blk.0.ffn_{name}.weight": np.zeros((N_FF, N_EMBD), np.float32) for name in ("gate", "up")}
    tensors["blk.0.ffn_down.weight"] = np.zeros((N_EMBD, N_FF), np.float32)
    return _written(gguf, "qwen2", tensors, path)


def embedding(vocabulary: bytes, path: Path) -> Path:
    """A BERT whose text has the embedding of its first token, as bge's have."""
    gguf = parse(vocabulary)
    gguf.set("bert.pooling_type", U32, 2)
    draw = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)

    n_vocab, n_positions = len(gguf.get("tokenizer.ggml.tokens")[2][1]), gguf.get("bert.context_length")[2]
    tensors = {"token_embd.weight": drawn(n_vocab, N_EMBD), "position_embd.weight": drawn(n_positions, N_EMBD)}
    tensors["token_types.weight"] = drawn(2, N_EMBD)
    tensors |= {f"blk.0.attn_{name}.weight": drawn(N_EMBD, N_EMBD) for name in ("q", "k", "v", "output")}
    tensors |= {f"blk.0.attn_{name}.bias": drawn(N_EMBD) for name in ("q", "k", "v", "output")}
    tensors |= {"blk.0.ffn_up.weight": drawn(N_FF, N_EMBD), "blk.0.ffn_down.weight": drawn(N_EMBD, N_FF)}
    tensors |= {"blk.0.ffn_up.bias": drawn(N_FF), "blk.0.ffn_down.bias": drawn(N_EMBD)}
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensors |= {f"{norm}.weight": np.ones(N_EMBD, np.float32), f"{norm}.bias": np.zeros(N_EMBD, np.float32)}
    return _written(gguf, "bert", tensors, path)


def _written(gguf: Gguf, arch: str, tensors: dict[str, np.ndarray], path: Path) -> Path:
    sizes = {"block_count": 1, "embedding_length": N_EMBD, "feed_forward_length": N_FF, "attention.head_count": 1}
    for name, size in sizes.items():
        gguf.set(f"{arch}.{name}", U32, size)
    if gguf.get(f"{arch}.attention.head_count_kv"):
        gguf.set(f"{arch}.attention.head_count_kv", U32, 1)
    data = bytearray()
    for name, tensor in tensors.items():
        gguf.tensors.append([name.encode(), list(tensor.shape[::-1]), F16 if tensor.dtype == np.float16 else F32, len(data)])
        data += tensor.tobytes()
        data += b"\0" * (-len(data) % gguf.align)
    gguf.data = bytes(data)
    path.write_bytes(gguf.dump())
    return path
