"""A question and its answer, as a chat holds them and a file keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer: the text as it was shown, and the tokens as the model wrote them."""

    question: str
    answer: str
    tokens: tuple[int, ...]
