"""Effective length: the longest length at which a method keeps its own score, and what is left out of the mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfextend_local.evaluation.effective import MEAN, effective
from selfextend_local.evaluation.plots import draw
from selfextend_local.evaluation.summary import groups


@pytest.mark.slow
def test_the_mean_over_the_parts_is_drawn_and_each_part_has_a_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = groups([*rows("a", "plain", {1000: 1.0, 2000: 0.5}), *rows("b", "plain", {1000: 0.9, 2000: 0.9})])
    draw(found, tmp_path / "ruler.svg")
    svg = (tmp_path / "ruler.svg").read_text()
    draw(found, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == svg
    # One curve, one dot where the mean still holds.
    assert svg.count("<path") and "FillBetweenPolyCollection_1" in svg and "FillBetweenPolyCollection_2" not in svg
    assert {group.name for group in found} == {"ruler a", "ruler b"}


def rows(part: str, method: str, scores: dict[int, float], count: int = 20) -> list[dict[str, Any]]:
    """`count` answers a length, as many of them right as the score says."""
    return [
        {
            "key": f"{part}{method}{length}{i}",
            "config": {
                "task": "ruler", "part": part, "model": "m", "kv_type": "f16", "method": method, "length": length, "ga": None, "sample": i,
            },
            "result": {"score": float(i < round(score * count))},
        }
        for length, score in scores.items()
        for i in range(count)
    ]


def lengths(held: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[int | None, bool]]:
    return {(row.part, row.method): (row.length, row.beyond) for row in effective(groups(held)).rows}


def test_the_longest_length_that_keeps_85_percent_of_the_score_at_the_shortest_one() -> None:
    held = [
        *rows("a", "exact", {1000: 0.6, 2000: 0.55, 4000: 0.5, 8000: 0.6}),
        *rows("a", "keeps", {1000: 0.9, 2000: 0.8, 4000: 0.85}),
        *rows("a", "never", {1000: 0.0, 2000: 0.0}),
    ]
    # 0.5 is less than 85 % of 0.6; that 8,000 tokens are well again doesn't count.
    assert lengths(held) == {("a", "exact"): (2000, False), ("a", "keeps"): (4000, True), ("a", "never"): (None, False)}


def test_parts_below_30_percent_are_left_out_of_the_mean_and_named() -> None:
    held = [
        *rows("a", "plain", {1000: 1.0, 2000: 0.9, 4000: 0.1}),
        *rows("b", "plain", {1000: 0.8, 2000: 0.8, 4000: 0.2}),
        *rows("c", "plain", {1000: 0.25, 2000: 0.25, 4000: 0.25}),
    ]
    table = effective(groups(held))
    (mean,) = [row for row in table.rows if row.part == MEAN]
    assert {n: round(e.mean, 3) for n, e in mean.scores.items()} == {1000: 0.9, 2000: 0.85, 4000: 0.15}
    assert (mean.length, mean.beyond) == (2000, False)
    assert table.left_out == {"c": 0.25}
    assert all(e.low <= e.mean <= e.high for e in mean.scores.values())


def test_a_part_stays_if_one_method_can_do_it_and_a_mean_needs_all_parts() -> None:
    held = [*rows("a", "plain", {1000: 1.0}), *rows("b", "plain", {1000: 0.2}), *rows("b", "other", {1000: 0.5})]
    table = effective(groups(held))
    assert table.left_out == {}
    assert [row.method for row in table.rows if row.part == MEAN] == ["plain"]
