"""What a task of RULER makes, and out of what. Knows strings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@dataclass(frozen=True)
class Sample:
    """`text` ends with the question, `cue` is how the answer begins; all of `wanted` have to stand in at most `max_tokens` tokens."""

    text: str
    question: str
    cue: str
    wanted: tuple[str, ...]
    max_tokens: int
    joined: str = ", "
    """How a right answer sets the wanted values apart."""

    def grade(self, answer: str) -> dict[str, float]:
        """RULER's string_match_all: the share of the wanted values that the answer contains, whatever their case."""
        return {"score": sum(value.lower() in answer.lower() for value in self.wanted) / len(self.wanted)}


@dataclass(frozen=True)
class Material:
    """`essay`: sentences of a text. `length`: tokens in all, which decides how often words are repeated."""

    essay: Sequence[str]
    length: int


Make = Callable[[random.Random, int, Material], Sample]
"""A sample with so many units of filler: lines, sentences or words."""
