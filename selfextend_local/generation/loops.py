"""Answers that go round in circles: a phrase said again and again, word for word, with nothing between.

Pure arithmetic on token ids.
"""

from __future__ import annotations

from collections.abc import Sequence

TIMES = 4
TOKENS = 32
LONGEST = 64
"""A loop is a phrase of at most LONGEST tokens that ends the answer TIMES times or more and fills TOKENS of them."""


def loop_at_end(tokens: Sequence[int]) -> int:
    """The tokens of the phrase that the answer ends with over and over, 0 if there is none."""
    for length in range(1, min(LONGEST, len(tokens) // TIMES) + 1):
        span = max(TIMES * length, TOKENS)
        if span > len(tokens):
            continue
        # Equal to itself, shifted by a phrase.
        if all(tokens[i] == tokens[i - length] for i in range(len(tokens) - 1, len(tokens) - span + length - 1, -1)):
            return length
    return 0
