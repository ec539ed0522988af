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
    """`w` keys or more are near, the border moves in steps of `r`; `sinks`, `fetched`, `span` and `first` in tokens; `stretch`: of so many
    neighbouring queries one looks, of `each` or fewer each one; `keep`: tokens decoded one by one that share a choice."""

    w: int
    r: int
    sinks: int
    fetched: int
    span: int
    stretch: int
    each: int
    first: int = 0
    keep: int = 1

    def border(self, i: int) -> int:
        """The first key that the query at position i sees as near; 0 while nothing has to be left out."""
        border = max(0, (i - self.w) // self.r * self.r)
        return border if border > self.sinks + self.fetched else 0


@dataclass(frozen=True)
class Step:
    """The queries from `first` to `last` - 1, which choose together and see the keys from `border` on as near."""

    first: int
    last: int
    border: int

    @property
    def size(self) -> int:
        return self.last - self.first


class RecallReference(Reference):
    """A tiny model that reads by recall. `fetched`: the tokens that each layer fetched for the step that begins there. `margins`:
    for the first position of each step that leaves something out, by how much
    the worst span chosen beats the best one left out, in shares of attention, in the layer where that is least."""

    def __init__(self, path: Path, recall: Recall, cuts: Sequence[int], n_ubatch: int = 512) -> None:
        """`cuts`: positions at which a call of the library ends. Micro-batches end there; they hold whole steps, or a part of
        one."""
        super().__init__(path)
        self._recall, self._cuts, self._n_ubatch = recall, sorted(cuts), n_ubatch
        self.margins: dict[int, float] = {}
        self.fetched: dict[int, list[Array]] = {}

    def micro_batches(self, n_tokens: int) -> list[list[Step]]:
        """The steps of each micro-batch that leaves something out."""
        recall = self._recall
        stops = sorted({n_tokens, *(cut for cut in self._cuts if cut < n_tokens)})
        room = self._n_ubatch // recall.r * recall.r
        found = []
        at = next((i for i in range(n_tokens) if recall.border(i) > 0), n_tokens)
        while at < n_tokens:
            stop = next(stop for stop in stops if stop > at)
            past = (at - recall.w) % recall.r
            whole = min(room - (at - recall.w % recall.r) % room, stop - at) // recall.r if room and past == 0 else 0
            if whole:
                firsts = range(at, at + whole * recall.r, recall.r)
                found.append([Step(first, first + recall.r, recall.border(first)) for first in firsts])
            else:
                found.append([Step(at, min(stop, at + recall.r - past, at + self._n_ubatch), recall.border(at))])
            at = found[-1][-1].last
        return found

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
        for steps in self.micro_batches(n_tokens):
            compared, margin = self._compared(q, k, steps)
            for step, spans in zip(steps, compared, strict=True):
                queries = np.arange(step.first, step.last)
                if step.size > 1 or step.border != chosen_border or step.first >= chosen_at + self._recall.keep:
                    chosen, chosen_border = self._fetched(q[self._looks(step)], k, step, spans, margin), step.border
                    chosen_at = step.first if step.size == 1 else -self._recall.keep
                keys = np.concatenate([np.arange(self._recall.sinks), chosen, np.arange(step.border, step.last)])
                n_far = self._recall.sinks + len(chosen)
                places = np.concatenate([np.arange(n_far) - n_far, np.arange(step.border, step.last) - step.border])
                scores = self._scores(q[queries], k[keys], (queries - step.border)[:, None] - places[None, :])
                scores = np.where(keys[None, :] <= queries[:, None], scores, -np.inf)
                mixed = np.einsum("hij,jhd->ihd", _softmax(scores), v[keys]).reshape(step.size, -1)
                attended[queries] = mixed @ self._tensors[f"{block}.attn_output"].T
        return attended

    def _looks(self, step: Step) -> list[int]:
        """Which queries look: of each stretch of a step that of the token with the highest number, of several the last one."""
        stretch = self._recall.stretch if step.size > self._recall.each else 1
        by_number = sorted(range(step.first, step.last), key=lambda at: (self._tokens[at], at))
        return sorted({(at - self._recall.w) % self._recall.r // stretch: at for at in by_number}.values())

    def _compared(self, q: Array, k: Array, steps: list[Step]) -> tuple[list[Array], float]:
        """The spans whose keys each step compares, positions [n, span], and by how much the worst of them beats the best left out.

        The steps of a micro-batch share the spans with the best mean keys, of those that are far for all; the others are compared."""
        recall, border = self._recall, steps[0].border
        first = recall.first // recall.span
        spans = np.arange(recall.sinks, border).reshape(-1, recall.span)
        margin = np.inf
        if first and len(spans) > first:
            looks = q[[at for step in steps for at in self._looks(step)]]
            best, margin = _best(self._share(looks, k[spans].mean(axis=1)), first)
            spans = spans[best]
        late = [np.arange(border, step.border).reshape(-1, recall.span) for step in steps]
        return [np.concatenate([spans, others]) for others in late], margin

    def _fetched(self, looks: Array, k: Array, step: Step, spans: Array, margin: float) -> Array:
        """Positions of the far tokens that these queries look at most."""
        recall, first = self._recall, step.first
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
