"""Texts in which something is hidden: sentences of a text, and needles between them at given depths.

Knows strings. It knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..items import TaskError
from ..texts import Text

DEPTHS = 40
"""RULER's needles stand at one of so many places, evenly from the beginning to the end."""


@dataclass(frozen=True)
class Haystack:
    """The sentences of a text, without its line breaks."""

    text: Text

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        return tuple(self.text.passages(1))

    def check(self, taken: int, length: int) -> int:
        """`taken` sentences, unless they are all that there are. Raises TaskError."""
        if taken >= len(self.sentences):
            raise TaskError(f"{self.text.name} is too short for {length:,} tokens. Take shorter --lengths or a longer --text.")
        return taken


def spread(count: int) -> list[float]:
    """The middles of `count` equal parts, as shares."""
    return [(i + 0.5) / count for i in range(count)]


def planted(lines: Sequence[str], needles: Sequence[str], depths: Sequence[float], glue: str = " ") -> str:
    """`lines` with each needle after a share `depths` of them. Needles at the same place keep their order."""
    at = [round(depth * len(lines)) for depth in depths]
    parts: list[str] = []
    start = 0
    for place, needle in sorted(zip(at, needles, strict=True), key=lambda pair: pair[0]):
        parts += [*lines[start:place], needle]
        start = place
    return glue.join([*parts, *lines[start:]])
