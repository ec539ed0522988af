"""The positions of SelfExtend: which rotary position a key gets, how far that reaches, which (n, w) a text needs.

Arithmetic only: no model, no library, no numpy. The same functions stand in `patches/src/llama-group-attn.h`, where
the KV cache uses them; `tests/native` holds the two against each other.

Source: SelfExtend, arXiv:2401.01325, in the form that shares one boundary among the queries of a micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

from .errors import GroupAttentionError

GroupForm = Literal["two-level", "progressive", "recall"]

RELIABLE_FRACTION = 3 / 8
"""Share of the trained window that a model is trusted to read well.

Measured on SmolLM2-135M (window 8,192) with five-digit pass keys: every key is found while the largest rotation is
2,463 to 3,535 (0.30 to 0.43 of the window), half of them at 5,247 and 5,439 (0.64 and 0.66). The authors of SelfExtend
use 1/2 to 2/3 for larger models. Retrieval sets the limit; perplexity alone would allow more.
"""

INSIDE_GROUP_SIZE = 2
"""The largest n that the automatic choice takes for a text that the trained window holds.

Measured at the full window (docs/results.md): SmolLM2 finds 23 of 24 pass keys (plain 9, n=4 16 to 21) and answers as many questions as
plain or more, and two ruler models lose nothing of RULER, of which n=4 costs the second 4 points and two levels of n=8 6.
"""

MAX_GROUP_SIZE = 64
"""The largest n that the automatic choice takes."""

MICRO_BATCH = 512
"""Tokens in a batch and in a micro-batch. Larger steps of the boundary are multiples of it, so that prefill is not cut smaller."""

LARGEST_STEP = 2048
"""Tokens between two steps of the boundary, at most. A step moves w + r keys, so few large steps cost less than many small ones."""


LARGEST_NEIGHBOURS = 4096
"""The largest neighbour window that nobody asked for."""

RECALL_WINDOW = 8192
"""The smallest trained window with which the automatic choice recalls as soon as a text is longer than it."""

RECALL_NEAR = 640
"""Near tokens of each 8,192 of such a window, of a long text. With steps of RECALL_STEP they are as likely as 1,024, and find more keys."""

RECALLED = 2048
"""Far tokens that recall fetches unless told otherwise; fewer if half of the trained window can't hold them."""

RECALLED_LONG = 1024
"""The least that it fetches of a text of more than RECALL_LONG windows: there an eighth of the window is enough.

Measured with SmolLM2 (docs/benchmarks.md, docs/results.md): of 24 pass keys among 32k, 64k and 128k tokens recall of 1,024 finds all, of
2,048 20 to 22; it names more of RULER's values at 32k (45 % against 35), with as many nats. At 16k 2,048 is as good or better.
"""

RECALL_LONG = 3
"""Trained windows of text up to which recall fetches RECALLED tokens, with the near window and the steps of groups.

There smaller steps gain likelihood and lose facts (docs/benchmarks.md).
"""

RECALL_SINKS = 64
"""The first tokens of a text, which recall always attends to."""

RECALL_SPAN = 32
"""Tokens that recall fetches as one."""

RECALL_STEP = 64
"""Tokens of a long text that choose together what is fetched: fewer with a small trained window, more with a long neighbour window.

Fetching for 64 tokens instead of 512 is worth more likelihood than twice as many near ones (docs/benchmarks.md).
"""

RECALL_STRETCH = 16
"""Of so many neighbouring queries one looks for far spans.

Queries that look as their mean want nothing in particular: one of them finds more of what the text needs, that of the rarest token
most (docs/benchmarks.md).
"""

RECALL_EACH = 32
"""If at most so many tokens are read together each query looks: a prompt's end is read so, so that the question finds what it asks for."""

RECALL_FIRST = 16_384
"""Far tokens of which all keys are compared; of more, the spans whose mean keys are best."""

RECALL_KEEP = 32
"""So many tokens of an answer share a choice. As likely as with 8 to 64 (docs/benchmarks.md)."""

RECALL_FROM_SMALL = 8
"""Trained windows from which on the automatic choice recalls where the window is smaller than RECALL_WINDOW.

Measured (docs/results.md): with a window of 8,192 recall finds and answers at least as much as groups as soon as the text is longer
than the window. With one of 1,024 it can fetch 256 tokens, too few for questions that need many places: there groups name more of
RULER's values up to 8 windows, from 16 on as many or fewer.
"""

RECALL_REACH = 1 << 24
"""The most tokens of a text that is read by recall: the library counts its cells in float32."""

_ALL = 2**31 - 1
"""Size of the one group of far keys under recall: they lie unrotated until they are fetched."""


@dataclass(frozen=True)
class Level:
    """Keys at a distance of w tokens or more share one position among n; the border moves in steps of r tokens."""

    n: int
    w: int
    r: int


@dataclass(frozen=True)
class GroupAttention:
    """Group size n, neighbour window w, boundary step r, all in tokens; n = 1 is the plain model.

    progressive: the farther the key, the larger its group: 4, 16, 64, … up to n, over stretches that take w/2 rotations each, the nearest
    3w/4.

    recall: instead of groups, so many far tokens are fetched for each r tokens, at consecutive positions before the near ones
    (`patches/src/llama-recall.h`); n is 1, and nothing is left out of a text of RECALL_SINKS + recall + w tokens.

    Raises GroupAttentionError if n or w is below 1, r is not a multiple of the nearest groups' size, n of the progressive form
    no power of two, or recall no multiple of RECALL_SPAN.
    """

    n: int = 1
    w: int = 1024
    r: int = MICRO_BATCH
    progressive: bool = False
    recall: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.w < 1 or self.r < 1:
            raise GroupAttentionError(f"ga_n={self.n}, ga_w={self.w}: both must be 1 or more.")
        if self.progressive and self.n & (self.n - 1):
            raise GroupAttentionError(f"ga_n={self.n}: progressive groups double, so take a power of two.")
        if self.recall < 0 or self.recall % RECALL_SPAN:
            raise GroupAttentionError(f"ga_recall={self.recall}: take a multiple of {RECALL_SPAN} tokens.")
        if self.recall and (self.n > 1 or self.r % RECALL_SPAN):
            raise GroupAttentionError(
                f"Recall takes no groups (ga_n={self.n}), and steps in multiples of {RECALL_SPAN} tokens (r={self.r})."
            )
        if not self.recall and self.r % self.levels[0].n:
            raise GroupAttentionError(
                f"ga_n={self.n} doesn't divide the boundary step of {self.r} tokens; take a power of two up to {self.r}."
            )

    @property
    def enabled(self) -> bool:
        return self.n > 1 or self.recall > 0

    @property
    def stage(self) -> tuple[bool, int, int]:
        """The order in which a growing text goes through them: plain, larger and larger groups, recall of less and less."""
        return self.recall > 0, self.n, -self.recall

    @property
    def mode(self) -> GroupForm:
        """The form by name."""
        if self.recall:
            return "recall"
        return "progressive" if self.progressive else "two-level"

    @property
    def label(self) -> str:
        """Such as "n=16, w=512, progressive", "recall of 2,048, w=1024", or "n=1"."""
        if self.recall:
            return f"recall of {self.recall:,}, w={self.w}"
        return f"n={self.n}, w={self.w}" + (", progressive" if self.progressive else "") if self.enabled else "n=1"

    def batch(self, start: int, size: int) -> int:
        """Tokens of a batch that begins at position `start`, at most `size`: it ends where steps will be, so that the library
        doesn't cut the batches smaller."""
        step = self.w % self.r if self.recall else self.w if self.enabled else 0
        return size - (start - step) % size

    @property
    def levels(self) -> tuple[Level, ...]:
        """From the nearest to the farthest; one level is the paper's form."""
        return _levels(self)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the groups, from the nearest to the farthest: one for each of `borders`."""
        return tuple(level.n for level in self.levels) if self.enabled else (1,)

    def borders(self, i: int) -> tuple[int, ...]:
        """For each level the first key position that the query at position i sees nearer than in that level."""
        if self.recall:
            border = max(0, (i - self.w) // self.r * self.r)
            return (border if border > RECALL_SINKS + self.recall else 0,)
        return tuple(max(0, (i - level.w) // level.r * level.r) for level in self.levels) if self.enabled else (0,)

    def boundary(self, i: int) -> int:
        """The first key position that the query at position i sees at its exact distance."""
        return self.borders(i)[0]

    def rotation(self, j: int, borders: tuple[int, ...]) -> int:
        """The position that the key at position j is rotated for while the borders are where `borders` says."""
        first = rotated = 0
        for level, border in zip(reversed(self.levels), reversed(borders), strict=True):
            if j < border:
                return rotated + (j - first) // level.n
            rotated += (border - first) // level.n
            first = border
        return rotated + j - first

    def relative_position(self, i: int, j: int) -> int:
        """The distance at which the query at i sees the key at j, j <= i: exact within w, grouped beyond."""
        b = self.borders(i)
        return self.rotation(i, b) - self.rotation(j, b)

    def largest_rotation(self, n_tokens: int) -> int:
        """The largest position that any of the first `n_tokens` tokens is rotated for while it is read.

        Rotations fall back at each step of a border, so the maximum is the last token's, that of a token just before the
        last step of a level, or of a level's last step before one of those.
        """
        if n_tokens < 1:
            return 0
        if self.recall:  # distances, since what is fetched lies before position 0
            return min(n_tokens, RECALL_SINKS + self.recall + self.w + self.r) - 1
        peaks = {n_tokens - 1}
        for _ in self.levels:
            peaks |= {b + level.w - 1 for i in peaks for level, b in zip(self.levels, self.borders(i), strict=True) if b > 0}
        return max(self.rotation(i, self.borders(i)) for i in peaks)

    def capacity(self, window: int) -> int:
        """The most tokens whose rotations all stay below `window` positions."""
        if self.recall:
            return RECALL_REACH if RECALL_SINKS + self.recall + self.w + self.r <= window else window
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


_NEAREST = 4
"""Size of the nearest groups of the progressive form."""


@cache
def _levels(ga: GroupAttention) -> tuple[Level, ...]:
    if ga.recall:
        return (Level(_ALL, ga.w, ga.r),)
    if not ga.progressive:
        return (Level(ga.n, ga.w, ga.r),)
    # A step of a far border moves all nearer keys too. These are so rare that with w = 2r, the default, all steps together move less
    # than twice the keys of two levels. Stretches and steps were chosen by pass keys and likelihood, see docs/results.md.
    unit = math.lcm(ga.r, ga.n)
    step = max(unit, min(4 * ga.w, 8 * ga.r) // unit * unit)
    n, start = min(_NEAREST, ga.n), ga.w
    levels = [Level(n, start, ga.r)]
    while n < ga.n:
        start += 3 * ga.w if n == _NEAREST else n * ga.w // 2
        n = min(4 * n, ga.n)
        levels.append(Level(n, start, step))
        step *= 2
    return tuple(levels)


PLAIN = GroupAttention(n=1)


def default_step(window: int) -> int:
    """The boundary step for a trained window: a power of two, a sixteenth of the window, LARGEST_STEP at most."""
    step = LARGEST_STEP
    while step > 1 and step > window // 16:
        step //= 2
    return step


def step_for(n: int, window: int, progressive: bool = False) -> int:
    """The boundary step for groups of n: the default one, or the size of the (nearest) groups if that is larger."""
    return max(default_step(window), min(n, _NEAREST) if progressive else n)


def default_neighbours(window: int, sliding_window: int = 0) -> int:
    """The neighbour window w for a trained window: an eighth of it, LARGEST_NEIGHBOURS at most, a multiple of the step.

    Models with sliding-window layers keep at least that window exact, so that their local layers see no group.
    """
    return rounded_neighbours(min(window // 8, LARGEST_NEIGHBOURS), window, sliding_window)


def rounded_neighbours(w: int, window: int, sliding_window: int = 0) -> int:
    """The least neighbour window from `w` on that lies on the grid of half steps and holds the sliding window of local layers,
    so that they see no group."""
    grid = max(1, default_step(window) // 2)
    return -(-max(w, sliding_window, grid) // grid) * grid


def fixed(n: int, w: int | None, window: int, sliding_window: int = 0, progressive: bool = False) -> GroupAttention:
    """The (n, w, r) that a user asked for.

    Raises GroupAttentionError, before any model is loaded, if they are invalid or the trained window can't hold them.
    """
    neighbours = default_neighbours(window, sliding_window)
    ga = GroupAttention(n, neighbours if w is None else w, step_for(n, window, progressive), progressive)
    if ga.enabled and ga.w + ga.r > window:
        raise GroupAttentionError(
            f"ga_w={ga.w} doesn't fit the trained window of {window:,} tokens: with steps of {ga.r} it can be at most "
            f"{window - ga.r:,}. Take --ga-w {neighbours}."
        )
    return ga


def recall_neighbours(window: int, sliding_window: int = 0) -> int:
    """The neighbour window w with which recall reads a long text; where the trained one is small it was measured with that of groups."""
    if window < RECALL_WINDOW:
        return default_neighbours(window, sliding_window)
    return max(min(window * RECALL_NEAR // RECALL_WINDOW, LARGEST_NEIGHBOURS), sliding_window)


def recall_step(w: int, window: int) -> int:
    """How many tokens of a long text choose together what recall fetches: a power of two, for a neighbour window and a trained one."""
    step = max(RECALL_SPAN, min(RECALL_STEP, default_step(window)))
    while step * 32 <= w:
        step *= 2
    return step


def fetching(recall: int | None, w: int | None, window: int, sliding_window: int = 0, n_tokens: int = 0) -> GroupAttention:
    """Recall of so many tokens of a text of `n_tokens`; None: as many as RECALLED and RECALLED_LONG say, and as half of the trained
    window holds. Of a long text fewer tokens are near, and choose together.

    Raises GroupAttentionError if the trained window can't hold what is attended to.
    """
    is_long = n_tokens > RECALL_LONG * window
    if w is None:
        w = recall_neighbours(window, sliding_window) if is_long else default_neighbours(window, sliding_window)
    step = recall_step(w, window) if is_long else max(default_step(window), RECALL_SPAN)
    if recall is None:
        most = max(RECALLED_LONG, min(RECALLED, window // 8)) if is_long else RECALLED
        recall = max(RECALL_SPAN, min(most, window // 2 - RECALL_SINKS - w - step) // RECALL_SPAN * RECALL_SPAN)
    ga = GroupAttention(1, w, step, recall=recall)
    needed = RECALL_SINKS + ga.recall + ga.w + ga.r
    if needed > window:
        raise GroupAttentionError(
            f"Recall of {ga.recall:,} tokens with w={ga.w} attends to {needed:,} tokens, more than the trained window of {window:,}. "
            f"Take --ga-recall {max(0, ga.recall - (needed - window)) // RECALL_SPAN * RECALL_SPAN} or a smaller --ga-w."
        )
    if ga.w < sliding_window:
        raise GroupAttentionError(f"ga_w={ga.w}: recall needs at least the sliding window of this model, {sliding_window} tokens.")
    return ga


def recall_from(window: int, sliding_window: int = 0) -> int:
    """The automatic choice recalls texts of more tokens than this: RECALL_REACH where it never does, since the window holds no
    recall, or local layers have a sliding window, with which recall was never measured."""
    least = RECALL_SINKS + RECALL_SPAN + default_neighbours(window) + max(default_step(window), RECALL_SPAN)
    if sliding_window or least > window:
        return RECALL_REACH
    return window if window >= RECALL_WINDOW else RECALL_FROM_SMALL * window


def choose(
    n_tokens: int,
    window: int,
    *,
    w: int | None = None,
    fraction: float = RELIABLE_FRACTION,
    sliding_window: int = 0,
    progressive: bool = False,
) -> GroupAttention:
    """The smallest group size, a power of two, that reads `n_tokens` within `fraction` of the trained window.

    n = 1 while the text fits that part. If even MAX_GROUP_SIZE doesn't get there, the largest n whose rotations stay
    inside the trained window; beyond that, see `reach`.
    """
    if not 0 < fraction <= 1:
        raise GroupAttentionError(f"The fraction of the window to rely on is {fraction}; it must lie in (0, 1].")
    usable = max(1, int(window * fraction))
    if n_tokens <= usable:
        return fixed(1, w, window, sliding_window, progressive)

    def rotation(n: int) -> int:
        return fixed(n, w, window, sliding_window, progressive).largest_rotation(n_tokens)

    n = 2
    while n < MAX_GROUP_SIZE and rotation(n) >= usable:
        n *= 2
    # Far groups change nothing where the text doesn't reach them.
    while progressive and n > 2 and rotation(n // 2) == rotation(n):
        n //= 2
    return fixed(n, w, window, sliding_window, progressive)


def reach(window: int, *, w: int | None = None, sliding_window: int = 0, progressive: bool = False) -> int:
    """The most tokens that the automatic choice can read with a trained window of `window`."""
    return fixed(MAX_GROUP_SIZE, w, window, sliding_window, progressive).capacity(window)
