"""Copying: how much easier a passage is the second time, against the distance to the first.

A text of the wanted length is read once. Then, for each depth, the passage that stands there is appended and measured, and
taken away again. The gain is measured against passages of the same text that the model has not read. It needs no
instruction and no answer: it measures retrieval also on models too weak to answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfextend_local.evaluation.items import Item, Reader, Result, TaskError, fingerprint
from selfextend_local.evaluation.prompting import Tokenizer, Wording
from selfextend_local.evaluation.texts import Text

PASSAGE = 64
"""Tokens of a passage."""
CUE = 16
"""Its first tokens, which say what is being repeated and aren't measured."""


@dataclass(frozen=True)
class Copying:
    """`depths`: how many passages, evenly over the text."""

    text: Text
    depths: int = 8

    name = "copy"

    def config(self) -> Mapping[str, Any]:
        return self.text.record

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        passage = min(PASSAGE, length // 8)
        cue = min(CUE, passage // 4)
        wording = Wording(tokenizer)
        tokens = wording.text(self.text.content)
        body = length - passage - len(wording.tokens("\n\n"))
        if passage < 8:
            raise TaskError(f"{length} tokens are too short to copy in. Take longer --lengths.")
        if len(tokens) < body + passage:
            raise TaskError(f"{self.text.name} has {len(tokens):,} tokens, {body + passage:,} are needed. Take shorter --lengths.")
        gap = wording.tokens("\n\n")
        read, unread = tokens[:body], tokens[body:]
        found: list[Item] = []
        for depth in range(self.depths):
            share = depth / max(1, self.depths - 1)
            at = round(share * (body - passage))
            # The control is as long, from a place that no earlier control took if the text lasts.
            other = depth * passage % max(1, len(unread) - passage + 1)
            found.append(
                Repetition(
                    depth=round(share, 4),
                    prefix=tuple([*read, *gap]),
                    again=tuple(read[at : at + passage]),
                    unread=tuple(unread[other : other + passage]),
                    cue=cue,
                )
            )
        return found


@dataclass(frozen=True)
class Repetition:
    """A text, a passage of it, and one that isn't in it."""

    depth: float
    prefix: tuple[int, ...]
    again: tuple[int, ...]
    unread: tuple[int, ...]
    cue: int

    @property
    def labels(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    @property
    def cost(self) -> int:
        return len(self.prefix)

    @property
    def begins(self) -> Sequence[int]:
        return self.prefix

    @property
    def room(self) -> int:
        return len(self.prefix) + len(self.again)

    @property
    def fingerprint(self) -> str:
        return fingerprint((*self.prefix, *self.again, *self.unread, self.cue))

    def perform(self, reader: Reader) -> Result:
        repeated, fresh = self._measured(reader, self.again), self._measured(reader, self.unread)
        return {
            "nll": round(float(repeated.mean()), 5),
            "fresh": round(float(fresh.mean()), 5),
            "gain": round(float(fresh.mean() - repeated.mean()), 5),
            "tokens": self.room,
        }

    def _measured(self, reader: Reader, passage: tuple[int, ...]) -> NDArray[np.float64]:
        return reader.nll((*self.prefix, *passage), len(self.prefix) + self.cue)
