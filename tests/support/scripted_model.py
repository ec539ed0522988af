"""A GGUF model that says what a test wrote down: the next token depends on the last one alone.

The last character of a question picks the script; every token of a script leads to the next one, and the last to the end
of the answer. Real file, real library, real prefill; no weights but zeros and ones. Knows GGUF keys. Loads no C library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType

import gguf
import numpy as np

N_EMBD = 1024  # one direction a token, so that no token disturbs another
N_HEAD = 16
N_FF = 64

CONTROL = ("<|user|>", "<|system|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.role == 'system' %}<|system|>{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
"""The question's last character stands right before the answer."""

THINKING_TEMPLATE = TEMPLATE + "<think>\n"
"""A template that opens the block of thought itself; every question then gets the default script."""

_BASE = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *CONTROL, "\u2581")
_END = 2


def _byte(value: int) -> int:
    return 3 + value


def make_scripted_model(
    path: Path,
    scripts: Mapping[str, Sequence[str | EllipsisType]],
    *,
    default: Sequence[str] = ("I ", "don't ", "know."),
    template: str = TEMPLATE,
    trained_window: int = 2048,
    name: str = "scripted",
) -> Path:
    """Write a model that answers a question ending in a key of `scripts` with the pieces there, others with `default`.
    A script that ends in `...` begins again and never ends."""
    tokens = list(_BASE)
    follows: dict[int, int] = {}
    starts = {}
    for key, pieces in {"": default, **scripts}.items():
        first = len(tokens)
        tokens += [piece.replace(" ", "\u2581") for piece in pieces if isinstance(piece, str)]
        starts[key] = first if pieces else _END
        follows |= {token: token + 1 for token in range(first, len(tokens) - 1)}
        follows[len(tokens) - 1] = first if ... in pieces else _END
    if twice := {t for t in tokens if tokens.count(t) > 1}:
        raise ValueError(f"a vocabulary has no two tokens of the same text; cut these otherwise: {sorted(twice)}")
    follows = {_byte(b): starts.get(chr(b), starts[""]) for b in range(256)} | follows
    if len(tokens) > N_EMBD:
        raise ValueError(f"{len(tokens)} tokens, at most {N_EMBD}: write shorter scripts")
    _write(path, tokens, follows, template, trained_window, name)
    return path


def _write(path: Path, tokens: list[str], follows: dict[int, int], template: str, trained_window: int, name: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(trained_window)
    writer.add_block_count(1)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_vocab_size(len(tokens))
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    kinds += [gguf.TokenType.CONTROL] * len(CONTROL)
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(_END)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)
    for tensor, values in _tensors(len(tokens), follows).items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(n_vocab: int, follows: Mapping[int, int]) -> dict[str, np.ndarray]:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.float32)

    output = zeros(n_vocab, N_EMBD)
    for token, then in follows.items():
        output[then, token] = 1.0
    ones = np.ones(N_EMBD, dtype=np.float32)
    head = N_EMBD // N_HEAD
    return {
        "token_embd.weight": np.eye(n_vocab, N_EMBD, dtype=np.float32),
        "output_norm.weight": ones,
        "output.weight": output,
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": zeros(N_EMBD, N_EMBD),
        "blk.0.attn_k.weight": zeros(head, N_EMBD),
        "blk.0.attn_v.weight": zeros(head, N_EMBD),
        "blk.0.attn_output.weight": zeros(N_EMBD, N_EMBD),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": zeros(N_FF, N_EMBD),
        "blk.0.ffn_up.weight": zeros(N_FF, N_EMBD),
        "blk.0.ffn_down.weight": zeros(N_EMBD, N_FF),
    }
