"""Negative log-likelihood of a text, token by token, on the tests' own driver."""

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
