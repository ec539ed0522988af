"""Negative log-likelihood of a text, token by token, and upstream's own group-attention schedule beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .driver import Engine

BATCH = 512


def token_nll(engine: Engine, tokens: Sequence[int], position: Callable[[int], int] = lambda i: i) -> np.ndarray:
    """Nats for each token after the first. `position` is asked for the position of each batch before it is decoded."""
    parts = []
    for start in range(0, len(tokens), BATCH):
        batch = tokens[start : start + BATCH]
        logits = engine.decode(batch, position(start)).astype(np.float64)
        targets = np.array(tokens[start + 1 : start + 1 + len(batch)])
        logits = logits[: len(targets)]
        top = logits.max(axis=1)
        log_sum = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        parts.append(log_sum - logits[np.arange(len(targets)), targets])
    return np.concatenate(parts)


class UpstreamSchedule:
    """What llama.cpp's passkey example does for -gan n -gaw w, through the public calls.

    Before each batch, blocks of w positions that are full are divided by n and everything behind them moves up.
    """

    def __init__(self, engine: Engine, n: int, w: int) -> None:
        self._engine, self._n, self._w = engine, n, w
        self._done = 0
        self._removed = 0

    def __call__(self, start: int) -> int:
        n, w = self._n, self._w
        past = start - self._removed
        while past >= self._done + w:
            ib = n * self._done // w
            bd = w // n * (n - 1)
            dd = w // n - ib * bd - w
            self._engine.seq_add(0, self._done, past, ib * bd)
            self._engine.seq_div(0, self._done + ib * bd, self._done + ib * bd + w, n)
            self._engine.seq_add(0, self._done + ib * bd + w, past + ib * bd, dd)
            past -= bd
            self._removed += bd
            self._done += w // n
        return past
