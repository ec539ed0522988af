"""What a task asks of a reader: a question with a graded answer, or a passage whose likelihood is measured.

Knows the protocol of a reader. It knows no methods, so that each method gets the same items.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from selfextend_local.errors import SelfExtendError

Result = Mapping[str, Any]


class TaskError(SelfExtendError):
    """A task can't be made from what it was given."""


class Reader(Protocol):
    """What a task asks of a model. Token ids in; nats and text out."""

    def read(self, tokens: Sequence[int]) -> None:
        """Read so far, so that what follows is in micro-batches of its own, as the chat reads a question after its document."""

    def answer(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_tokens: Collection[int],
        stop_text: str = "",
        enough: Callable[[str], bool] | None = None,
    ) -> str:
        """The greedy continuation, up to a stop or until it is `enough`."""

    def nll(self, tokens: Sequence[int], start: int = 1) -> NDArray[np.float64]:
        """Negative log-likelihood in nats of each of tokens[start:], each given all tokens before it."""


class Item(Protocol):
    """One cell of a task at one length."""

    @property
    def labels(self) -> Mapping[str, Any]:
        """What tells this item from the others of its task, such as depth and repeat."""

    @property
    def cost(self) -> int:
        """Tokens to read, if nothing of them is there."""

    @property
    def begins(self) -> Sequence[int]:
        """Tokens that aren't read again where the item before began with the same."""

    @property
    def room(self) -> int:
        """Tokens that the context must hold."""

    @property
    def fingerprint(self) -> str:
        """A hash of the very tokens."""

    def perform(self, reader: Reader) -> Result:
        """Ask, and grade. Raises Interrupted."""


def fingerprint(tokens: Sequence[int]) -> str:
    return hashlib.sha256(array("i", tokens).tobytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Question:
    """A prompt whose greedy answer is graded. Grades are numbers, larger is better; the answer is kept beside them.

    `question_at`: where a question behind a text begins, which is read by itself. `enough`: the grade can't rise any more.
    """

    labels: Mapping[str, Any]
    prompt: tuple[int, ...]
    max_tokens: int
    grade: Callable[[str], Mapping[str, float]]
    stop_tokens: frozenset[int] = field(default_factory=frozenset)
    stop_text: str = ""
    question_at: int = 0
    enough: Callable[[str], bool] | None = None

    @property
    def cost(self) -> int:
        return len(self.prompt)

    @property
    def begins(self) -> Sequence[int]:
        return self.prompt

    @property
    def room(self) -> int:
        return len(self.prompt) + self.max_tokens

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.prompt)

    def perform(self, reader: Reader) -> Result:
        if self.question_at:
            reader.read(self.prompt[: self.question_at])
        answer = reader.answer(self.prompt, self.max_tokens, self.stop_tokens, self.stop_text, self.enough)
        return {**self.grade(answer), "answer": answer.strip(), "tokens": len(self.prompt)}


@dataclass(frozen=True)
class Passage:
    """Tokens whose likelihood is measured from `start` on; `summarise` turns nats per token into a result."""

    labels: Mapping[str, Any]
    tokens: tuple[int, ...]
    summarise: Callable[[NDArray[np.float64]], Result]
    start: int = 1

    @property
    def cost(self) -> int:
        return len(self.tokens)

    @property
    def begins(self) -> Sequence[int]:
        return self.tokens[: self.start]

    @property
    def room(self) -> int:
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        return fingerprint((*self.tokens, self.start))

    def perform(self, reader: Reader) -> Result:
        return {**self.summarise(reader.nll(self.tokens, self.start)), "tokens": len(self.tokens)}
