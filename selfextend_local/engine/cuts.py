"""Where the micro-batches of a text end, so that a text that is read twice, resumed or restored under recall is the same to the bit.

The queries of a micro-batch choose together what is fetched: the keys and values of a text depend on where its micro-batches ended.
They end on a grid of positions and where a part of the text ends: a document, a prompt, an answer. The last tokens of a part, where a
question stands, look for themselves. Arithmetic only.

A part's end is called a stop. Stops are positions in tokens, ascending.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from selfextend_local.positions import RECALL_EACH, GroupAttention

Tokens = Sequence[int] | npt.NDArray[np.int32]


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many tokens at the start of two texts are the same."""
    length = min(len(a), len(b))
    differs = np.flatnonzero(np.asarray(a[:length], np.int32) != np.asarray(b[:length], np.int32))
    return int(differs[0]) if differs.size else length


def micro_batch(ga: GroupAttention, start: int, pending: int, size: int) -> int:
    """Tokens of the next micro-batch of a part that has `pending` more at position `start`; at most `size`."""
    if ga.enabled:
        size = ga.batch(start, size)
    if ga.recall and pending > RECALL_EACH:
        size = min(size, pending - RECALL_EACH)
    return min(size, pending)


def next_stop(stops: Sequence[int], start: int) -> int:
    """The end of the part that begins at `start`; the last stop where the others are past. One token makes no part: read alone, it
    would share the choice of the token before it."""
    return stops[min(bisect_right(stops, start + 1), len(stops) - 1)]


def kept(ga: GroupAttention, size: int, made: Sequence[int], wanted: Sequence[int], common: int, held: int) -> int:
    """How many of the `held` tokens in a cache were read as a fresh reading would read them; fewer than the text has.

    made: the stops of what is held; the last is beyond it if the reading ended within a part. wanted: those of the text, its end
    included. common: tokens that the two have in common. What was read behind an answer goes on from there, whatever the stops.
    """
    n_tokens = wanted[-1]
    if common == held < n_tokens and held in made:
        return held
    most = min(common, held, n_tokens - 1)
    start = _shared(made, wanted, most)
    if not made or start >= made[-1]:
        return start
    ends = zip(_ends(ga, size, start, next_stop(made, start)), _ends(ga, size, start, next_stop(wanted, start)), strict=False)
    return max((end for end, _ in takewhile(lambda pair: pair[0] == pair[1] <= most, ends)), default=start)


def _shared(made: Sequence[int], wanted: Sequence[int], most: int) -> int:
    """The last stop up to which two texts have the same parts; an answer is one part, although it was written token by token."""
    singles, shared = set(made), set(wanted)
    start = 0
    while made and start < made[-1]:
        stop = next_stop(made, start)
        if stop != next_stop(wanted, start) or stop > most:
            stop, end = start, start
            while end + 1 in singles and end < most:
                end += 1
                stop = end if end in shared else stop
        if stop == start:
            break
        start = stop
    return start


def _ends(ga: GroupAttention, size: int, start: int, stop: int) -> Iterator[int]:
    while start < stop:
        start += micro_batch(ga, start, stop - start, size)
        yield start


def as_runs(stops: Sequence[int]) -> list[tuple[int, int]]:
    """The stops as (first, last) of stretches without gaps: tokens of answers are read one by one."""
    runs: list[tuple[int, int]] = []
    for stop in stops:
        if runs and stop == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((stop, stop))
    return runs


def from_runs(runs: Sequence[Sequence[int]]) -> list[int]:
    """The opposite of `as_runs`."""
    return [stop for first, last in runs for stop in range(first, last + 1)]
