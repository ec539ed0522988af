"""The automatic choice against fixed methods: rows are found by what they were read with, and compared on the same items."""

from __future__ import annotations

from typing import Any

import pytest

from selfextend_local.evaluation.verdict import standings, verdicts

RECALL: list[Any] = ["recall", 2048, 1024, 512]
GROUPS: list[Any] = [16, 1024, 512, "progressive", 4096, 4096]


def rows(method: str, ga: list[Any] | None, right: int, count: int = 24, **config: Any) -> list[dict[str, Any]]:
    shared = {"task": "passkey", "model": "m", "kv_type": "f16", "trained": 8192, "length": 16_384, "context": {}}
    shared |= {"method": method, "ga": ga}
    return [
        {"key": f"{method}{i}", "config": {**shared, **config, "input": f"text {i}", "depth": i}, "result": {"exact": float(i < right)}}
        for i in range(count)
    ]


@pytest.mark.parametrize(("auto", "other", "word"), [(24, 3, "better"), (3, 24, "worse"), (12, 11, "as good")])
def test_it_is_better_worse_or_as_good(auto: int, other: int, word: str) -> None:
    (made,) = verdicts([*rows("recall of 2,048", RECALL, auto), *rows("selfextend progressive auto", GROUPS, other)], {})
    assert (made.word, made.setting, made.count) == (word, "recall of 2,048, w=1024", 24)
    assert (made.other, made.score, made.other_score) == ("selfextend progressive auto", auto / 24, other / 24)


def test_the_best_fixed_method_counts_and_settings_by_hand_don_t() -> None:
    held = [*rows("recall", RECALL, 12), *rows("plain", None, 2), *rows("yarn", None, 20, context={"rope_scaling_type": 2})]
    held += rows("selfextend n=32 w=256", [32, 256, 512], 24) + rows("recall of 2,048 c=0.1", RECALL, 23, ga_temperature=0.1)[:5]
    (made,) = verdicts(held, {})
    assert made.other == "yarn"


def test_without_rows_of_the_automatic_choice_there_is_no_verdict() -> None:
    assert not list(verdicts([*rows("plain", None, 2), *rows("selfextend progressive auto", GROUPS, 5)], {}))


def test_sliding_windows_are_read_with_groups() -> None:
    held = [*rows("selfextend progressive auto", GROUPS, 9), *rows("recall", RECALL, 12)]
    (made,) = verdicts(held, {"m": 512})
    assert (made.setting, made.other) == ("n=16, w=1024, progressive", "recall")


def test_the_likelihood_of_a_model_that_knows_no_prose_does_not_count() -> None:
    def ppl(method: str, length: int, ga: list[Any] | None, nats: float) -> dict[str, Any]:
        (row,) = rows(method, ga, 0, 1, task="ppl", length=length)
        return {**row, "key": f"{method}{length}", "result": {"nll": nats, "blocks": [nats + i / 100 for i in range(64)]}}

    held = [ppl("plain", 4096, None, 7.0), ppl("recall", 16_384, RECALL, 7.5), ppl("plain", 16_384, None, 7.1)]
    assert [made.word for made in verdicts(held, {}, {"m": 7.2})] == ["worse"]
    assert not list(verdicts(held, {}, {"m": 6.9}))


def test_a_worst_rank_counts_the_methods_that_are_better_in_the_worst_task() -> None:
    held = [*rows("recall", RECALL, 24), *rows("yarn", None, 12, context={"x": 1}), *rows("linear", None, 12, context={"x": 2})]
    facts = [*rows("recall", RECALL, 5, task="facts"), *rows("yarn", None, 24, task="facts", context={"x": 1})]
    for row in facts:
        row["result"] = {"said": row["result"]["exact"], "nats": 0.0}
    made = {one.method: (one.rank, one.task, one.tasks) for one in standings([*held, *facts], {})}
    assert made == {"auto": (2, "facts", 2), "yarn": (2, "passkey", 2)}
