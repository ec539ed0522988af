"""Recall in float64, in its plainest form: for each layer and micro-batch, which far tokens are fetched, and where they stand.

Builds on `support.reference` alone. Positions within a micro-batch that leaves something out, relative to the border: near keys and
queries where they are in the text, sinks and fetched keys in text order at consecutive places before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .reference import Array, Reference, plain_distance


@dataclass(frozen=True)
class Recall:
    """`w` keys or more are near, the border moves in steps of `r`; `sinks`, `fetched`, `span` and `first` in tokens; `looks`: queries
    of a micro-batch that look, at most, if it has more than twice as many; `keep`: tokens decoded one by one that share a choice."""

    w: int
    r: int
    sinks: int
    fetched: int
    span: int
    looks: int
    first: int = 0
    keep: int = 1

    def stretch(self, n_tokens: int) -> int:
        """Of so many neighbouring queries one looks: a power of two."""
        if n_tokens <= 2 * self.looks:
            return 1
        return 1 << max(0, -(-n_tokens // self.looks) - 1).bit_length()

    def border(self, i: int) -> int:
        """The first key that the query at position i sees as near; 0 while nothing has to be left out."""
        border = max(0, (i - self.w) // self.r * self.r)
        return border if border > self.sinks + self.fetched else 0


class RecallReference(Reference):
    """A tiny model that reads by recall. `fetched`: the tokens that each layer fetched for the micro-batch that begins there. `margins`:
    for the first position of each micro-batch that leaves something out, by how much
    the worst span chosen beats the best one left out, in shares of attention, in the layer where that is least."""

    def __init__(self, path: Path, recall: Recall, cuts: Sequence[int]) -> None:
        """`cuts`: positions at which a call of the library ends; micro-batches end there and at the border's steps."""
        super().__init__(path)
        self._recall, self._cuts = recall, sorted(cuts)
        self.margins: dict[int, float] = {}
        self.fetched: dict[int, list[Array]] = {}

    def micro_batches(self, n_tokens: int) -> list[tuple[int, int]]:
        stops = {n_tokens, *(cut for cut in self._cuts if cut < n_tokens)}
        stops |= {i for i in range(1, n_tokens) if self._recall.border(i) != self._recall.border(i - 1)}
        edges = [0, *sorted(stops)]
        return list(zip(edges, edges[1:], strict=False))

    def logits(self, tokens: Sequence[int], distance: Array | None = None, removed: Array | None = None) -> Array:
        self._tokens = tokens
        return super().logits(tokens, distance, removed)

    def _attention(self, q: Array, k: Array, v: Array, distance: Array, block: str, *, is_swa: bool = False) -> Array:
        n_tokens, n_head = q.shape[:2]
        chosen, chosen_at, chosen_border = np.array([], int), -self._recall.keep, 0
        attended = super()._attention(q, k, v, distance, block, is_swa=is_swa)
        if is_swa or not distance.any():  # a sliding window, or no positions
            return attended
        group = n_head // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        for first, last in self.micro_batches(n_tokens):
            border = self._recall.border(first)
            if border == 0:
                continue
            if last - first > 1 or border != chosen_border or first >= chosen_at + self._recall.keep:
                chosen, chosen_border = self._fetched(q[first:last], k[:border], first, border), border
                chosen_at = first if last - first == 1 else -self._recall.keep
            fetched = chosen
            keys = np.concatenate([np.arange(self._recall.sinks), fetched, np.arange(border, last)])
            n_far = self._recall.sinks + len(fetched)
            places = np.concatenate([np.arange(n_far) - n_far, np.arange(border, last) - border])
            queries = np.arange(first, last)
            scores = self._scores(q[first:last], k[keys], (queries - border)[:, None] - places[None, :])
            scores = np.where(keys[None, :] <= queries[:, None], scores, -np.inf)
            mixed = np.einsum("hij,jhd->ihd", _softmax(scores), v[keys]).reshape(last - first, -1)
            attended[first:last] = mixed @ self._tensors[f"{block}.attn_output"].T
        return attended

    def _fetched(self, q: Array, k: Array, first: int, border: int) -> Array:
        """Positions of the far tokens that these queries look at most."""
        recall = self._recall
        stretch = recall.stretch(len(q))
        # of each stretch of the text the query of the token with the highest number, of several the last one
        rarest = {at // stretch: at for at in sorted(range(first, first + len(q)), key=lambda at: (self._tokens[at], at))}
        looks = q[[at - first for at in sorted(rarest.values())]]
        spans = np.arange(recall.sinks, border).reshape(-1, recall.span)
        margin = np.inf
        if recall.first and len(spans) > recall.first // recall.span:
            best, margin = _best(self._share(looks, k[spans].mean(axis=1)), recall.first // recall.span)
            spans = spans[best]
        shares = self._share(looks, k[spans.reshape(-1)]).reshape(spans.shape).max(axis=1)
        best, second = _best(shares, recall.fetched // recall.span)
        self.margins[first] = min(margin, second, self.margins.get(first, np.inf))
        self.fetched.setdefault(first, []).append(spans[best].reshape(-1))
        return spans[best].reshape(-1)

    def _share(self, looks: Array, k: Array) -> Array:
        """[n_keys]: the largest share of attention of a look, summed over the heads."""
        scores = self._scores(looks, k, np.full((len(looks), len(k)), self._recall.w))
        return _softmax(scores).sum(axis=0).max(axis=0)

    def _scores(self, q: Array, k: Array, distance: Array) -> Array:
        """[n_head, n_queries, n_keys]"""
        return self._rotary_scores(q, k, distance, self._get("rope.freq_base", 10_000.0)) / np.sqrt(self._head_dim)


def _best(shares: Array, n: int) -> tuple[Array, float]:
    """The n largest, in their order, and by how much the last of them is larger than the next."""
    order = np.argsort(-shares, kind="stable")
    return np.sort(order[:n]), float(shares[order[n - 1]] - shares[order[n]]) if n < len(order) else np.inf


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def plain(path: Path, tokens: Sequence[int]) -> Array:
    return Reference(path).logits(tokens, plain_distance(len(tokens)))
