"""A needle whose question shares no word with it, so that it can't be found by its letters (NoLiMa: Modarressi et al.,
arXiv:2502.05167). One sentence of a text says who; the question asks by meaning.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..items import Item, Question, TaskError
from ..prompting import Tokenizer, Wording, fitting
from ..texts import Text
from .haystack import Haystack, planted, spread

PAIRS = (
    ("{} plays the violin every evening.", "Which person is a musician?"),
    ("{} bakes bread before sunrise.", "Which person works as a baker?"),
    ("{} owns a poodle and two beagles.", "Which person has dogs?"),
    ("{} moors the sloop at the pier.", "Which person has a boat?"),
    ("{} drills teeth in a small surgery.", "Which person is the dentist?"),
    ("{} was born in Marseille.", "Which person comes from France?"),
    ("{} can't eat bread, milk or peanuts.", "Which person has allergies?"),
    ("{} grows roses and tulips.", "Which person is fond of flowers?"),
    ("{} won gold in the marathon.", "Which person is a runner?"),
    ("{} teaches algebra to children.", "Which person knows mathematics?"),
    ("{} keeps Shetland ponies behind the barn.", "Which person has horses?"),
    ("{} sleeps beside a telescope.", "Which person looks at the stars?"),
)
NAMES = ("Yuki", "Stuart", "Katie", "Veronica", "Gary", "Megan", "Calvin", "Mandy", "Diana", "Caleb", "Ivor", "Petra")
CUE = "The person is"


@dataclass(frozen=True)
class LexicalGap:
    """`samples` questions, the needles in the middles of equal parts; two sentences about others stand in the text too."""

    text: Text
    samples: int = 12
    form: str = "auto"
    seed: int = 42

    name = "gap"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        haystack = Haystack(self.text)
        return [self._question(wording, haystack, length, i, depth) for i, depth in enumerate(spread(self.samples))]

    def _question(self, wording: Wording, haystack: Haystack, length: int, number: int, depth: float) -> Question:
        rng = random.Random(f"{self.seed}/{length}/{number}")
        told, question, who, others = case(rng, number)
        depths = [depth, *(rng.random() for _ in others)]

        def prompt(lines: int) -> tuple[tuple[int, ...], int]:
            return wording.asked(planted(haystack.sentences[:lines], [told, *others], depths) + "\n", question, CUE)

        room = 8
        lines = haystack.check(fitting(len(haystack.sentences), length - room, lambda n: prompt(n)[0]), length)
        if lines < 1:
            raise TaskError(f"{length:,} tokens are too short for a needle and its question. Take longer --lengths.")
        tokens, at = prompt(lines)
        labels = {"depth": round(depth, 4), "sample": number, "format": wording.form}
        return Question(labels, tokens, room, lambda answer: grade(who, answer), wording.stop_tokens, "\n", at)


def case(rng: random.Random, number: int) -> tuple[str, str, str, list[str]]:
    """The needle, its question, whose name is wanted, and two needles of other pairs about others."""
    pair = PAIRS[number % len(PAIRS)]
    who, *others = rng.sample(NAMES, 3)
    told = rng.sample([told for told, _ in PAIRS if told != pair[0]], 2)
    return pair[0].format(who), pair[1], who, [text.format(name) for text, name in zip(told, others, strict=True)]


def grade(who: str, answer: str) -> dict[str, float]:
    """The answer names that person, and none of the others."""
    return {"score": float({name for name in NAMES if name in answer} == {who})}
