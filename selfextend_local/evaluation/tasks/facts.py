"""Facts in prose: numbers in plain sentences between those of a text, asked one by one as the chat asks about a document.

Pass keys in noise hardly tell methods apart that answer differently well; facts in prose do. The prompt is the chat's, the
answer is begun up to the number. Measured are the nats per token of the right number, and whether the model says it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting

from ..items import Item, Reader, Result, TaskError, fingerprint
from ..texts import Text
from .haystack import Haystack, planted, spread


@dataclass(frozen=True)
class Form:
    """How a fact is told, asked, and how the answer begins; {} stands for whom it is about, {n} for the number."""

    told: str
    question: str
    cue: str
    digits: int


FORMS = (
    Form("The vault code of {} is {n}.", "What is the vault code of {}?", "The vault code of {} is", 5),
    Form("{} was given the membership number {n}.", "What is the membership number of {}?", "The membership number of {} is", 4),
    Form("That summer {n} visitors came to see {}.", "How many visitors came to see {}?", "The number of visitors to {} is", 4),
    Form("Anyone who wants to reach {} has to dial {n}.", "What is the telephone number of {}?", "The telephone number of {} is", 6),
    Form("The portrait of {} was sold for {n} crowns.", "For how much was the portrait of {} sold?", "The portrait of {} was sold for", 4),
)
_MORE = 3
"""Tokens of an answer beyond the right number."""
_FIRST = ("Alma", "Bruno", "Celia", "Darius", "Edith", "Fabian", "Greta", "Hugo", "Irma", "Jonas", "Klara", "Lukas")
_LAST = ("Varnholt", "Quist", "Ostrander", "Pellworm", "Zabel", "Thornquist", "Lindqvist", "Marchetti", "Okonski", "Redfern")
PEOPLE = [f"{first} {last}" for first, last in product(_FIRST, _LAST)]


@dataclass(frozen=True)
class Facts:
    """`facts` facts in one text, each asked by itself; they stand in the middles of equal parts of it."""

    text: Text
    facts: int = 24
    form: str = "auto"
    seed: int = 0

    name = "facts"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "facts": self.facts, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        haystack = Haystack(self.text)
        rng = random.Random(f"{self.seed}/{length}")
        people = rng.sample(PEOPLE, self.facts)
        numbers = [rng.randrange(10 ** (FORMS[i % len(FORMS)].digits - 1), 10 ** FORMS[i % len(FORMS)].digits) for i in range(self.facts)]
        told = [FORMS[i % len(FORMS)].told.format(who, n=n) for i, (who, n) in enumerate(zip(people, numbers, strict=True))]
        depths = spread(self.facts)
        def prompt(lines: int, i: int) -> tuple[tuple[int, ...], int]:
            form = FORMS[i % len(FORMS)]
            document = planted(haystack.sentences[:lines], told, depths)
            return wording.document(self.text.name, document, form.question.format(people[i]), form.cue.format(people[i]))

        longest = max(range(self.facts), key=lambda i: len(prompt(0, i)[0]))
        room = max(len(wording.tokens(f" {number}")) for number in numbers) + _MORE
        lines = haystack.check(fitting(len(haystack.sentences), length - room, lambda n: prompt(n, longest)[0]), length)
        if lines < self.facts:
            raise TaskError(f"{self.facts} facts don't fit {length:,} tokens of prose. Take longer --lengths or fewer --facts.")
        found: list[Item] = []
        for i, (number, depth) in enumerate(zip(numbers, depths, strict=True)):
            tokens, question_at = prompt(lines, i)
            labels = {"depth": round(depth, 4), "wording": i % len(FORMS), "format": wording.form}
            found.append(Asked(labels, tokens, tuple(wording.tokens(f" {number}")), str(number), question_at, wording.stop_tokens))
        return found


@dataclass(frozen=True)
class Asked:
    """A text, a question and the beginning of its answer; `number` in tokens is what goes on. The question begins at `question_at`."""

    labels: Mapping[str, Any]
    prompt: tuple[int, ...]
    right: tuple[int, ...]
    number: str
    question_at: int
    stop_tokens: frozenset[int]

    @property
    def cost(self) -> int:
        return len(self.prompt) + len(self.right)

    @property
    def begins(self) -> Sequence[int]:
        return self.prompt

    @property
    def room(self) -> int:
        return len(self.prompt) + len(self.right) + _MORE

    @property
    def fingerprint(self) -> str:
        return fingerprint((*self.prompt, *self.right))

    def perform(self, reader: Reader) -> Result:
        reader.read(self.prompt[: self.question_at])
        nats = reader.nll((*self.prompt, *self.right), len(self.prompt))
        answer = reader.answer(self.prompt, len(self.right) + _MORE, self.stop_tokens, "\n")
        said = re.search(r"\d+", answer)
        return {
            "said": float(said is not None and said.group() == self.number),
            "nats": round(float(nats.mean()), 5),
            "answer": answer.strip(),
            "tokens": len(self.prompt),
        }
