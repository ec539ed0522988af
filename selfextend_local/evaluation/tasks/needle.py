"""Needles among key-value pairs: one, several, those that meet a condition, and threads from value to key to value.

After Needle Threading (Roberts, Han and Albanie, arXiv:2411.05000), with numbers of six digits instead of UUIDs, which
small models spell badly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfextend_local.evaluation.items import Item, Question, TaskError
from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting
from selfextend_local.evaluation.scores import found_share

MODES = ("single", "several", "conditional", "threads")
DIRECTIONS = ("forward", "backward", "random")
MARK = "*"


@dataclass(frozen=True)
class Needle:
    """`needles`: values to find in the modes several and conditional; `steps`: pairs of a thread; `repeats` per mode."""

    modes: tuple[str, ...] = ("single",)
    repeats: int = 8
    needles: int = 3
    steps: int = 3
    direction: str = "forward"
    form: str = "auto"
    seed: int = 0

    name = "needle"

    def config(self) -> Mapping[str, Any]:
        return {"needles": self.needles, "steps": self.steps, "direction": self.direction, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        most = length // 8 + 1
        found: list[Item] = []
        for mode in self.modes:
            for repeat in range(self.repeats):
                pairs, question, cue, wanted = self._ask(mode, most, length, repeat)
                count = fitting(most, length, lambda n: wording.prompt(_text(pairs, n, question), cue))  # noqa: B023
                if count < max(self.needles, self.steps) + 1:
                    raise TaskError(f"{length:,} tokens hold too few pairs for {mode}. Take longer --lengths.")
                # What is asked for depends on how many pairs there are, so it is chosen anew for that many.
                pairs, question, cue, wanted = self._ask(mode, count, length, repeat)
                room = len(wording.tokens(" ".join(f" {value}," for value in wanted))) + 8
                found.append(
                    Question(
                        {"mode": mode, "repeat": repeat, "format": wording.form},
                        wording.prompt(_text(pairs, count, question), cue),
                        room,
                        lambda answer, wanted=wanted: {"score": found_share(answer, wanted)},  # type: ignore[misc]
                        wording.stop_tokens,
                        "\n",
                    )
                )
        return found

    def _ask(self, mode: str, count: int, length: int, repeat: int) -> tuple[list[tuple[str, str]], str, str, list[str]]:
        """The pairs, the question, how the answer begins, and the values that it has to name."""
        rng = random.Random(f"{self.seed}/{mode}/{length}/{repeat}/{count}")
        spelled = [str(n) for n in rng.sample(range(100_000, 1_000_000), 2 * count)]
        pairs = list(zip(spelled[:count], spelled[count:], strict=True))
        if mode == "single":
            # One repeat in each part of the text, from the beginning to the end.
            at = min(count - 1, int((repeat + rng.random()) / self.repeats * count))
            key, value = pairs[at]
            return pairs, f"What is the value of the key {key}?", f"The value of the key {key} is", [value]
        if mode == "threads":
            return self._thread(pairs, rng)
        places = sorted(rng.sample(range(count), min(count, self.needles)))
        if mode == "conditional":
            for at in places:
                pairs[at] = (MARK + pairs[at][0][1:], pairs[at][1])
            question = f"Which values belong to the keys that begin with {MARK}? Name the values, separated by commas."
            return pairs, question, "The values are", [pairs[at][1] for at in places]
        keys = ", ".join(pairs[at][0] for at in places)
        question = f"What are the values of the keys {keys}? Name the values in this order, separated by commas."
        return pairs, question, "The values are", [pairs[at][1] for at in places]

    def _thread(self, pairs: list[tuple[str, str]], rng: random.Random) -> tuple[list[tuple[str, str]], str, str, list[str]]:
        places = rng.sample(range(len(pairs)), min(len(pairs), self.steps))
        if self.direction != "random":
            places.sort(reverse=self.direction == "backward")
        for at, following in zip(places, places[1:], strict=False):
            pairs[at] = (pairs[at][0], pairs[following][0])
        start, end = pairs[places[0]][0], pairs[places[-1]][1]
        question = (
            f"Begin with the key {start}. If its value is itself a key, go on with that key, and so on. "
            "What is the last value, which is no key?"
        )
        return pairs, question, "The last value is", [end]


def _text(pairs: list[tuple[str, str]], count: int, question: str) -> str:
    lines = "\n".join(f'"{key}": "{value}",' for key, value in pairs[:count])
    return f"Keys and their values:\n{lines}\n\n{question}"
