"""How an answer is drawn, and where it ends. The one declaration of these settings and of their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfextend_local.engine.grammar import grammar_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn.

    Temperature 0 (greedy) by default: a question about a document has one right answer, and the same question should
    get the same answer twice.

    Attributes:
        max_tokens: the most tokens of an answer.
        dry: what it costs to say words again as the answer said them before (engine/repeats.py), 0 for nothing.
        stop: texts that end the answer; they aren't part of it.
        schema: a JSON schema, as text, that the answer has to follow; nothing is penalised for being repeated then.
        max_words: the most words; an answer that has more ends with its last whole sentence. Not with a schema.
    """

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    dry: float = 3.0
    stop: tuple[str, ...] = ()
    schema: str | None = None
    max_words: int | None = None

    def chain(self) -> dict[str, Any]:
        """The arguments of `Llama.generate`. Raises SelfExtendError if the schema can't be used."""
        return {
            "temp": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": 1.0 if self.schema else self.repeat_penalty,
            "dry": 0.0 if self.schema else self.dry,
            "grammar": grammar_of(self.schema),
        }


LONG_ANSWERS = Sampling(repeat_penalty=1.1, dry=0.0)
"""For summaries and batch requests: small models fall into loops in long answers. Not `dry`, with which standing results were not made."""
