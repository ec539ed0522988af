"""Tiny random-weight GGUF models, one for each kind of memory and rotary embedding that matters.

Knows the GGUF keys and tensor names that llama.cpp asks for. Knows nothing of attention positions and loads no C library.
The weights are float32 and large enough in Q and K that a key turned a few steps too far shows in the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

HEAD_DIM = 64  # a multiple of 64: llama.cpp applies its Hadamard rotation to a quantised K only then
N_HEAD = 4
N_HEAD_KV = 2
N_EMBD = N_HEAD * HEAD_DIM
N_FF = 128
PARTIAL_ROT = 32
SLIDING_WINDOW = 32
CONV_LENGTH = 3
TRAINED_WINDOW = 128
NORM_EPS = 1e-5

# Attention scores have a standard deviation of about QK_GAIN squared: neither uniform nor one-hot.
QK_GAIN = 1.6
OUTPUT_GAIN = 2.0

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
WORD_PIECES = ("\u2581",)
TOKENS = (*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *WORD_PIECES)
N_VOCAB = len(TOKENS)

#: The type of the fixture `tiny_model`.
TinyModel = Callable[[str], Path]


class _Model:
    """A GGUF file in the making: metadata keys relative to the architecture, and random tensors."""

    def __init__(self, path: Path, arch: str, seed: int, n_layer: int) -> None:
        self._arch = arch
        self._rng = np.random.default_rng(seed)
        self.n_layer = n_layer
        self._writer = gguf.GGUFWriter(path, arch)
        self._writer.add_context_length(TRAINED_WINDOW)
        self._writer.add_block_count(n_layer)
        self._writer.add_embedding_length(N_EMBD)
        self._writer.add_feed_forward_length(N_FF)
        self._writer.add_vocab_size(N_VOCAB)
        self._add_tokenizer()

    def _add_tokenizer(self) -> None:
        """A SentencePiece vocabulary of bytes: every text can be tokenised, no merge list is needed."""
        kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
        kinds += [gguf.TokenType.BYTE] * 256
        kinds += [gguf.TokenType.NORMAL] * len(WORD_PIECES)
        self._writer.add_tokenizer_model("llama")
        self._writer.add_token_list(list(TOKENS))
        self._writer.add_token_scores([0.0] * N_VOCAB)
        self._writer.add_token_types(kinds)
        self._writer.add_bos_token_id(1)
        self._writer.add_eos_token_id(2)
        self._writer.add_unk_token_id(0)

    def set(self, key: str, value: int | float | bool | list[int]) -> None:
        name = f"{self._arch}.{key}"
        if isinstance(value, bool):
            self._writer.add_bool(name, value)
        elif isinstance(value, int):
            self._writer.add_uint32(name, value)
        elif isinstance(value, float):
            self._writer.add_float32(name, value)
        else:
            self._writer.add_array(name, value)

    def set_heads(self, n_head_kv: int | list[int] = N_HEAD_KV) -> None:
        self.set("attention.head_count", N_HEAD)
        self.set("attention.head_count_kv", n_head_kv)

    def tensor(self, name: str, values: np.ndarray) -> None:
        self._writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))

    def matrix(self, name: str, n_out: int, n_in: int, gain: float = 1.0) -> None:
        """Weights that carry unit-variance inputs to outputs of standard deviation `gain`."""
        self.tensor(name, self._rng.normal(0.0, gain / np.sqrt(n_in), (n_out, n_in)))

    def scale(self, name: str, size: int, around: float = 1.0) -> None:
        self.tensor(name, around * (1.0 + 0.1 * self._rng.normal(size=size)))

    def bias(self, name: str, size: int, spread: float = 0.1) -> None:
        self.tensor(name, spread * self._rng.normal(size=size))

    def embeddings(self, *, output: bool = True, output_norm: str = "output_norm") -> None:
        self.tensor("token_embd.weight", self._rng.normal(size=(N_VOCAB, N_EMBD)))
        self.scale(f"{output_norm}.weight", N_EMBD)
        if output:
            self.matrix("output.weight", N_VOCAB, N_EMBD, OUTPUT_GAIN)

    def attention(self, block: str, *, qk_gain: float = QK_GAIN) -> None:
        self.matrix(f"{block}.attn_q.weight", N_HEAD * HEAD_DIM, N_EMBD, qk_gain)
        self.matrix(f"{block}.attn_k.weight", N_HEAD_KV * HEAD_DIM, N_EMBD, qk_gain)
        self.matrix(f"{block}.attn_v.weight", N_HEAD_KV * HEAD_DIM, N_EMBD)
        self.matrix(f"{block}.attn_output.weight", N_EMBD, N_HEAD * HEAD_DIM)

    def gated_feed_forward(self, block: str) -> None:
        self.matrix(f"{block}.ffn_gate.weight", N_FF, N_EMBD)
        self.matrix(f"{block}.ffn_up.weight", N_FF, N_EMBD)
        self.matrix(f"{block}.ffn_down.weight", N_EMBD, N_FF)

    def blocks(self) -> list[str]:
        return [f"blk.{layer}" for layer in range(self.n_layer)]

    def write(self) -> None:
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()


def _gqa(path: Path, seed: int, arch: str = "llama", n_layer: int = 2) -> None:
    """Llama: grouped-query attention, interleaved rotary pairs over the whole head."""
    model = _Model(path, arch, seed, n_layer)
    model.set_heads()
    model.set("attention.layer_norm_rms_epsilon", NORM_EPS)
    model.set("rope.dimension_count", HEAD_DIM)
    model.embeddings()
    for block in model.blocks():
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        model.attention(block)
        model.scale(f"{block}.ffn_norm.weight", N_EMBD)
        model.gated_feed_forward(block)
    model.write()


def _some_without_rope(path: Path, seed: int) -> None:
    """SmolLM3: as Llama, but each fourth layer has no positions."""
    _gqa(path, seed, arch="smollm3", n_layer=4)


def _biased_qkv(path: Path, seed: int, arch: str = "qwen2") -> None:
    """Qwen2: biases on Q, K and V, rotary pairs half a head apart."""
    model = _Model(path, arch, seed, n_layer=2)
    model.set_heads()
    model.set("attention.layer_norm_rms_epsilon", NORM_EPS)
    if arch == "qwen2vl":
        model.set("rope.dimension_sections", [8, 12, 12, 0])
    model.embeddings()
    for block in model.blocks():
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        model.attention(block)
        model.bias(f"{block}.attn_q.bias", N_HEAD * HEAD_DIM)
        model.bias(f"{block}.attn_k.bias", N_HEAD_KV * HEAD_DIM, spread=1.0)
        model.bias(f"{block}.attn_v.bias", N_HEAD_KV * HEAD_DIM)
        model.scale(f"{block}.ffn_norm.weight", N_EMBD)
        model.gated_feed_forward(block)
    model.write()


def _mrope(path: Path, seed: int) -> None:
    """Qwen2-VL: a position of several dimensions for each token."""
    _biased_qkv(path, seed, arch="qwen2vl")


def _partial_rotary(path: Path, seed: int) -> None:
    """StableLM: only the first half of each head is rotated."""
    model = _Model(path, "stablelm", seed, n_layer=2)
    model.set_heads()
    model.set("attention.layer_norm_epsilon", NORM_EPS)
    model.set("rope.dimension_count", PARTIAL_ROT)
    model.set("use_parallel_residual", False)
    model.embeddings()
    model.bias("output_norm.bias", N_EMBD)
    for block in model.blocks():
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        model.bias(f"{block}.attn_norm.bias", N_EMBD)
        model.attention(block)
        model.scale(f"{block}.ffn_norm.weight", N_EMBD)
        model.bias(f"{block}.ffn_norm.bias", N_EMBD)
        model.gated_feed_forward(block)
    model.write()


def _swa(path: Path, seed: int) -> None:
    """PLaMo 3: sliding-window layers with a rotary base of their own, between full ones."""
    model = _Model(path, "plamo3", seed, n_layer=4)
    model.set_heads()
    model.set("attention.key_length", HEAD_DIM)
    model.set("attention.value_length", HEAD_DIM)
    model.set("attention.layer_norm_rms_epsilon", NORM_EPS)
    model.set("attention.sliding_window", SLIDING_WINDOW)
    model.set("attention.sliding_window_pattern", 2)
    model.set("rope.freq_base", 10_000.0)
    model.set("rope.freq_base_swa", 1_000.0)
    model.embeddings()
    for block in model.blocks():
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        model.matrix(f"{block}.attn_qkv.weight", (N_HEAD + 2 * N_HEAD_KV) * HEAD_DIM, N_EMBD)
        model.scale(f"{block}.attn_q_norm.weight", HEAD_DIM, around=QK_GAIN)
        model.scale(f"{block}.attn_k_norm.weight", HEAD_DIM, around=QK_GAIN)
        model.matrix(f"{block}.attn_output.weight", N_EMBD, N_HEAD * HEAD_DIM)
        model.scale(f"{block}.post_attention_norm", N_EMBD)
        model.scale(f"{block}.ffn_norm.weight", N_EMBD)
        model.matrix(f"{block}.ffn_up.weight", 2 * N_FF, N_EMBD)
        model.matrix(f"{block}.ffn_down.weight", N_EMBD, N_FF)
        model.scale(f"{block}.post_ffw_norm", N_EMBD)
    model.write()


def _hybrid(path: Path, seed: int) -> None:
    """LFM2: short convolutions (a recurrent state) and attention layers in turn."""
    model = _Model(path, "lfm2", seed, n_layer=4)
    n_head_kv = [0, N_HEAD_KV, 0, N_HEAD_KV]
    model.set_heads(n_head_kv)
    model.set("attention.layer_norm_rms_epsilon", NORM_EPS)
    model.set("shortconv.l_cache", CONV_LENGTH)
    model.embeddings(output_norm="token_embd_norm")
    for block, heads in zip(model.blocks(), n_head_kv, strict=True):
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        if heads:
            model.attention(block, qk_gain=1.0)
            model.scale(f"{block}.attn_q_norm.weight", HEAD_DIM, around=QK_GAIN)
            model.scale(f"{block}.attn_k_norm.weight", HEAD_DIM, around=QK_GAIN)
        else:
            model.matrix(f"{block}.shortconv.conv.weight", N_EMBD, CONV_LENGTH)
            model.matrix(f"{block}.shortconv.in_proj.weight", 3 * N_EMBD, N_EMBD)
            model.matrix(f"{block}.shortconv.out_proj.weight", N_EMBD, N_EMBD)
        model.scale(f"{block}.ffn_norm.weight", N_EMBD)
        model.gated_feed_forward(block)
    model.write()


def _without_rope(model: _Model) -> None:
    """The layers that GPT-2 and MPT share: one QKV matrix, layer norms with biases, a plain feed-forward."""
    model.set("attention.head_count", N_HEAD)
    model.set("attention.layer_norm_epsilon", NORM_EPS)
    model.embeddings()
    model.bias("output_norm.bias", N_EMBD)
    for block in model.blocks():
        for norm in ("attn_norm", "ffn_norm"):
            model.scale(f"{block}.{norm}.weight", N_EMBD)
            model.bias(f"{block}.{norm}.bias", N_EMBD)
        model.matrix(f"{block}.attn_qkv.weight", 3 * N_EMBD, N_EMBD)
        model.bias(f"{block}.attn_qkv.bias", 3 * N_EMBD)
        model.matrix(f"{block}.attn_output.weight", N_EMBD, N_EMBD)
        model.bias(f"{block}.attn_output.bias", N_EMBD)
        model.matrix(f"{block}.ffn_up.weight", N_FF, N_EMBD)
        model.bias(f"{block}.ffn_up.bias", N_FF)
        model.matrix(f"{block}.ffn_down.weight", N_EMBD, N_FF)
        model.bias(f"{block}.ffn_down.bias", N_EMBD)


def _alibi(path: Path, seed: int) -> None:
    """MPT: a bias that grows with the distance, and no rotation."""
    model = _Model(path, "mpt", seed, n_layer=2)
    model.set("attention.max_alibi_bias", 8.0)
    _without_rope(model)
    model.write()


def _no_rope(path: Path, seed: int) -> None:
    """GPT-2: learned positions."""
    model = _Model(path, "gpt2", seed, n_layer=2)
    _without_rope(model)
    model.matrix("position_embd.weight", TRAINED_WINDOW, N_EMBD)
    model.write()


def _recurrent(path: Path, seed: int) -> None:
    """Mamba: no attention at all."""
    model = _Model(path, "mamba", seed, n_layer=2)
    n_inner, n_state, dt_rank, n_conv = 2 * N_EMBD, 8, 8, 4
    model.set("attention.layer_norm_rms_epsilon", NORM_EPS)
    model.set("ssm.conv_kernel", n_conv)
    model.set("ssm.inner_size", n_inner)
    model.set("ssm.state_size", n_state)
    model.set("ssm.time_step_rank", dt_rank)
    model.embeddings()
    for block in model.blocks():
        model.scale(f"{block}.attn_norm.weight", N_EMBD)
        model.matrix(f"{block}.ssm_in.weight", 2 * n_inner, N_EMBD)
        model.matrix(f"{block}.ssm_conv1d.weight", n_inner, n_conv)
        model.bias(f"{block}.ssm_conv1d.bias", n_inner)
        model.matrix(f"{block}.ssm_x.weight", dt_rank + 2 * n_state, n_inner)
        model.matrix(f"{block}.ssm_dt.weight", n_inner, dt_rank)
        model.bias(f"{block}.ssm_dt.bias", n_inner)
        model.tensor(f"{block}.ssm_a", -np.tile(np.arange(1.0, n_state + 1), (n_inner, 1)))
        model.scale(f"{block}.ssm_d", n_inner)
        model.matrix(f"{block}.ssm_out.weight", N_EMBD, n_inner)
    model.write()


_BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "gqa": _gqa,
    "some-without-rope": _some_without_rope,
    "qkv-bias": _biased_qkv,
    "partial-rotary": _partial_rotary,
    "swa": _swa,
    "hybrid": _hybrid,
    "mrope": _mrope,
    "alibi": _alibi,
    "no-rope": _no_rope,
    "recurrent": _recurrent,
}

#: Kinds that `support.reference` can compute.
REFERENCE_KINDS = ("gqa", "qkv-bias", "partial-rotary", "swa", "hybrid", "mrope")
#: Kinds on which group attention must be refused.
REFUSED_KINDS = ("alibi", "no-rope", "recurrent")


def make_tiny_model(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the model of that kind into `folder` and return its path (about 3 MB)."""
    path = folder / f"tiny-{kind}-{seed}.gguf"
    _BUILDERS[kind](path, seed)
    return path
