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
from .facts import FORMS as FIRST_FORMS
from .facts import PEOPLE, Form
from .haystack import Haystack, planted, spread
from .perplexity import summarise

KEYS, FACTS = "keys", "facts"
FORMS = (
    *FIRST_FORMS,
    Form("{} had {n} books in the library.", "How many books did {} have in the library?", "The number of books of {} is", 4),
    Form("In the race {} wore the number {n}.", "Which number did {} wear in the race?", "In the race {} wore the number", 5),
    Form("The letters to {} lie in box {n}.", "In which box do the letters to {} lie?", "The letters to {} lie in box", 6),
    Form("The ship of {} was insured for {n} guilders.", "For how much was the ship of {} insured?", "The ship of {} was insured for", 5),
    Form("The orchard of {} gave {n} baskets.", "How many baskets did the orchard of {} give?", "The orchard of {} gave", 4),
)  # fmt: skip
"""Those of `facts` and as many more: of many facts of one form a small model names one and the same for all."""
_MEASURED_FROM = 3 / 4
"""The likelihood is that of the last quarter of the text: of what lies far behind the window."""
_ADJECTIVES = ("amber", "brisk", "candid", "dusty", "eager", "fabled", "gentle", "hollow", "idle", "jolly", "keen", "lunar")
_NOUNS = ("anchor", "barrel", "cobbler", "dagger", "elbow", "feather", "gallery", "harvest", "island", "jacket", "kettle", "lantern")
_KEY_DIGITS = 7
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
    """So many `keys` and `facts`, each of a name and a number of its own, in a drawn order in the middles of equal parts of one text.
    `likelihood`: the first item is the last quarter's likelihood. A text that is too short is repeated; see `repeats`."""

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

        def document(lines: int) -> str:
            return planted(_cycled(sentences, start, lines), told, depths)

        def tokens_of(lines: int) -> tuple[int, ...]:
            return wording.about(self.text.name, document(lines), longest.question, longest.cue)

        room = max(len(wording.tokens(f" {one.number}")) for one in held) + 2
        longest = max(held, key=lambda one: len(one.question) + len(one.cue))
        lines = fitting(_most(wording, sentences, length), length - room, tokens_of)
        if lines < len(held):
            raise TaskError(f"{len(held)} keys and facts don't fit {length:,} tokens of prose. Take longer --lengths or fewer of them.")
        text = document(lines)
        made = [wording.document(self.text.name, text, one.question, one.cue) for one in held]
        shared = made[0][0][: min(at for _, at in made)]
        labels = {"format": wording.form}
        passage = Passage({"part": "likelihood", **labels}, shared, summarise, int(_MEASURED_FROM * len(shared)))
        questions = [
            Question(
                {"part": one.part, "depth": round(depth, 4), **labels}, tokens, room, lambda answer, one=one: _grade(one, answer),  # type: ignore[misc]
                wording.stop_tokens, "\n", at, lambda text, one=one: _decided(one, text),  # type: ignore[misc]
            )
            for one, depth, (tokens, at) in zip(held, depths, made, strict=True)
        ]  # fmt: skip
        return [passage, *questions] if self.likelihood else list(questions)

    def repeats(self, tokenizer: Tokenizer, length: int) -> bool:
        """Whether the text is shorter than `length` tokens, so that its likelihood says nothing."""
        return len(Wording(tokenizer).text(self.text.content)) < length

    def _plantings(self, rng: random.Random) -> list[_Planting]:
        found: list[_Planting] = []

        def number(digits: int) -> str:
            told = {one.number for one in found}
            return next(n for n in iter(lambda: str(rng.randrange(10 ** (digits - 1), 10**digits)), "") if n not in told)

        for name in rng.sample([f"{first}-{last}" for first, last in product(_ADJECTIVES, _NOUNS)], self.keys):
            cue = f"The special magic number for {name} mentioned in the provided text is"
            n = number(_KEY_DIGITS)
            told = f"One of the special magic numbers for {name} is: {n}."
            question = f"What is the special magic number for {name} mentioned in the provided text?"
            found.append(_Planting(KEYS, told, question, cue, n))
        for i, who in enumerate(rng.sample(PEOPLE, self.facts)):
            form = FORMS[i % len(FORMS)]
            n = number(form.digits)
            found.append(_Planting(FACTS, form.told.format(who, n=n), form.question.format(who), form.cue.format(who), n))
        rng.shuffle(found)
        return found


def _cycled(sentences: Sequence[str], start: int, count: int) -> list[str]:
    return [sentences[(start + i) % len(sentences)] for i in range(count)]


def _most(wording: Wording, sentences: Sequence[str], length: int) -> int:
    """Sentences that are surely more than `length` tokens hold, but not so many that counting them takes long."""
    some = sentences[:_SAMPLED]
    return 2 * length * len(some) // max(1, len(wording.tokens(" ".join(some)))) + 1


def _decided(one: _Planting, answer: str) -> bool:
    """Whether no more of the answer can change its grade: the number has ended, or is another one already."""
    said = re.search(r"\d+", answer)
    return said is not None and (said.end() < len(answer) or not one.number.startswith(said.group()))


def _grade(one: _Planting, answer: str) -> dict[str, float]:
    said = re.search(r"\d+", answer)
    return {"said": float(said is not None and said.group() == one.number)}
