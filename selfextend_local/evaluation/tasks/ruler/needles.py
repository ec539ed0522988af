"""Needles: "One of the special magic numbers for {key} is: {value}." in noise, in an essay, or among needles.

Places are those of RULER: of 40 depths, evenly from the beginning to the end of the filler.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass

from ..haystack import DEPTHS, planted
from .samples import NOISE, Material, Sample
from .words import listed

TOKENS = 128


@dataclass(frozen=True)
class Needles:
    """`filler`: noise, essay or needles; `keys` in the text, `asked` of them in the question, `values` for each."""

    filler: str = "noise"
    key: str = "words"
    value: str = "numbers"
    keys: int = 1
    asked: int = 1
    values: int = 1

    def __call__(self, rng: random.Random, size: int, material: Material) -> Sample:
        names: dict[str, None] = {}
        while len(names) < self.keys:
            names[self._key(rng)] = None
        held = {name: [self._value(rng) for _ in range(self.values)] for name in names}
        needles = [self._needle(name, value) for name, values in held.items() for value in values]
        rng.shuffle(needles)
        depths = sorted(rng.sample(range(DEPTHS), len(needles)))
        lines, glue = self._filler(rng, size, material, held)
        text = planted(lines, needles, [depth / (DEPTHS - 1) for depth in depths], glue)
        asked = rng.sample(list(held), self.asked)
        # Values of one key in the order of the text.
        wanted = [value for name in asked for value in sorted(held[name], key=text.index)]
        return self._sample(text, asked, wanted)

    def _sample(self, text: str, asked: list[str], wanted: list[str]) -> Sample:
        query = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + ", and " + asked[-1]
        one = len(wanted) == 1
        kind = self.value.removesuffix("s") if one else self.value
        question = f"What {'is' if one else 'are all'} the special magic {kind} for {query} mentioned in the provided text?"
        start = (
            f"{'A' if one else 'Some'} special magic {kind} {'is' if one else 'are'} hidden within the following text. "
            f"Make sure to memorize it. I will quiz you about the {kind} afterwards."
        )
        cue = f"The special magic {kind} for {query} mentioned in the provided text {'is' if one else 'are'}"
        return Sample(f"{start}\n{text}", question, cue, tuple(wanted), TOKENS)

    def _needle(self, key: str, value: str) -> str:
        return f"One of the special magic {self.value} for {key} is: {value}."

    def _filler(self, rng: random.Random, size: int, material: Material, held: dict[str, list[str]]) -> tuple[list[str], str]:
        if self.filler == "noise":
            return [NOISE] * size, "\n"
        if self.filler == "essay":
            return list(material.essay[:size]), " "
        others: dict[str, str] = {}
        while len(others) < size:
            if (name := self._key(rng)) not in held:
                others[name] = self._needle(name, self._value(rng))
        return list(others.values()), "\n"

    def _key(self, rng: random.Random) -> str:
        return f"{rng.choice(listed('adjective'))}-{rng.choice(listed('noun'))}" if self.key == "words" else _uuid(rng)

    def _value(self, rng: random.Random) -> str:
        return str(rng.randint(1_000_000, 9_999_999)) if self.value == "numbers" else _uuid(rng)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
