"""Pass keys: a number in a heap of noise, and a question for it (Mohtashami and Jaggi, arXiv:2305.16300).

The protocol of SelfExtend's paper: the same few lines of noise, the key at a chosen depth, lengths x depths x repeats.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfextend_local.evaluation.items import Item, Question, TaskError
from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting

INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
QUESTION = "What is the pass key?"
CUE = "The pass key is"


@dataclass(frozen=True)
class Passkey:
    """`depths`: how many places, evenly from the beginning to the end. `digits`: lengths of the key. `formats`: plain, chat."""

    depths: int = 8
    repeats: int = 1
    digits: tuple[int, ...] = (5,)
    formats: tuple[str, ...] = ("plain",)
    introduction: bool = True
    seed: int = 0

    name = "passkey"

    def config(self) -> Mapping[str, Any]:
        # How many there are doesn't change the single ones: more depths or repeats reuse what is done.
        return {"introduction": self.introduction, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        """From the deepest key to the first one: each text begins with the noise that the last one had in front of its key."""
        found: list[Item] = []
        for form in self.formats:
            wording = Wording(tokenizer, chat=form == "chat")
            for digits in self.digits:
                lines = self._lines(wording, length, digits)
                for depth in reversed(range(self.depths)):
                    # The middles of equal parts: never the very first line, nor the one in front of the question.
                    share = (depth + 0.5) / self.depths
                    for repeat in range(self.repeats):
                        found.append(self._question(wording, form, length, lines, digits, share, repeat))
        return found

    def _lines(self, wording: Wording, length: int, digits: int) -> int:
        most = 2 + length // max(1, len(wording.tokens(NOISE * 10)) // 10 - 1)
        lines = fitting(most, length, lambda n: wording.prompt(self._text("7" * digits, n, n // 2), CUE))
        if lines < 1:
            raise TaskError(f"A pass key of {digits} digits doesn't fit {length:,} tokens. Take longer --lengths.")
        return lines

    def _text(self, key: str, lines: int, before: int) -> str:
        told = f"The pass key is {key}. Remember it. {key} is the pass key.\n"
        start = INTRODUCTION if self.introduction else ""
        return start + NOISE * before + told + NOISE * (lines - before) + QUESTION

    def _question(
        self, wording: Wording, form: str, length: int, lines: int, digits: int, share: float, repeat: int
    ) -> Question:
        # One generator an item, so that asking for more of them changes none of the others.
        key_maker = random.Random(f"{self.seed}/{length}/{digits}/{share:.4f}/{repeat}")
        key = str(key_maker.randrange(10 ** (digits - 1), 10**digits))
        prompt = wording.prompt(self._text(key, lines, round(share * lines)), CUE)
        labels = {"depth": round(share, 4), "repeat": repeat, "digits": digits, "format": form}
        room = len(wording.tokens(f" {key}")) + 3
        return Question(labels, prompt, room, lambda answer: grade(key, answer), wording.stop_tokens, stop_text="\n")


def grade(key: str, answer: str) -> dict[str, float]:
    """`exact`: the first number of the answer is the key. `digits`: the share of the key's digits before the first mistake."""
    found = re.search(r"\d+", answer)
    said = found.group() if found else ""
    right = next((i for i, (a, b) in enumerate(zip(key, said, strict=False)) if a != b), min(len(key), len(said)))
    return {"exact": float(said == key), "digits": right / len(key)}
