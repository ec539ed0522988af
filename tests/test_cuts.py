"""Where micro-batches end: what is kept of a text is what a fresh reading would have read the same way."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from selfextend_local.engine.cuts import as_runs, from_runs, kept, micro_batch, next_stop
from selfextend_local.positions import RECALL_EACH, GroupAttention

RECALL = GroupAttention(1, 640, 64, recall=2048)
SIZE = 512


def read(stops: list[int], start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """The micro-batches of a text from `start` to `end`, or to the first of them that ends there or beyond."""
    found = []
    while start < (stops[-1] if end is None else end):
        size = micro_batch(RECALL, start, next_stop(stops, start) - start, SIZE)
        found.append((start, start + size))
        start += size
    return found


def test_micro_batches_end_on_the_grid_and_where_parts_end() -> None:
    batches = read([3000, 5000])
    ends = {end for _, end in batches}
    assert {3000 - RECALL_EACH, 3000, 5000 - RECALL_EACH, 5000} <= ends
    assert {end for end in ends if end % SIZE} == {3000 - RECALL_EACH, 3000, 5000 - RECALL_EACH, 5000}
    assert all(end - start <= SIZE for start, end in batches)


def test_what_is_read_of_a_document_does_not_depend_on_what_follows() -> None:
    alone, before_a_question = read([3000]), read([3000, 3047])
    assert before_a_question[: len(alone)] == alone


@pytest.mark.parametrize("seed", range(200))
def test_what_is_kept_of_another_text_was_read_as_a_fresh_reading_does(seed: int) -> None:
    chosen = random.Random(seed)
    points = sorted(chosen.sample(range(40, 6000), 4))
    made = points[:3]
    common = chosen.choice([made[0], made[1], chosen.randint(1, made[-1])])
    wanted = sorted({*(stop for stop in made if stop <= common and chosen.random() < 0.7), common + chosen.randint(1, 900)})
    held = chosen.choice([end for _, end in read(made)])  # the reading may have been stopped there
    common = min(common, held)
    n = kept(RECALL, SIZE, [stop for stop in made if stop <= held or stop == next_stop(made, held)], wanted, common, held)
    assert n <= common and n < wanted[-1]
    if not (common == held and held in made):  # what goes on is left as it is
        assert [batch for batch in read(made) if batch[1] <= n] + read(wanted, n) == read(wanted)


@pytest.mark.parametrize(
    ("made", "wanted", "common", "held", "expected"),
    [
        ([3000, 3047], [3000, 3060], 3004, 3047, 3000),  # another question about a document
        ([3000, 3047, 3048, 3049, 3050], [3000, 3047], 3047, 3050, 3015),  # the same again: its last tokens look for themselves
        ([3000, 3047, 3048, 3049, 3050], [3000, 3047, 3050, 3100], 3050, 3050, 3050),  # the next question
        ([3000, 3047, 3048, 3049, 3050], [3000, 3047, 3049, 3100], 3049, 3050, 3049),  # after an answer that was cut
        ([3000], [3000, 3047], 3000, 1536, 1536),  # a reading that was stopped goes on
        ([3000], [2000, 2047], 1990, 3000, 1536),
        ([], [2000], 0, 0, 0),
    ],
)
def test_examples(made: list[int], wanted: list[int], common: int, held: int, expected: int) -> None:
    assert kept(RECALL, SIZE, made, wanted, min(common, held), held) == expected


def test_runs() -> None:
    stops = [5, 6, 7, 40, 90, 91]
    assert as_runs(stops) == [(5, 7), (40, 40), (90, 91)]
    assert from_runs(as_runs(stops)) == stops
    assert all(a < b for a, b in pairwise(from_runs(as_runs(stops))))
