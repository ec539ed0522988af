"""Questions about documents, from the data sets that `qa_data` reads.

Each question stands at the shortest of the lengths that holds it whole; no document is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfextend_local.evaluation.items import Item, Question
from selfextend_local.evaluation.prompting import Tokenizer, Wording
from selfextend_local.evaluation.scores import best, exact_match, f1, rouge_l

from .qa_data import Case


@dataclass(frozen=True)
class QuestionAnswering:
    """`lengths`: all that will be asked for, so that each case is taken once."""

    cases: tuple[Case, ...]
    file: str
    lengths: tuple[int, ...]
    max_tokens: int = 48
    form: str = "auto"

    name = "qa"

    def config(self) -> Mapping[str, Any]:
        return {"data": self.file, "max_tokens": self.max_tokens}

    def items(self, tokenizer: Tokenizer, length: int) -> list[Item]:
        wording = Wording.of(tokenizer, self.form)
        below = max((other for other in self.lengths if other < length), default=0)
        prompts = [(case, self._prompt(wording, case)) for case in self.cases]
        return [
            Question(
                {"case": number, "format": wording.form},
                prompt,
                self.max_tokens,
                lambda answer, case=case: _grade(answer, case.answers),  # type: ignore[misc]
                wording.stop_tokens,
                "\n",
            )
            for number, (case, prompt) in enumerate(prompts)
            if below < len(prompt) <= length
        ]

    def too_long(self, tokenizer: Tokenizer) -> int:
        """How many cases fit none of the lengths."""
        wording = Wording.of(tokenizer, self.form)
        return sum(len(self._prompt(wording, case)) > max(self.lengths) for case in self.cases)

    def _prompt(self, wording: Wording, case: Case) -> tuple[int, ...]:
        text = (
            f"{case.context}\n\nAnswer the question from the text above, in a few words and without explanation.\n\n"
            f"Question: {case.question}"
        )
        return wording.prompt(text, "Answer:")


def _grade(answer: str, answers: tuple[str, ...]) -> dict[str, float]:
    return {
        "f1": round(best(f1, answer, answers), 4),
        "rouge_l": round(best(rouge_l, answer, answers), 4),
        "exact": best(exact_match, answer, answers),
    }

