"""A loop is found when it has gone on for long enough, and what isn't one is left alone."""

from __future__ import annotations

import pytest

from selfextend_local.generation.loops import LONGEST, TIMES, TOKENS, loop_at_end


@pytest.mark.parametrize("length", [1, 3, 7, 20, LONGEST])
def test_a_phrase_said_often_enough_is_a_loop_and_not_before(length: int) -> None:
    start, phrase = list(range(1000, 1017)), list(range(length))
    needed = max(TIMES * length, TOKENS)
    said = [*start, *(phrase * (needed // length + 1))[:needed]]
    assert loop_at_end(said) == length
    assert loop_at_end(said[:-1]) == 0


@pytest.mark.parametrize(
    "said",
    [
        [],
        list(range(500)),
        # Said three times, then something else.
        [*list(range(30)) * 3, *range(100, 130)],
        # A list: the lines begin alike and go on differently.
        [token for line in range(40) for token in (1, 2, 3, 4, 5, 100 + line)],
        # A phrase longer than what counts as one.
        list(range(LONGEST + 1)) * 6,
    ],
)
def test_what_is_no_loop_is_left_alone(said: list[int]) -> None:
    assert not any(loop_at_end(said[:end]) for end in range(len(said) + 1))
