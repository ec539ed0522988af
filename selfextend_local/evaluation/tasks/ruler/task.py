"""Ruler: samples of the eleven tasks, fitted to a length in tokens. The length counts the prompt and the tokens of the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...items import Item, Question, TaskError
from ...prompting import Tokenizer, Wording, fitting
from ...texts import Text
from ..haystack import Haystack
from .counting import common_words, frequent_words
from .needles import Needles
from .samples import Make, Material
from .tracing import trace

PARTS: Mapping[str, Make] = {
    "niah_single_1": Needles(),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", value="uuids"),
    "niah_multikey_1": Needles("essay", keys=4),
    "niah_multikey_2": Needles("needles"),
    "niah_multikey_3": Needles("needles", key="uuids", value="uuids"),
    "niah_multivalue": Needles("essay", values=4),
    "niah_multiquery": Needles("essay", keys=4, asked=4),
    "vt": trace,
    "cwe": common_words,
    "fwe": frequent_words,
}
WITH_ESSAY = {name for name, make in PARTS.items() if isinstance(make, Needles) and make.filler == "essay"}


@dataclass(frozen=True)
class Ruler:
    """`parts` of PARTS, `samples` of each. `text` is the essay, which may be None where no part needs one."""

    parts: tuple[str, ...]
    text: Text | None
    samples: int = 8
    form: str = "auto"
    seed: int = 42

    name = "ruler"

    def config(self) -> Mapping[str, Any]:
        return {"seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        return [question for part in self.parts for question in self._questions(wording, part, length)]

    def _questions(self, wording: Wording, part: str, length: int) -> list[Question]:
        essay = part in WITH_ESSAY
        if essay and self.text is None:
            raise TaskError(f"{part} hides its needles in a text: name one with --text.")
        haystack = Haystack(self.text) if essay and self.text else None
        material = Material(haystack.sentences if haystack else (), length)
        most = len(material.essay) if haystack else length

        def made(number: int, size: int) -> tuple[Question, int]:
            sample = PARTS[part](random.Random(f"{self.seed}/{length}/{part}/{number}"), size, material)
            prompt, at = wording.asked(sample.text, sample.question, sample.cue)
            labels = {"part": part, "sample": number, "format": wording.form, **(self.text.record if essay and self.text else {})}
            question = Question(
                labels, prompt, sample.max_tokens, sample.grade, wording.stop_tokens, question_at=at,
                enough=lambda answer: sample.grade(answer)["score"] == 1.0,
            )
            return question, question.room

        size = fitting(most, length, lambda n: range(made(0, n)[1]))
        if haystack:
            haystack.check(size, length)
        found = []
        for number in range(self.samples):
            # Samples differ by a few tokens.
            while size > 0 and made(number, size)[1] > length:
                size -= max(1, size // 100)
            if size < 1:
                raise TaskError(f"{length:,} tokens are too short for {part}. Take longer --lengths.")
            found.append(made(number, size)[0])
        return found
