"""The fixture model in PyTorch: a Llama, with the rotary pairs interleaved as llama.cpp's architecture "llama" has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5


@dataclass(frozen=True)
class Shape:
    """`window` is the trained one, in tokens. Head size is 64: llama.cpp rotates a quantised K only in multiples of it."""

    n_vocab: int = 2048
    n_layer: int = 6
    n_embd: int = 256
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    n_ff: int = 640
    window: int = 512
    rope_base: float = 10_000.0
    dropout: float = 0.1


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        s = shape
        self.shape = s
        self.attn_norm = nn.Parameter(torch.ones(s.n_embd))
        self.attn_q = nn.Parameter(torch.randn(s.n_head * s.head_dim, s.n_embd) * s.n_embd**-0.5)
        self.attn_k = nn.Parameter(torch.randn(s.n_head_kv * s.head_dim, s.n_embd) * s.n_embd**-0.5)
        self.attn_v = nn.Parameter(torch.randn(s.n_head_kv * s.head_dim, s.n_embd) * s.n_embd**-0.5)
        self.attn_output = nn.Parameter(torch.zeros(s.n_embd, s.n_head * s.head_dim))
        self.ffn_norm = nn.Parameter(torch.ones(s.n_embd))
        self.ffn_gate = nn.Parameter(torch.randn(s.n_ff, s.n_embd) * s.n_embd**-0.5)
        self.ffn_up = nn.Parameter(torch.randn(s.n_ff, s.n_embd) * s.n_embd**-0.5)
        self.ffn_down = nn.Parameter(torch.zeros(s.n_embd, s.n_ff))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, sharpness: Tensor | None) -> Tensor:
        s = self.shape
        batch, length, _ = x.shape
        h = _norm(x, self.attn_norm)
        q = F.linear(h, self.attn_q).view(batch, length, s.n_head, s.head_dim).transpose(1, 2)
        k = F.linear(h, self.attn_k).view(batch, length, s.n_head_kv, s.head_dim).transpose(1, 2)
        v = F.linear(h, self.attn_v).view(batch, length, s.n_head_kv, s.head_dim).transpose(1, 2)
        q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        if sharpness is not None:
            q = q * sharpness.to(q.dtype)[:, None, None, None]
        groups = s.n_head // s.n_head_kv
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self._dropped(F.linear(attended.transpose(1, 2).reshape(batch, length, -1), self.attn_output))
        h = _norm(x, self.ffn_norm)
        return x + self._dropped(F.linear(F.silu(F.linear(h, self.ffn_gate)) * F.linear(h, self.ffn_up), self.ffn_down))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.shape.dropout, self.training)


class Network(nn.Module):
    """Token ids of shape (batch, length) in, logits of shape (batch, length, n_vocab) out. The embedding is tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Parameter(torch.randn(shape.n_vocab, shape.n_embd) * 0.02)
        self.output_norm = nn.Parameter(torch.ones(shape.n_embd))
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angles = torch.outer(torch.arange(8 * shape.window, dtype=torch.float64), shape.rope_base**-half)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, tokens: Tensor, sharpness: Tensor | None = None) -> Tensor:
        """`sharpness`, of shape (batch,), multiplies the attention scores of each row; None is 1."""
        length = tokens.shape[1]
        x = F.embedding(tokens, self.token_embd)
        for block in self.blk:
            x = block(x, self.cos[:length], self.sin[:length], sharpness)
        return F.linear(_norm(x, self.output_norm), self.token_embd)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), weight, NORM_EPS).to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
