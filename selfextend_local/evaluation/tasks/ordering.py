"""TSort: passages that follow each other, shuffled; which is their order?

After Ada-LEval (Wang et al., arXiv:2404.06480). The passages are as long as the length allows, so the task needs the
whole of the text at any length.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfextend_local.evaluation.items import Item, Question, TaskError
from selfextend_local.evaluation.prompting import Tokenizer, Wording
from selfextend_local.evaluation.scores import numbers
from selfextend_local.evaluation.texts import Text


@dataclass(frozen=True)
class Ordering:
    """`parts`: passages to order; `repeats`: at so many places of the text."""

    text: Text
    parts: int = 4
    repeats: int = 8
    form: str = "auto"
    seed: int = 0

    name = "tsort"

    def config(self) -> Mapping[str, Any]:
        return {**self.text.record, "parts": self.parts, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        sample = self.text.content[:20_000]
        size = max(4, int(length / (self.parts + 1) * len(sample.split()) / max(1, len(wording.tokens(sample)))))
        while size >= 4:
            questions = self._questions(wording, length, size)
            if questions and max(len(q.prompt) for q in questions) <= length:
                return list(questions)
            size = int(0.9 * size)
        raise TaskError(f"{length:,} tokens are too short for {self.parts} passages of this text. Take longer --lengths.")

    def _questions(self, wording: Wording, length: int, size: int) -> list[Question]:
        passages = self.text.passages(size)
        needed = self.parts + 1
        if len(passages) < needed:
            return []
        found = []
        for repeat in range(self.repeats):
            rng = random.Random(f"{self.seed}/{length}/{repeat}")
            start = rng.randrange(len(passages) - needed + 1)
            before, *parts = passages[start : start + needed]
            order = list(range(self.parts))
            rng.shuffle(order)
            wanted = [order.index(place) + 1 for place in range(self.parts)]
            found.append(self._question(wording, before, [parts[place] for place in order], wanted, repeat))
        return found

    def _question(self, wording: Wording, before: str, shuffled: Sequence[str], wanted: list[int], repeat: int) -> Question:
        listed = "\n\n".join(f"Part {number}: {part}" for number, part in enumerate(shuffled, 1))
        example = ", ".join(str(n) for n in range(self.parts, 0, -1))
        text = (
            f"What goes before: {before}\n\nThe text goes on with these {self.parts} parts, which are in the wrong order.\n\n"
            f"{listed}\n\nWhich is the right order? Answer with the numbers of the parts only, such as: {example}."
        )

        def grade(answer: str) -> dict[str, float]:
            said = numbers(answer)[: self.parts]
            right = sum(a == b for a, b in zip(said, wanted, strict=False))
            return {"exact": float(said == wanted), "places": right / self.parts}

        labels = {"repeat": repeat, "format": wording.form}
        prompt = wording.prompt(text, "The right order is")
        return Question(labels, prompt, 4 * self.parts + 8, grade, wording.stop_tokens, "\n")
