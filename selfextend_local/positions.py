"""The positions of SelfExtend: which rotary position a key gets, how far that reaches, which (n, w) a text needs.

Arithmetic only: no model, no library, no numpy. The same functions stand in `patches/src/llama-group-attn.h`, where
the KV cache uses them; `tests/native` holds the two against each other.

Source: SelfExtend, arXiv:2401.01325, in the form that shares one boundary among the queries of a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import GroupAttentionError

RELIABLE_FRACTION = 3 / 8
"""Share of the trained window that a model is trusted to read well.

Measured on SmolLM2-135M (window 8,192) with five-digit pass keys: every key is found while the largest rotation is
2,463 to 3,535 (0.30 to 0.43 of the window), half of them at 5,247 and 5,439 (0.64 and 0.66). The authors of SelfExtend
use 1/2 to 2/3 for larger models. Retrieval sets the limit; perplexity alone would allow more.
"""

MAX_GROUP_SIZE = 64
"""The largest n that the automatic choice takes."""

MICRO_BATCH = 512
"""Tokens in a batch, and in a micro-batch of a GPU. The boundary moves in steps of at most this, so that prefill is not cut
smaller."""

CPU_MICRO_BATCH = 128
"""Tokens in a micro-batch on a CPU, which is as fast with fewer, and needs less memory for them. Divides MICRO_BATCH."""


@dataclass(frozen=True)
class GroupAttention:
    """Group size n, neighbour window w, boundary step r, all in tokens; n = 1 is the plain model.

    Raises GroupAttentionError if n or w is below 1 or r is not a multiple of n.
    """

    n: int = 1
    w: int = 1024
    r: int = MICRO_BATCH

    def __post_init__(self) -> None:
        if self.n < 1 or self.w < 1 or self.r < 1:
            raise GroupAttentionError(f"ga_n={self.n}, ga_w={self.w}: both must be 1 or more.")
        if self.r % self.n:
            raise GroupAttentionError(
                f"ga_n={self.n} doesn't divide the boundary step of {self.r} tokens; take a power of two up to {self.r}."
            )

    @property
    def enabled(self) -> bool:
        return self.n > 1

    def boundary(self, i: int) -> int:
        """The first key position that the query at position i sees at its exact distance."""
        return max(0, (i - self.w) // self.r * self.r) if self.enabled else 0

    def rotation(self, j: int, boundary: int) -> int:
        """The position that the key at position j is rotated for while the boundary is where `boundary` says."""
        return j // self.n if j < boundary else j - (boundary - boundary // self.n)

    def relative_position(self, i: int, j: int) -> int:
        """The distance at which the query at i sees the key at j, j <= i: exact within w, grouped beyond."""
        b = self.boundary(i)
        return self.rotation(i, b) - self.rotation(j, b)

    def largest_rotation(self, n_tokens: int) -> int:
        """The largest position that any of the first `n_tokens` tokens is rotated for while it is read.

        Rotations fall back at each step of the boundary, so the maximum is the last token's or that of the token just
        before the last step.
        """
        if n_tokens < 1:
            return 0
        last = n_tokens - 1
        b = self.boundary(last)
        largest = self.rotation(last, b)
        if b > 0:
            before = b + self.w - 1
            largest = max(largest, self.rotation(before, self.boundary(before)))
        return largest

    def capacity(self, window: int) -> int:
        """The most tokens whose rotations all stay below `window` positions."""
        if not self.enabled or self.largest_rotation(self.w + self.r) >= window:
            return window
        low, high = window, self.n * (window + self.w + self.r)
        while low < high:
            middle = (low + high + 1) // 2
            if self.largest_rotation(middle) < window:
                low = middle
            else:
                high = middle - 1
        return low


PLAIN = GroupAttention(n=1)


def default_step(window: int) -> int:
    """The boundary step for a trained window: a power of two, a sixteenth of the window, one micro-batch at most."""
    step = MICRO_BATCH
    while step > 1 and step > window // 16:
        step //= 2
    return step


def default_neighbours(window: int, sliding_window: int = 0) -> int:
    """The neighbour window w for a trained window: an eighth of it, 4,096 at most, a multiple of the step.

    Models with sliding-window layers keep at least that window exact, so that their local layers see no group.
    """
    step = default_step(window)
    w = max(min(window // 8, 4096), sliding_window, step)
    return -(-w // step) * step


def fixed(n: int, w: int | None, window: int, sliding_window: int = 0) -> GroupAttention:
    """The (n, w, r) that a user asked for.

    Raises GroupAttentionError, before any model is loaded, if they are invalid or the trained window can't hold them.
    """
    step = default_step(window)
    ga = GroupAttention(n, default_neighbours(window, sliding_window) if w is None else w, max(step, n))
    if ga.enabled and ga.w + ga.r > window:
        raise GroupAttentionError(
            f"ga_w={ga.w} doesn't fit the trained window of {window:,} tokens: with steps of {ga.r} it can be at most "
            f"{window - ga.r:,}. Take --ga-w {default_neighbours(window, sliding_window)}."
        )
    return ga


def choose(
    n_tokens: int,
    window: int,
    *,
    w: int | None = None,
    fraction: float = RELIABLE_FRACTION,
    sliding_window: int = 0,
) -> GroupAttention:
    """The smallest group size, a power of two, that reads `n_tokens` within `fraction` of the trained window.

    n = 1 while the text fits that part. If even MAX_GROUP_SIZE doesn't get there, the largest n whose rotations stay
    inside the trained window; beyond that, see `reach`.
    """
    if not 0 < fraction <= 1:
        raise GroupAttentionError(f"The fraction of the window to rely on is {fraction}; it must lie in (0, 1].")
    usable = max(1, int(window * fraction))
    if n_tokens <= usable:
        return fixed(1, w, window, sliding_window)
    n = 2
    while n < MAX_GROUP_SIZE and fixed(n, w, window, sliding_window).largest_rotation(n_tokens) >= usable:
        n *= 2
    return fixed(n, w, window, sliding_window)


def reach(window: int, *, w: int | None = None, sliding_window: int = 0) -> int:
    """The most tokens that the automatic choice can read with a trained window of `window`."""
    return fixed(MAX_GROUP_SIZE, w, window, sliding_window).capacity(window)
