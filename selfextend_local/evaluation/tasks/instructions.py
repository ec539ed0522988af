"""Many short questions in one long input: a numbered list of sums, some of which are wrong; which?

After LongIns (arXiv:2406.17588), whose tasks list short questions with answers and ask for the numbers of the wrong ones.
Every line has to be read and judged, so that nothing is gained by finding a single place.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfextend_local.evaluation.items import Item, Question, TaskError
from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting
from selfextend_local.evaluation.scores import numbers, set_f1


@dataclass(frozen=True)
class Instructions:
    """`wrong`: sums with a wrong result in each list."""

    wrong: int = 5
    repeats: int = 8
    form: str = "auto"
    seed: int = 0

    name = "instructions"

    def config(self) -> Mapping[str, Any]:
        return {"wrong": self.wrong, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        count = fitting(length // 6, length, lambda n: wording.prompt(self._list(length, 0, n)[0], _CUE))
        if count <= self.wrong:
            raise TaskError(f"{length:,} tokens hold too few sums. Take longer --lengths.")
        return [self._question(wording, length, repeat, count) for repeat in range(self.repeats)]

    def _list(self, length: int, repeat: int, count: int) -> tuple[str, list[int]]:
        rng = random.Random(f"{self.seed}/{length}/{repeat}")
        wrong = sorted(rng.sample(range(1, count + 1), min(count, self.wrong)))
        lines = []
        for number in range(1, count + 1):
            a, b = rng.randrange(2, 50), rng.randrange(2, 50)
            off = rng.choice((-10, 10))
            lines.append(f"{number}. {a} + {b} = {a + b + (off if number in wrong else 0)}")
        return "Here are sums.\n" + "\n".join(lines) + f"\n\n{_ASK}", wrong

    def _question(self, wording: Wording, length: int, repeat: int, count: int) -> Question:
        text, wrong = self._list(length, repeat, count)
        return Question(
            {"repeat": repeat, "format": wording.form},
            wording.prompt(text, _CUE),
            6 * self.wrong + 8,
            lambda answer: {"f1": round(set_f1(numbers(answer), wrong), 4)},
            wording.stop_tokens,
            "\n",
        )


_ASK = "Which of these sums are wrong? Answer with their numbers only, separated by commas."
_CUE = "The numbers of the wrong sums are"
