"""llama.cpp's own group-attention schedule (-gan, -gaw), as its passkey example runs it.

Knows positions and two operations on keys. It loads no library: the caller brings the operations.
"""

from __future__ import annotations

from typing import Protocol


class Keys(Protocol):
    """The keys of one context: llama_memory_seq_add and llama_memory_seq_div."""

    def seq_add(self, seq: int, p0: int, p1: int, delta: int) -> object: ...

    def seq_div(self, seq: int, p0: int, p1: int, divisor: int) -> object: ...


class UpstreamSchedule:
    """What llama.cpp's passkey example does for -gan n -gaw w, through the public calls.

    Before each batch, blocks of w positions that are full are divided by n and everything behind them moves up.
    """

    def __init__(self, keys: Keys, n: int, w: int) -> None:
        self._keys, self._n, self._w = keys, n, w
        self._done = 0
        self._removed = 0
        self._changed_at = 0

    def __call__(self, start: int) -> int:
        """Regroup what is full, and return the position of the token at place `start` of the text."""
        n, w = self._n, self._w
        past = start - self._removed
        while past >= self._done + w:
            ib = n * self._done // w
            bd = w // n * (n - 1)
            dd = w // n - ib * bd - w
            self._keys.seq_add(0, self._done, past, ib * bd)
            self._keys.seq_div(0, self._done + ib * bd, self._done + ib * bd + w, n)
            self._keys.seq_add(0, self._done + ib * bd + w, past + ib * bd, dd)
            past -= bd
            self._removed += bd
            self._done += w // n
            self._changed_at = start
        return past

    def place_to_rewind(self, length: int) -> int | None:
        """The position from which to drop keys so that `length` tokens stay; None if they have been regrouped since."""
        return length - self._removed if length >= self._changed_at else None
