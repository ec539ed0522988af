"""BestAnswer: one question, many numbered answers; which is the best?

After Ada-LEval (arXiv:2404.06480). From a JSONL file of {"question", "answers", "best"} (best: index from 0), or from any
text: the question is the first half of a passage, the answers are second halves. As many answers as the length allows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfextend_local.evaluation.items import Item, Question, TaskError
from selfextend_local.evaluation.prompting import Tokenizer, Wording, fitting
from selfextend_local.evaluation.scores import numbers
from selfextend_local.evaluation.texts import Text

_WORDS = 60
_ASK = "Which of these answers is the best one?"
_CONTINUE = "Which of these passages continues the text above?"


@dataclass(frozen=True)
class Case:
    """A question, its best answer, its other ones, and what is asked of the numbered list."""

    question: str
    right: str
    wrong: tuple[str, ...]
    ask: str


@dataclass(frozen=True)
class BestAnswer:
    """`cases` are asked one by one; answers of the other cases fill the list up to the length."""

    cases: tuple[Case, ...]
    record: Mapping[str, str]
    repeats: int = 8
    form: str = "auto"
    seed: int = 0

    name = "bestanswer"

    def config(self) -> Mapping[str, Any]:
        return {**self.record, "seed": self.seed}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        chosen = random.Random(f"{self.seed}/{length}").sample(range(len(self.cases)), min(self.repeats, len(self.cases)))
        return [self._question(wording, length, number, repeat) for repeat, number in enumerate(chosen)]

    def _question(self, wording: Wording, length: int, number: int, repeat: int) -> Question:
        case = self.cases[number]
        rng = random.Random(f"{self.seed}/{length}/{number}")
        others = [other.right for other in self.cases if other is not case]
        rng.shuffle(others)
        wrong = [*case.wrong, *others]
        count = fitting(len(wrong), length, lambda n: wording.prompt(_text(case, [case.right, *wrong[:n]]), _cue()))
        if count < 1:
            raise TaskError(f"Two answers don't fit {length:,} tokens. Take longer --lengths.")
        answers = [case.right, *wrong[:count]]
        rng.shuffle(answers)
        prompt = wording.prompt(_text(case, answers), _cue())
        # The shuffled list may be a few tokens longer, since tokens form across borders.
        best = answers.index(case.right) + 1
        labels = {"repeat": repeat, "format": wording.form}
        return Question(
            labels, prompt, 8, lambda answer: {"exact": float(numbers(answer)[:1] == [best])}, wording.stop_tokens, "\n"
        )


def _text(case: Case, answers: Sequence[str]) -> str:
    listed = "\n".join(f"{number}. {' '.join(answer.split())}" for number, answer in enumerate(answers, 1))
    return f"{case.question}\n\n{listed}\n\n{case.question}\n\n{case.ask} Answer with its number only."


def _cue() -> str:
    return "The number is"


def cases_of_text(text: Text) -> tuple[Case, ...]:
    """Passages cut in two. Raises TaskError if the text is too short."""
    found = []
    for passage in text.passages(_WORDS):
        words = passage.split()
        half = len(words) // 2
        found.append(Case(" ".join(words[:half]), " ".join(words[half:]), (), _CONTINUE))
    if len(found) < 2:
        raise TaskError(f"{text.name} is too short for this task.")
    return tuple(found)


def cases_of_file(path: Path) -> tuple[Case, ...]:
    """Read JSONL. Raises TaskError, naming the line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            held = json.loads(line)
            answers, best = [str(a) for a in held["answers"]], int(held["best"])
            right = answers[best]
            found.append(Case(str(held["question"]), right, tuple(a for a in answers if a is not right), _ASK))
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            raise TaskError(f'Line {number} of {path} is not of the form {{"question": …, "answers": […], "best": 0}}.') from None
    if not found:
        raise TaskError(f"{path} holds no questions.")
    return tuple(found)
