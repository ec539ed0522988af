"""Keys and facts planted in one text, each asked by itself: one reading serves all questions, and the likelihood of the text.

Keys are RULER's needles, one asked among many (niah_multikey_1); facts are those of `facts`. The seed decides what is planted and
where in `text` the prose begins. This is what `selfextend tune` measures by.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting

from ..items import Item, Passage, Question, TaskError
from ..texts import Text
from .facts import FORMS, PEOPLE
from .haystack import Haystack, planted, spread
from .perplexity import summarise

KEYS, FACTS = "keys", "facts"
_MEASURED_FROM = 3 / 4
"""The likelihood is that of the last quarter of the text: of what lies far behind the window."""
_ADJECTIVES = ("amber", "brisk", "candid", "dusty", "eager", "fabled", "gentle", "hollow", "idle", "jolly", "keen", "lunar")
_NOUNS = ("anchor", "barrel", "cobbler", "dagger", "elbow", "feather", "gallery", "harvest", "island", "jacket", "kettle", "lantern")
_NUMBER_ENDS = re.compile(r"\d\D")
_SAMPLED = 200


@dataclass(frozen=True)
class _Planting:
    part: str
    told: str
    question: str
    cue: str
    number: str


@dataclass(frozen=True)
class Planted:
    """So many `keys` and `facts`, in a drawn order in the middles of equal parts of one text. `likelihood`: the first item is the
    last quarter's likelihood. A text that is too short is repeated; see `repeats`."""

    text: Text
    keys: int = 24
    facts: int = 24
    form: str = "auto"
    seed: int = 0
    likelihood: bool = False

    name = "planted"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "keys": self.keys, "facts": self.facts, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        rng = random.Random(f"planted/{self.seed}/{length}")
        held = self._plantings(rng)
        sentences = Haystack(self.text).sentences
        start = rng.randrange(len(sentences))
        told, depths = [one.told for one in held], spread(len(held))

        def prompt(lines: int, one: _Planting) -> tuple[tuple[int, ...], int]:
            prose = _cycled(sentences, start, lines)
            return wording.document(self.text.name, planted(prose, told, depths), one.question, one.cue)

        room = max(len(wording.tokens(f" {one.number}")) for one in held) + 2
        longest = max(held, key=lambda one: len(one.question) + len(one.cue))
        lines = fitting(_most(wording, sentences, length), length - room, lambda n: prompt(n, longest)[0])
        if lines < len(held):
            raise TaskError(f"{len(held)} keys and facts don't fit {length:,} tokens of prose. Take longer --lengths or fewer of them.")
        made = [prompt(lines, one) for one in held]
        shared = made[0][0][: min(at for _, at in made)]
        labels = {"format": wording.form}
        passage = Passage({"part": "likelihood", **labels}, shared, summarise, int(_MEASURED_FROM * len(shared)))
        questions = [
            Question(
                {"part": one.part, "depth": round(depth, 4), **labels}, tokens, room, lambda answer, one=one: _grade(one, answer),  # type: ignore[misc]
                wording.stop_tokens, "\n", at, lambda text: _NUMBER_ENDS.search(text) is not None,
            )
            for one, depth, (tokens, at) in zip(held, depths, made, strict=True)
        ]  # fmt: skip
        return [passage, *questions] if self.likelihood else list(questions)

    def repeats(self, tokenizer: Tokenizer, length: int) -> bool:
        """Whether the text is shorter than `length` tokens, so that its likelihood says nothing."""
        return len(Wording(tokenizer).text(self.text.content)) < length

    def _plantings(self, rng: random.Random) -> list[_Planting]:
        found = []
        for name in rng.sample([f"{first}-{last}" for first, last in product(_ADJECTIVES, _NOUNS)], self.keys):
            cue = f"The special magic number for {name} mentioned in the provided text is"
            number = str(rng.randrange(1_000_000, 10_000_000))
            told = f"One of the special magic numbers for {name} is: {number}."
            question = f"What is the special magic number for {name} mentioned in the provided text?"
            found.append(_Planting(KEYS, told, question, cue, number))
        for i, who in enumerate(rng.sample(PEOPLE, self.facts)):
            form = FORMS[i % len(FORMS)]
            number = str(rng.randrange(10 ** (form.digits - 1), 10**form.digits))
            found.append(_Planting(FACTS, form.told.format(who, n=number), form.question.format(who), form.cue.format(who), number))
        rng.shuffle(found)
        return found


def _cycled(sentences: Sequence[str], start: int, count: int) -> list[str]:
    return [sentences[(start + i) % len(sentences)] for i in range(count)]


def _most(wording: Wording, sentences: Sequence[str], length: int) -> int:
    """Sentences that are surely more than `length` tokens hold, but not so many that counting them takes long."""
    some = sentences[:_SAMPLED]
    return 2 * length * len(some) // max(1, len(wording.tokens(" ".join(some)))) + 1


def _grade(one: _Planting, answer: str) -> dict[str, float]:
    said = re.search(r"\d+", answer)
    return {"said": float(said is not None and said.group() == one.number)}
