"""What a tiny model must compute, in float64 and in the plainest form: one text, all positions at once, no cache.

Knows the layers of the tiny models and how rotary embeddings depend on a distance. Shares no code with the package, with llama.cpp or
with the patches. Everything that group attention changes is in one matrix: distance[i, j] = (rotation of query i) - (rotation of
key j as query i sees it), shape [n_tokens, n_tokens], in positions. Masks (causal, sliding window) always use the text's positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.typing.NDArray[Any]
INTERLEAVED_PAIRS = {"llama", "smollm3"}  # the other architectures pair value c with value c + n_rot/2


def plain_distance(n_tokens: int) -> Array:
    return _each_pair(n_tokens, lambda i, j: i - j)


def paper_distance(n_tokens: int, n: int, w: int) -> Array:
    """SelfExtend, arXiv:2401.01325: exact below the neighbour window, floors of query and key beyond it."""
    return _each_pair(n_tokens, lambda i, j: np.where(i - j < w, i - j, i // n + w - w // n - j // n))


def stepped_distance(n_tokens: int, n: int, w: int, r: int) -> Array:
    """The form that is built: the boundary between grouped and exact keys moves in steps of r."""

    def distance(i: Array, j: Array) -> Array:
        boundary = np.maximum(0, (i - w) // r * r)
        exact_offset = boundary - boundary // n
        query_rotation = i - exact_offset
        key_rotation = np.where(j < boundary, j // n, j - exact_offset)
        return np.subtract(query_rotation, key_rotation)

    return _each_pair(n_tokens, distance)


def progressive_distance(n_tokens: int, levels: Sequence[tuple[int, int, int]]) -> Array:
    """Several levels (n, w, r), the nearest first: the distance is summed up over the stretches that lie between query and key."""
    bounds = [(lambda i, w=w, r=r: np.maximum(0, (i - w) // r * r)) for _, w, r in levels]

    def distance(i: Array, j: Array) -> Array:
        nearest = bounds[0](i)
        total = i - np.maximum(j, nearest)
        for k, (n, _, _) in enumerate(levels):
            upper, lower = bounds[k](i), bounds[k + 1](i) if k + 1 < len(levels) else np.zeros_like(i)
            # whole groups: from the key's group, or from the first one of this stretch, to the last
            reached = np.maximum(j, lower) // n
            total = total + np.where(j < upper, upper // n - reached, 0)
        return total

    return _each_pair(n_tokens, distance)


def custom_distance(n_tokens: int, query: Callable[[int], int], key: Callable[[int, int], int]) -> Array:
    """Any rotations: query(i), and key(i, j) = the rotation of key j as query i sees it."""
    return np.array([[query(i) - key(i, j) if j <= i else 0 for j in range(n_tokens)] for i in range(n_tokens)])


def _each_pair(n_tokens: int, distance: Callable[[Array, Array], Array]) -> Array:
    i, j = np.arange(n_tokens)[:, None], np.arange(n_tokens)[None, :]
    return np.broadcast_to(distance(i, j), (n_tokens, n_tokens))


@dataclass(frozen=True)
class Yarn:
    """YaRN, arXiv:2309.00071: pairs that turn often within the original window keep their frequency, slow ones are slowed by `factor`."""

    factor: float
    original_window: int
    often: float = 32.0  # turns within the original window
    seldom: float = 1.0

    def frequencies(self, thetas: Array, base: float) -> Array:
        """The frequency of each pair; the ramp runs over the pair's index between the pairs that turn often and seldom."""
        n_rot = 2 * len(thetas)

        def pair_with(turns: float) -> float:
            return n_rot * math.log(self.original_window / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(0, math.floor(pair_with(self.often)))
        high = min(n_rot - 1, math.ceil(pair_with(self.seldom)))
        kept = 1.0 - np.clip((np.arange(len(thetas)) - low) / max(0.001, high - low), 0.0, 1.0)
        return thetas * kept + thetas / self.factor * (1.0 - kept)

    @property
    def magnitude(self) -> float:
        """Rotated queries and keys are longer by this much."""
        return 1.0 + 0.1 * math.log(self.factor)


class Reference:
    """A tiny model read back from its GGUF file."""

    def __init__(self, path: Path, yarn: Yarn | None = None, temperature: float = 0.0) -> None:
        """temperature: c of the factor 1 + c ln((i + 1)/L) of the queries beyond the trained window L."""
        self._yarn, self._temperature = yarn, temperature
        reader = gguf.GGUFReader(path)
        self._fields = {name: field.contents() for name, field in reader.fields.items()}
        self._tensors = {t.name.removesuffix(".weight"): np.array(t.data, dtype=np.float64) for t in reader.tensors}
        self.arch: str = self._fields["general.architecture"]
        self._n_head: int = self._get("attention.head_count")
        self._head_dim: int = self._get("attention.key_length", self._get("embedding_length") // self._n_head)
        self._n_rot: int = self._get("rope.dimension_count", self._head_dim)

    def _get(self, key: str, default: Any = None) -> Any:
        return self._fields.get(f"{self.arch}.{key}", default)

    def logits(self, tokens: Sequence[int], distance: Array | None = None, removed: Array | None = None) -> Array:
        """Logits [n_tokens, n_vocab] of the text; `distance` is the plain one unless given. removed[i, j]: key j has left the cache
        when query i comes (full layers only)."""
        distance = plain_distance(len(tokens)) if distance is None else np.asarray(distance)
        assert distance.shape == (len(tokens), len(tokens))
        self._removed = np.zeros(distance.shape, dtype=bool) if removed is None else removed
        x = self._tensors["token_embd"][list(tokens)]
        layer = {
            "llama": self._llama,
            "smollm3": self._smollm3,
            "qwen2": self._llama,
            "qwen2vl": self._llama,
            "stablelm": self._stablelm,
            "plamo3": self._plamo3,
            "lfm2": self._lfm2,
        }
        for index in range(self._get("block_count")):
            x = layer[self.arch](x, distance, index)
        norm = "token_embd_norm" if self.arch == "lfm2" else "output_norm"
        x = self._layer_norm(x, norm) if self.arch == "stablelm" else self._rms_norm(x, norm)
        return x @ self._tensors["output"].T

    # One function per architecture: x [n_tokens, n_embd] through layer `index`.

    def _llama(self, x: Array, distance: Array, index: int) -> Array:
        block = f"blk.{index}"
        q, k, v = self._project(self._rms_norm(x, f"{block}.attn_norm"), block)
        x = x + self._attention(q, k, v, distance, block)
        return x + self._gated(self._rms_norm(x, f"{block}.ffn_norm"), block)

    def _smollm3(self, x: Array, distance: Array, index: int) -> Array:
        return self._llama(x, distance if (index + 1) % 4 else np.zeros_like(distance), index)

    def _stablelm(self, x: Array, distance: Array, index: int) -> Array:
        block = f"blk.{index}"
        q, k, v = self._project(self._layer_norm(x, f"{block}.attn_norm"), block)
        x = x + self._attention(q, k, v, distance, block)
        return x + self._gated(self._layer_norm(x, f"{block}.ffn_norm"), block)

    def _plamo3(self, x: Array, distance: Array, index: int) -> Array:
        block = f"blk.{index}"
        is_swa = index % self._get("attention.sliding_window_pattern") == 0
        q, k, v = self._project(self._rms_norm(x, f"{block}.attn_norm"), block)
        q, k = self._rms_norm(q, f"{block}.attn_q_norm"), self._rms_norm(k, f"{block}.attn_k_norm")
        attended = self._attention(q, k, v, distance, block, is_swa=is_swa)
        x = x + self._rms_norm(attended, f"{block}.post_attention_norm")
        up = self._rms_norm(x, f"{block}.ffn_norm") @ self._tensors[f"{block}.ffn_up"].T
        gate, value = np.split(up, 2, axis=-1)
        fed = (_silu(gate) * value) @ self._tensors[f"{block}.ffn_down"].T
        return x + self._rms_norm(fed, f"{block}.post_ffw_norm")

    def _lfm2(self, x: Array, distance: Array, index: int) -> Array:
        block = f"blk.{index}"
        h = self._rms_norm(x, f"{block}.attn_norm")
        if self._get("attention.head_count_kv")[index]:
            q, k, v = self._project(h, block)
            q, k = self._rms_norm(q, f"{block}.attn_q_norm"), self._rms_norm(k, f"{block}.attn_k_norm")
            x = x + self._attention(q, k, v, distance, block)
        else:
            x = x + self._short_convolution(h, f"{block}.shortconv")
        return x + self._gated(self._rms_norm(x, f"{block}.ffn_norm"), block)

    # The parts they share.

    def _rms_norm(self, x: Array, name: str) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self._get("attention.layer_norm_rms_epsilon")) * self._tensors[name]

    def _layer_norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + self._get("attention.layer_norm_epsilon"))
        return scaled * self._tensors[name] + self._tensors[f"{name}.bias"]

    def _gated(self, x: Array, block: str) -> Array:
        gate = _silu(x @ self._tensors[f"{block}.ffn_gate"].T)
        return (gate * (x @ self._tensors[f"{block}.ffn_up"].T)) @ self._tensors[f"{block}.ffn_down"].T

    def _short_convolution(self, x: Array, name: str) -> Array:
        b, c, value = np.split(x @ self._tensors[f"{name}.in_proj"].T, 3, axis=-1)
        kernel = self._tensors[f"{name}.conv"]  # [n_embd, length]; the last column meets the token itself
        length = kernel.shape[1]
        padded = np.concatenate([np.zeros((length - 1, x.shape[1])), b * value])
        convolved = sum(padded[tap : tap + len(x)] * kernel[:, tap] for tap in range(length))
        return (c * convolved) @ self._tensors[f"{name}.out_proj"].T

    def _project(self, x: Array, block: str) -> list[Array]:
        """Q [n_tokens, n_head, head_dim], K and V [n_tokens, n_head_kv, head_dim]."""
        if f"{block}.attn_qkv" in self._tensors:
            joint = (x @ self._tensors[f"{block}.attn_qkv"].T).reshape(len(x), -1, self._head_dim)
            n_head_kv = (joint.shape[1] - self._n_head) // 2
            return np.split(joint, [self._n_head, self._n_head + n_head_kv], axis=1)
        parts = []
        for name in ("attn_q", "attn_k", "attn_v"):
            part = x @ self._tensors[f"{block}.{name}"].T + self._tensors.get(f"{block}.{name}.bias", 0.0)
            parts.append(part.reshape(len(x), -1, self._head_dim))
        return parts

    def _attention(self, q: Array, k: Array, v: Array, distance: Array, block: str, *, is_swa: bool = False) -> Array:
        n_tokens, n_head = q.shape[:2]
        group = n_head // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        base = self._get("rope.freq_base_swa" if is_swa else "rope.freq_base", 10_000.0)
        scores = self._rotary_scores(q, k, distance, base) / np.sqrt(self._head_dim)

        if not is_swa:
            beyond = np.maximum(1.0, (np.arange(n_tokens) + 1.0) / self._get("context_length"))
            scores *= (1.0 + self._temperature * np.log(beyond))[:, None]

        age = plain_distance(n_tokens)
        visible = (age >= 0) & ~self._removed
        if is_swa:
            visible = visible & (age < self._get("attention.sliding_window"))
        scores = np.where(visible, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(n_tokens, -1)
        return mixed @ self._tensors[f"{block}.attn_output"].T

    def _rotary_scores(self, q: Array, k: Array, distance: Array, base: float) -> Array:
        """<rotate(q_i), rotate(k_j)> [n_head, n_tokens, n_tokens]: a rotated pair is a complex number times exp(i theta position), so
        the product depends on the distance only: Re(q conj(k) exp(i theta distance)). Values beyond n_rot are not rotated."""
        still = np.einsum("ihd,jhd->hij", q[..., self._n_rot :], k[..., self._n_rot :])
        q_pairs, k_pairs = self._pairs(q), self._pairs(k)
        possible, index = np.unique(distance, return_inverse=True)
        index = index.reshape(distance.shape)
        thetas = base ** (-2.0 * np.arange(self._n_rot // 2) / self._n_rot)
        scale = 1.0
        if self._yarn:
            thetas, scale = self._yarn.frequencies(thetas, base), self._yarn.magnitude**2
        for c, theta in enumerate(thetas):
            turn = scale * np.exp(1j * theta * possible)[index]
            for head in range(q.shape[1]):
                product = np.outer(q_pairs[:, head, c], k_pairs[:, head, c].conj())
                still[head] += (product * turn).real
        return still

    def _pairs(self, x: Array) -> Array:
        half = self._n_rot // 2
        if self.arch in INTERLEAVED_PAIRS:
            return x[..., 0 : self._n_rot : 2] + 1j * x[..., 1 : self._n_rot : 2]
        return x[..., :half] + 1j * x[..., half : self._n_rot]


def _silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))
