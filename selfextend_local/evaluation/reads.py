"""What a task asks of whoever reads: a model under a method, or a stand-in in a test.

Knows token ids and nats. It loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Reads(Protocol):
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
