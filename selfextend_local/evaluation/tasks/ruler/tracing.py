"""vt: one chain of variables, each assigned to the one before it, among noise; which of them have the value at its beginning?"""

from __future__ import annotations

import random
from string import ascii_uppercase

from .samples import NOISE, Material, Sample

HOPS = 4
_EXAMPLE_LINES = 4


def trace(rng: random.Random, size: int, material: Material) -> Sample:
    """A worked example with names of three letters stands first."""
    example = _chain(rng, min(_EXAMPLE_LINES, size), 3)
    asked = _chain(rng, size, 5)
    shown = f"{example.text}\n{example.question} {example.cue} {' '.join(example.wanted)}\n\n"
    return Sample(shown + asked.text, asked.question, asked.cue, asked.wanted, asked.max_tokens, " ")


def _chain(rng: random.Random, size: int, letters: int) -> Sample:
    names: dict[str, None] = {}
    while len(names) < HOPS + 1:
        names["".join(rng.choices(ascii_uppercase, k=letters))] = None
    held = list(names)
    value = rng.randint(10_000, 99_999)
    steps = [f"VAR {held[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in zip(held, held[1:], strict=False))]
    lines = [NOISE] * size
    places = sorted(rng.choices(range(size + 1), k=len(steps)))
    for place, step in reversed(list(zip(places, steps, strict=True))):
        lines.insert(place, step)
    text = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n" + "\n".join(lines)
    question = f"Question: Find all variables that are assigned the value {value} in the text above."
    cue = (
        "Answer: According to the chain(s) of variable assignment in the text above, "
        f"{len(held)} variables are assigned the value {value}, they are:"
    )
    return Sample(text, question, cue, tuple(held), 30, " ")
