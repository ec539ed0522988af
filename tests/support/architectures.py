"""A tiny random model of any architecture that the library knows.

Knows the GGUF keys that describe a model, and which of them an architecture wants otherwise. Must not know tensors: the library is asked
which ones it would make for a model of those keys, so that each optional one is there too (biases, norms, RoPE factors). Loads the library.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from .driver import library
from .tiny_models import NORM_EPS, OUTPUT_GAIN, QK_GAIN

N_VOCAB = 128
N_LAYER = 4  # of four layers SmolLM3 and Llama 4 rotate three
N_HEAD = 2
HEAD_DIM = 64
N_EMBD = N_HEAD * HEAD_DIM
N_FF = 192
N_EXPERT = 2  # all of them are used: a router that has a choice makes a jump of a rounding error
TRAINED_WINDOW = 256
SLIDING_WINDOW = 32

Value = bool | int | float | str | list[int] | list[float] | np.ndarray | None  # None: no such key
Keys = Mapping[str, Value]

LOCAL_IN_TURN: Keys = {"attention.sliding_window_pattern": [il % 2 for il in range(N_LAYER)]}
RECURRENT_IN_TURN: Keys = {"attention.head_count_kv": [0 if il % 2 else N_HEAD for il in range(N_LAYER)]}
# One latent vector for all heads, 64 wide, and 32 rotated values beside it.
LATENT: Keys = {
    "attention.head_count_kv": 1,
    "attention.key_length": 96,
    "attention.value_length": 64,
    "attention.key_length_mla": 64,
    "attention.value_length_mla": 64,
    "rope.dimension_count": 32,
}
RECURRENT_OR_LATENT: Keys = {**LATENT, "attention.head_count_kv": [1 - il % 2 for il in range(N_LAYER)]}
HYPER_CONNECTIONS: Keys = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 1e-6,
    "hyper_connection.low_rank": 8,
    "hyper_connection.magnitude": 2.0,
}
TEXT_ONLY: Keys = {"rope.dimension_sections": None}
RWKV7: Keys = {
    "attention.decay_lora_rank": 8,
    "attention.iclr_lora_rank": 8,
    "attention.value_residual_mix_lora_rank": 8,
    "attention.gate_lora_rank": 8,
}

#: Keys that an architecture doesn't ask for are ignored by it.
COMMON: Keys = {
    "context_length": TRAINED_WINDOW,
    "vocab_size": N_VOCAB,
    "embedding_length": N_EMBD,
    "features_length": N_EMBD,
    "block_count": N_LAYER,
    "feed_forward_length": N_FF,
    "leading_dense_block_count": 1,
    "use_parallel_residual": False,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
    "full_attention_interval": 2,
    "attention.head_count": N_HEAD,
    "attention.head_count_kv": N_HEAD,
    "attention.layer_norm_epsilon": NORM_EPS,
    "attention.layer_norm_rms_epsilon": NORM_EPS,
    "attention.group_norm_epsilon": NORM_EPS,
    "attention.group_norm_groups": 8,
    "attention.max_alibi_bias": 8.0,
    "attention.clamp_kqv": 8.0,
    "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 64,
    "attention.relative_buckets_count": 8,
    "attention.sliding_window": SLIDING_WINDOW,
    "attention.sliding_window_pattern": 2,
    "attention.indexer.head_count": 2,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 1 << 17,
    "attention.indexer.block_size": 4,
    "attention.indexer.local_blocks": 1,
    "rope.dimension_sections": [8, 12, 12, 0],
    "ssm.inner_size": 2 * N_EMBD,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 64,
    "ssm.time_step_rank": N_HEAD,
    "ssm.group_count": 2,
    "kda.head_dim": 64,
    "kda.safe_gate": True,
    "kda.gate_lower_bound": -5.0,
    "wkv.head_size": HEAD_DIM,
    "time_mix_extra_dim": 64,
    "time_decay_extra_dim": 128,
    "shortconv.l_cache": 3,
    "attn_res.block_size": 12,
    "activation.situ_beta": 4.0,
    "activation.situ_linear_beta": 25.0,
}

EXPERTS: Keys = {
    "expert_feed_forward_length": N_FF,
    "expert_shared_feed_forward_length": N_FF // 2,
    "expert_count": N_EXPERT,
    "expert_used_count": N_EXPERT,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "expert_group_scale": 1.0,
    "experts_per_group": 1,
    "expert_latent_length": N_FF,
    "interleave_moe_layer_step": 2,
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: An optional tensor by which an architecture is told from another: its own models lack it.
ABSENT = {"rwkv6qwen2": ".time_mix_first."}

#: Architectures that have experts in each of their models.
OF_EXPERTS = _names(
    "afmoe arctic bailingmoe bailingmoe2 bailingmoe3 cohere2moe dbrx deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4 dots1 dots3note "
    "ernie4_5-moe exaone-moe glm-dsa glm4moe glm5-next gpt-oss granitemoe grok grovemoe hunyuan-moe hy_v3 hy_v4 kimi-k3 kimi-linear laguna "
    "lfm2moe llada-moe llama4 maple mellum mimo2 minimax-01 minimax-m2 minimax-m3 mistral4 nemotron_h_moe nomic-bert-moe olmoe paddleocr "
    "phimoe qwen2moe qwen35moe qwen3moe qwen3next qwen3vlmoe qwen4exp rnd1 smallthinker step35"
)

#: The model's scores aren't divided by the root of the head's size.
UNSCALED_SCORES = frozenset({"gemma3n", "gemma4"})
#: So many layers that each adds a little only: a rounding error would grow a hundred times else.
CALM = frozenset({"gemma3n"})
#: RoPE factors are an optional tensor of many architectures, and not of these.
ALWAYS_FACTORS = frozenset({"gemma4"})

#: Those of them that rotate with the factors; others load them and don't look.
WITH_FACTORS = _names(
    "apertus arcee deci exaone exaone-moe exaone4 granite granite_swa granitehybrid granitemoe llada llama llama4 minicpm minicpm3"
    " mistral3 nanbeige phi3 phimoe step35"
)

#: What an architecture wants beside or instead of COMMON. A key that starts with "." has no architecture before it.
OWN_KEYS: Mapping[str, Keys] = {
    "apertus": {".xielu.alpha_n": 1.0, ".xielu.alpha_p": 1.0, ".xielu.beta": 1.0, ".xielu.eps": 1e-7},
    "arwkv7": {**RWKV7, "token_shift_count": 1},
    "baichuan": {"block_count": 32},  # the 7B; the 13B has no RoPE
    "bailingmoe3": {**RECURRENT_OR_LATENT, **TEXT_ONLY},
    "chameleon": {"vocab_size": 9000},  # its image tokens lie beyond the 8,000th
    "cohere2moe": LOCAL_IN_TURN,
    "deepseek2": LATENT,
    "deepseek32": LATENT,
    "deepseek4": {
        **HYPER_CONNECTIONS,
        "attention.head_count_kv": 1,
        "attention.output_group_count": 2,
        "attention.output_lora_rank": 32,
        "attention.compress_ratios": [0, 0, 4, 128],
        "attention.compress_rope_freq_base": 160_000.0,
        "hash_layer_count": 0,
        "rope.dimension_count": 32,
        "swiglu_clamp_exp": 10.0,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 4,
    },
    "dots3note": {
        **LATENT,
        **LOCAL_IN_TURN,
        "attention.kv_lora_rank_swa": 64,
        "attention.key_length_swa": 96,
        "attention.value_length_swa": 64,
        "attention.key_length_mla_swa": 64,
        "attention.value_length_mla_swa": 64,
        "attention.indexer.types": [1 - il % 2 for il in range(N_LAYER)],
        "rope.freq_base_swa": 10_000.0,
    },
    "gemma3n": {"block_count": 22},  # layers from the 20th on use the keys of earlier ones
    "gemma4": {
        "attention.sliding_window_pattern": [1 - il % 2 for il in range(N_LAYER)],  # shared keys are those of a local and a full layer
        "embedding_length_per_layer_input": 64,
        "attention.shared_kv_layers": 0,
        "attention.key_length_swa": 32,
        "attention.value_length_swa": 32,
        "rope.dimension_count_swa": 32,
        "rope.freq_base_swa": 1_000.0,
    },
    "glm-dsa": LATENT,
    "glm4": TEXT_ONLY,
    "glm4moe": TEXT_ONLY,
    "glm5-next": {
        **RECURRENT_OR_LATENT,
        **HYPER_CONNECTIONS,
        "attention.key_length": 64,
        "attention.compress_ratios": [4] * N_LAYER,
        "attention.indexer.kpool": 4,
        "attention.indexer.kpool_select_tail": True,
        "rope.dimension_count": 0,
    },
    "granite_swa": LOCAL_IN_TURN,
    "graniteswitch": {
        "adapters.count": 1,
        "adapters.token_ids_activate": [N_VOCAB - 1],
        "adapters.token_ids_substitute": [1],
        "adapters.lora_rank": 4,
    },
    "granitehybrid": RECURRENT_IN_TURN,
    "hrm_text": {"block_count": 6, "hrm.layers_per_stack": 1, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
    "hy_v4": {**LATENT, **HYPER_CONNECTIONS, "attention.indexer.types": [1 - il % 2 for il in range(N_LAYER)], "swiglu_clamp_exp": 10.0},
    "jamba": RECURRENT_IN_TURN,
    "kimi-k3": RECURRENT_OR_LATENT,
    "kimi-linear": RECURRENT_OR_LATENT,
    "lfm2": {**RECURRENT_IN_TURN, "attention.sliding_window": None},
    "lfm2moe": {**RECURRENT_IN_TURN, "attention.sliding_window": None},
    "maple": {**LOCAL_IN_TURN, "swiglu_clamp_exp": 7.0},
    "mimo2": LOCAL_IN_TURN,
    "minicpm3": {"attention.key_length": 64, "attention.value_length": 64, "rope.dimension_count": 32},
    "minimax-m3": {"rope.dimension_count": 32},
    "mistral4": LATENT,
    "muse-glimmer": LOCAL_IN_TURN,
    "nemotron_h": {**RECURRENT_IN_TURN, "feed_forward_length": [0, 0, 0, N_FF]},
    "nemotron_h_moe": {**RECURRENT_IN_TURN, "feed_forward_length": [0, 0, 0, N_FF]},
    "plamo2": {**RECURRENT_IN_TURN, "ssm.group_count": 0},
    "plm": {"attention.key_length": 64, "attention.value_length": 64, "rope.dimension_count": 32},
    "qwen35": {"ssm.time_step_rank": 4},
    "qwen35moe": {"ssm.time_step_rank": 4},
    "qwen3next": {"ssm.time_step_rank": 4},
    "qwen3tts": {"vocab_size": 3072},
    "qwen4exp": {
        **HYPER_CONNECTIONS,
        "ssm.time_step_rank": 4,
        "attention.compress_ratios": [4] * N_LAYER,
        "embedding_length_per_layer_input": N_EMBD // 4,
        "ple.layers": [0],
        "ple.ngram_size": 3,
        "ple.heads_per_ngram": 2,
        "ple.conv_kernel": 4,
        "ple.eos_token_id": 0,
        "ple.layer_multipliers": np.array([1, 3, 5], np.uint64),
        "ple.head_offsets": np.arange(4, dtype=np.uint64) * N_VOCAB,
        "ple.head_vocab_sizes": np.full(4, N_VOCAB, np.uint64),
    },
    "rwkv6qwen2": {"token_shift_count": 1},
    "rwkv7": RWKV7,
    "smallthinker": {"block_count": 8},  # of each four layers the first isn't rotated, unless there are four
    "spark2_5": LOCAL_IN_TURN,
    "step35": LOCAL_IN_TURN,
}


@dataclass(frozen=True)
class Variant:
    """A form of an architecture that computes its keys otherwise than the usual one."""

    arch: str
    keys: Keys = field(default_factory=dict)
    factors: bool = False  # with RoPE factors


#: Forms beside the usual one of each architecture, by the name that the tables use.
VARIANTS: Mapping[str, Variant] = {
    "baichuan with ALiBi": Variant("baichuan", {"block_count": 40}),
    "exaone4 with a sliding window": Variant("exaone4", {"block_count": 64}),
    "cogvlm with RoPE factors": Variant("cogvlm", factors=True),
    "falcon-h1 with RoPE factors": Variant("falcon-h1", factors=True),
    "llama4 without chunks": Variant("llama4", {"attention.sliding_window": 0}),
    "smallthinker without a sliding window": Variant("smallthinker", {"attention.sliding_window": None}),
    "pangu-embedded with RoPE factors": Variant("pangu-embedded", factors=True),
    "lfm2 with a sliding window": Variant("lfm2", {"attention.sliding_window": SLIDING_WINDOW}),
    "bailingmoe3 with M-RoPE": Variant("bailingmoe3", {"rope.dimension_sections": [4, 6, 6, 0]}),
    "gemma4 with shared keys": Variant("gemma4", {"attention.shared_kv_layers": 2}),
    "glm4 with M-RoPE": Variant("glm4", {"rope.dimension_sections": COMMON["rope.dimension_sections"]}),
    "glm4moe with M-RoPE": Variant("glm4moe", {"rope.dimension_sections": COMMON["rope.dimension_sections"]}),
    "granite without RoPE": Variant("granite", {"rope.scaling.finetuned": False}),
    "granitehybrid without RoPE": Variant("granitehybrid", {**RECURRENT_IN_TURN, "rope.scaling.finetuned": False}),
}


class NotMade(RuntimeError):
    """The library refuses a model of these keys; the text is its log."""


def keys_of(arch: str) -> Keys:
    """The metadata of the usual form of `arch`."""
    return {**COMMON, **(EXPERTS if arch in OF_EXPERTS else {}), **OWN_KEYS.get(arch, {})}


def variant_of(name: str) -> Variant:
    """What is called `name` in the tables: a variant, or the usual form of an architecture."""
    return VARIANTS.get(name, Variant(name))


def make_model(name: str, path: Path, extra: Keys | None = None, *, factors: bool = False) -> None:
    """Write a model of what is called `name`, with `extra` keys, and RoPE factors or not."""
    variant = variant_of(name)
    arch, keys = variant.arch, {**keys_of(variant.arch), **variant.keys, **(extra or {})}
    factors = (factors and arch in WITH_FACTORS) or variant.factors or arch in ALWAYS_FACTORS
    absent = ABSENT.get(arch, "\0")
    shapes = {
        tensor: shape
        for tensor, shape in _shapes(arch, keys).items()
        if (factors or not tensor.startswith("rope_f")) and absent not in tensor
    }
    _write(path, arch, keys, _tensors(arch, shapes))


def make_draft(path: Path) -> None:
    """Write a draft for "gemma4": it has no keys of its own and reads those of the last two layers of that."""
    n_embd, own = N_EMBD // 2, {"block_count": 2, "nextn_predict_layers": 2, "attention.sliding_window_pattern": [1, 0]}
    keys = {**keys_of("gemma4"), **own, "embedding_length": n_embd, "embedding_length_out": N_EMBD}
    keys |= {"attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (N_VOCAB, n_embd),
        "output_norm.weight": (n_embd,),
        "rope_freqs.weight": (HEAD_DIM // 2,),
        "nextn.post_projection.weight": (N_EMBD, n_embd),
        "nextn.pre_projection.weight": (n_embd, 2 * N_EMBD),
    }
    for layer, head in enumerate((keys["attention.key_length_swa"], HEAD_DIM)):
        block = {
            "attn_q": (N_HEAD * head, n_embd),
            "attn_output": (n_embd, N_HEAD * head),
            "attn_q_norm": (head,),
            "layer_output_scale": (1,),
            "ffn_gate": (N_FF, n_embd),
            "ffn_up": (N_FF, n_embd),
            "ffn_down": (n_embd, N_FF),
            **dict.fromkeys(("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), (n_embd,)),
        }
        shapes |= {f"blk.{layer}.{tensor}.weight": shape for tensor, shape in block.items()}
    _write(path, "gemma4-assistant", keys, _tensors("gemma4", shapes))


def _tensors(arch: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    qk_gain = QK_GAIN / HEAD_DIM**0.25 if arch in UNSCALED_SCORES else QK_GAIN
    return {
        tensor: _values(tensor, shape, rng, qk_gain) * (0.2 if arch in CALM and "post" in tensor else 1.0)
        for tensor, shape in shapes.items()
    }


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator, qk_gain: float) -> np.ndarray:
    """Values that keep activations near one, and scores with a standard deviation of a few."""
    plain = rng.normal(size=shape)
    short = name.removesuffix(".weight").removesuffix(".bias").rsplit(".", 1)[-1]
    if name.endswith(".bias"):
        return 0.1 * plain
    if short.startswith("rope_f"):
        return np.exp(np.abs(plain))  # each pair turns slower, none the other way
    if short == "ssm_a":
        return -np.exp(0.3 * plain)
    if short in ("attn_q_norm", "attn_k_norm"):
        return qk_gain * np.exp(0.5 * plain)
    if "norm" in short or len(shape) == 1:
        return 1.0 + 0.1 * plain
    if short == "token_embd":
        return plain
    gain = {"output": OUTPUT_GAIN, **dict.fromkeys(("attn_q", "attn_k", "attn_qkv", "attn_q_b", "attn_kv_a_mqa"), qk_gain)}.get(short, 1.0)
    return gain * plain / np.sqrt(shape[-1])


def _write(path: Path, arch: str, keys: Keys, tensors: Mapping[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, arch)
    add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in keys.items():
        if value is None:
            continue
        name = key[1:] if key.startswith(".") else f"{arch}.{key}"
        if isinstance(value, np.ndarray):
            writer.add_key_value(name, value.tolist(), gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT64)
        else:
            add.get(type(value), writer.add_array)(name, value)
    writer.add_tokenizer_model("none")
    writer.add_uint32("tokenizer.ggml.token_type_count", 1)
    for name, values in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _ReadParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def _shapes(arch: str, keys: Keys) -> dict[str, tuple[int, ...]]:
    """The tensors that the library makes for a model of these keys, with their shapes as numpy has them."""
    lib = library()
    found: dict[str, tuple[int, ...]] = {}
    tensor_name = lib.function("ggml_get_name", ctypes.c_char_p, ctypes.c_void_p)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    def fill(tensor: int, _: object) -> None:
        extents = list(lib.tensor_head(tensor).ne)
        while len(extents) > 1 and extents[-1] == 1:
            extents.pop()
        found[tensor_name(tensor).decode()] = tuple(reversed(extents))

    read = lib.function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _ReadParams)
    free = lib.function("gguf_free", None, ctypes.c_void_p)
    make = lib.function(
        "llama_model_init_from_user", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, lib.api.llama_model_params
    )
    params = lib.api.llama_model_default_params()
    params.n_gpu_layers = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.gguf"
        _write(path, arch, keys, {})
        metadata = read(str(path).encode(), _ReadParams(True, None))
    with lib.errors() as messages:
        model = make(metadata, ctypes.cast(fill, ctypes.c_void_p), None, params)
    free(metadata)
    if not model:
        raise NotMade(" ".join(messages))
    lib.api.llama_model_free(model)
    return found
