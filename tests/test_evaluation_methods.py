"""What each method means for a length; upstream's schedule on keys that can be looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfextend_local.engine.plan import Settings
from selfextend_local.evaluation.methods import Method, Rotary, methods
from selfextend_local.evaluation.upstream_schedule import UpstreamSchedule

SMOL = Rotary(window=8192, base=100_000.0, dimensions=64)


def test_within_the_window_every_stretching_method_is_the_plain_model() -> None:
    for name in ("plain", "yarn", "ntk", "linear"):
        setup = Method(name).setup(8192, SMOL)
        assert (dict(setup.context), setup.group_attention.enabled) == ({}, False)


def test_beyond_the_window() -> None:
    assert Method("plain").setup(32_768, SMOL).context == {}
    assert Method("linear").setup(16_384, SMOL).context == {"rope_scaling_type": 1, "rope_freq_scale": 0.5}
    assert Method("yarn").setup(32_768, SMOL).context == {
        "rope_scaling_type": 2,
        "rope_freq_scale": 0.25,
        "yarn_orig_ctx": 8192,
    }
    # base * s^(d/(d-2)) = 100000 * 2^(64/62)
    assert Method("ntk").setup(16_384, SMOL).context["rope_freq_base"] == pytest.approx(204_522.3, rel=1e-5)


def test_a_scaling_that_the_file_ships_with_is_kept() -> None:
    rotary = Rotary.of({"general.architecture": "llama", "llama.rope.scaling.factor": "4"}, 8192)
    assert Method("linear").setup(16_384, rotary).context["rope_freq_scale"] == 0.125


def test_rotary_from_metadata_and_its_defaults() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.embedding_length": "576",
        "llama.attention.head_count": "9",
        "llama.rope.freq_base": "100000.0",
    }
    assert Rotary.of(metadata, 8192) == SMOL


def test_labels_name_what_decides() -> None:
    tuned = replace(SMOL, tuned=Settings(ga_w=256, ga_fraction=0.2, ga_mode="progressive", tuned=True))
    assert Method("selfextend").label_for(SMOL) == "selfextend auto"
    assert Method("selfextend").label_for(tuned) == "selfextend auto, tuned"
    assert Method("upstream").label_for(tuned) == "upstream auto"
    assert Method("selfextend", 8).label_for(tuned) == "selfextend n=8"
    assert Method("selfextend", ga_mode="two-level").label == "selfextend two-level auto"
    assert Method("selfextend", 8, ga_mode="progressive").label == "selfextend progressive n=8"


def test_grouping_methods_come_once_for_each_size_and_window() -> None:
    found = methods(["plain", "selfextend", "upstream"], ["auto", 8], [None, 512])
    assert [method.label for method in found] == [
        "plain",
        *("selfextend auto", "selfextend auto w=512", "selfextend n=8", "selfextend n=8 w=512"),
        *("upstream auto", "upstream auto w=512", "upstream n=8", "upstream n=8 w=512"),
    ]
    ga = found[4].setup(16_384, SMOL).group_attention
    assert (ga.n, ga.w) == (8, 512)


def test_attention_temperature_is_a_column_of_its_own() -> None:
    found = methods(["plain", "selfextend", "upstream"], [8], [None], temperatures=[0.0, 0.3])
    assert [method.label for method in found] == ["plain", "selfextend n=8 c=0", "selfextend n=8 c=0.3", "upstream n=8"]
    assert [method.setup(16_384, SMOL).temperature for method in found] == [0.0, 0.0, 0.3, 0.0]
    tuned = replace(SMOL, tuned=Settings(ga_w=512, ga_fraction=0.6, ga_temperature=0.2, tuned=True))
    assert Method("selfextend").setup(16_384, tuned).temperature == 0.2
    assert Method("selfextend", ga_temperature=0.0).setup(16_384, tuned).temperature == 0.0
    assert Method("plain").setup(16_384, tuned).temperature == 0.0


def test_auto_is_what_was_tuned_unless_the_user_says_otherwise() -> None:
    tuned = Rotary(8192, 1e5, 64, tuned=Settings(ga_w=512, ga_fraction=0.6))
    ga = Method("selfextend").setup(16_384, tuned).group_attention
    assert (ga.n, ga.w) == (4, 512)
    assert Method("selfextend", ga_w=2048).setup(16_384, tuned).group_attention.w == 2048
    assert Method("selfextend", 8).setup(16_384, tuned).group_attention.w == 1024


class Cells:
    """The positions of the keys of one sequence, moved as llama_memory_seq_add and seq_div do."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    def seq_add(self, seq: int, p0: int, p1: int, delta: int) -> None:
        self.positions = [p + delta if p0 <= p < p1 else p for p in self.positions]

    def seq_div(self, seq: int, p0: int, p1: int, divisor: int) -> None:
        self.positions = [p // divisor if p0 <= p < p1 else p for p in self.positions]


@pytest.mark.parametrize(("n", "w", "batch"), [(4, 32, 16), (8, 16, 16), (2, 64, 64)])
def test_upstream_s_schedule_groups_full_blocks_and_leaves_no_gap(n: int, w: int, batch: int) -> None:
    keys = Cells()
    schedule = UpstreamSchedule(keys, n, w)
    for start in range(0, 40 * w, batch):
        position = schedule(start)
        assert position == max(keys.positions, default=-1) + 1
        keys.positions += range(position, position + batch)
    blocks = keys.positions[: 39 * w]
    assert blocks == sorted(blocks)
    # All but the last block hold n keys at each position.
    assert keys.positions[: 38 * w] == [j // n for j in range(38 * w)]


def test_upstream_can_go_back_only_to_what_is_not_regrouped() -> None:
    keys = Cells()
    schedule = UpstreamSchedule(keys, 4, 32)
    for start in range(0, 100, 16):
        keys.positions += range(position := schedule(start), position + 16)
    assert schedule.place_to_rewind(100) == 100 - 72
    assert schedule.place_to_rewind(40) is None
