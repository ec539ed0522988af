"""Negative log-likelihood of a text by position: in one pass, or with a window that slides over it.

In one pass every token sees all tokens before it. Sliding, each sees between half a window and a whole one: what a plain
model can do at best with a text that it can't hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfextend_local.evaluation.items import Item, Passage, Reader, Result, TaskError, fingerprint
from selfextend_local.evaluation.prompting import Tokenizer, Wording
from selfextend_local.evaluation.texts import Text

BLOCKS = 64
"""A curve has at most this many points."""


@dataclass(frozen=True)
class Perplexity:
    """`window`: tokens of the sliding window, None for one pass."""

    text: Text
    window: int | None = None

    name = "ppl"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "window": self.window}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        tokens = tuple(Wording(tokenizer).text(self.text.content)[:length])
        if len(tokens) < length:
            raise TaskError(f"{self.text.name} has {len(tokens):,} tokens, {length:,} are asked for. Take shorter --lengths.")
        if self.window is not None and self.window < length:
            return [Sliding(tokens, self.window)]
        return [Passage({}, tokens, summarise)]


def summarise(nats: NDArray[np.float64]) -> Result:
    """Mean nats per token, over all, over the last eighth, and over blocks of `block` tokens."""
    block = max(1, -(-len(nats) // BLOCKS))
    means = [float(nats[at : at + block].mean()) for at in range(0, len(nats), block)]
    return {
        "nll": round(float(nats.mean()), 5),
        "last_eighth": round(float(nats[-max(1, len(nats) // 8) :].mean()), 5),
        "block": block,
        "blocks": [round(mean, 4) for mean in means],
    }


@dataclass(frozen=True)
class Sliding:
    """The same tokens, read in overlapping windows; of each but the first, the second half counts."""

    tokens: tuple[int, ...]
    window: int

    @property
    def labels(self) -> Mapping[str, Any]:
        return {}

    @property
    def cost(self) -> int:
        return 2 * len(self.tokens)

    @property
    def begins(self) -> Sequence[int]:
        return ()

    @property
    def room(self) -> int:
        return self.window

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.tokens)

    def perform(self, reader: Reader) -> Result:
        stride = self.window // 2
        parts = [reader.nll(self.tokens[: self.window])]
        for begin in range(stride, len(self.tokens) - self.window + stride, stride):
            parts.append(reader.nll(self.tokens[begin : begin + self.window], self.window - stride))
        return {**summarise(np.concatenate(parts)), "tokens": len(self.tokens)}


def block_positions(row: Mapping[str, Any]) -> list[int]:
    """The middle of each block of a result, in tokens."""
    return [round((i + 0.5) * row["block"]) for i in range(len(row["blocks"]))]


