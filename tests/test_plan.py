"""The plan: sizes, memory, and the errors that name the setting which would fit."""

from __future__ import annotations

import pytest

from selfextend_local.engine.plan import (
    ContextPlan,
    Memory,
    Settings,
    Shape,
    Use,
    check_settings,
    group_attention_for,
    make_plan,
    next_growth,
    restricted,
    why,
)
from selfextend_local.errors import ContextOverflow, GroupAttentionError, MemoryBudgetError, ModelError
from selfextend_local.positions import RECALL_REACH, fetching

GIB = 1 << 30
WINDOW = 8192
BYTES_PER_TOKEN = 23_040  # SmolLM2-135M, f16


COMPUTE = 100_000_000
LAYER_BYTES = 10_000_000
SIZES = {"f16": 1.0, "q8_0": 34 / 64, "q4_0": 18 / 64}


def plan(settings: Settings, available: int = 16 * GIB, gpu: int = 0, **more: bool) -> ContextPlan:
    def measure(shape: Shape) -> Use:
        kv_cache = int(shape.n_ctx * BYTES_PER_TOKEN * SIZES[shape.kv_type])
        on_gpu = kv_cache * min(shape.gpu_layers, 30) // 30
        return Use(kv_cache, kv_cache - on_gpu + COMPUTE, on_gpu + shape.gpu_layers * LAYER_BYTES if gpu else 0)

    return make_plan(settings, WINDOW, sliding_window=0, memory=Memory(available, gpu), n_layers=31, measure=measure, **more)


def test_the_context_is_sized_from_the_need_and_said_in_one_line() -> None:
    made = plan(Settings(need_tokens=12_900))
    assert made.n_ctx == 13_056
    assert made.describe() == "trained 8,192 → up to 13,056 tokens (recall of 2,048, w=1024), KV cache 287 MiB f16"


def test_a_short_text_needs_no_groups() -> None:
    made = plan(Settings(need_tokens=3000))
    assert not made.group_attention.enabled
    assert made.describe().startswith("trained 8,192 → up to 3,072 tokens (n=1)")


def test_without_a_need_four_windows_or_what_the_memory_allows() -> None:
    assert plan(Settings()).n_ctx == 4 * WINDOW
    assert plan(Settings(kv_type="f16"), available=GIB // 2).n_ctx == 2 * WINDOW
    assert plan(Settings(ga_n=1)).n_ctx == WINDOW


def test_too_little_memory_is_refused_with_figures_and_the_next_step() -> None:
    with pytest.raises(MemoryBudgetError, match=r"32,768 tokens needs 815 MiB.*256 MiB are available.*--kv-type q8_0"):
        plan(Settings(n_ctx=32_768, kv_type="f16"), available=GIB // 4)


def test_a_text_too_long_for_a_fixed_n_names_the_n_that_fits() -> None:
    with pytest.raises(ContextOverflow, match=r"tokens are 11,456 more than the 28,544 that fit. Take --ga-n 32") as caught:
        plan(Settings(ga_n=4, need_tokens=40_000))
    assert caught.value.over == 11_456


def test_a_text_beyond_every_n_says_so() -> None:
    with pytest.raises(ContextOverflow, match="At most 298,880 tokens can be read with a trained window of 8,192: take --ga-mode recall"):
        plan(Settings(need_tokens=1_000_000, ga_mode="progressive"))


def test_a_text_beyond_groups_says_what_recall_lacks() -> None:
    with pytest.raises(ContextOverflow, match="trained window of 8,192, since recall needs flash attention: shorten the text"):
        plan(Settings(need_tokens=1_000_000), available=64 * GIB, flash_attn=False)


def test_a_text_beyond_recall_isnt_told_to_take_recall() -> None:
    with pytest.raises(ContextOverflow, match="At most 16,777,216 tokens can be read with a trained window of 8,192: shorten the text"):
        plan(Settings(need_tokens=99_999_999))


def test_the_automatic_choice_reaches_as_far_as_recall() -> None:
    """It ended where groups end, though it recalls before that."""
    assert plan(Settings(need_tokens=1_000_000), available=64 * GIB).capacity >= 1_000_000
    assert check_settings(Settings(), 512) == check_settings(Settings(), WINDOW) == RECALL_REACH
    assert check_settings(Settings(), WINDOW, sliding_window=1024) < RECALL_REACH
    refused = "At most 298,880 tokens .* of 8,192, since recall takes no q8_0 cache on a GPU: shorten the text"
    with pytest.raises(ContextOverflow, match=refused):
        plan(Settings(need_tokens=500_000, kv_type="q8_0", gpu_layers=-1), available=64 * GIB, gpu=64 * GIB)


def test_settings_that_cannot_hold_are_refused() -> None:
    with pytest.raises(GroupAttentionError, match="doesn't fit the trained window"):
        plan(Settings(ga_n=4, ga_w=9000))


@pytest.mark.parametrize(("available", "kv_type"), [(16 * GIB, "f16"), (5 * GIB // 8, "q8_0"), (3 * GIB // 8, "q4_0")])
def test_the_kv_type_is_the_first_that_fits_and_says_why(available: int, kv_type: str) -> None:
    made = plan(Settings(n_ctx=32_768, kv_type="auto"), available)
    assert (made.kv_type, made.n_ctx) == (kv_type, 32_768)
    reason = f" {kv_type}, since with f16 815 MiB were needed and {available >> 20:,} MiB are free"
    assert made.describe().endswith("MiB f16" if kv_type == "f16" else reason)


def test_without_a_need_a_smaller_type_goes_before_a_shorter_context() -> None:
    assert plan(Settings(kv_type="auto"), GIB // 2).n_ctx == 4 * WINDOW
    made = plan(Settings(kv_type="auto"), GIB // 4)
    assert (made.kv_type, made.n_ctx) == ("q4_0", 2 * WINDOW)


def test_what_no_type_holds_is_refused_with_the_figures_of_the_last() -> None:
    with pytest.raises(MemoryBudgetError, match=r"65,536 tokens needs 500 MiB.*q4_0.*256 MiB are available. Take a shorter text"):
        plan(Settings(n_ctx=65_536, kv_type="auto"), GIB // 4)


def test_a_type_that_a_model_doesn_t_take_is_passed_over() -> None:
    def measure(shape: Shape) -> Use:
        if shape.kv_type != "f16":
            raise ModelError("K can't be q8_0")
        return Use(GIB, GIB)

    with pytest.raises(MemoryBudgetError, match="f16"):
        make_plan(Settings(n_ctx=512, kv_type="auto"), WINDOW, sliding_window=0, memory=Memory(GIB), measure=measure)


@pytest.mark.parametrize(("gpu", "layers"), [(0, 0), (500_000_000, 12), (16 * GIB, 31)], ids=["none", "small", "large"])
def test_as_many_layers_as_the_free_gpu_memory_holds(gpu: int, layers: int) -> None:
    made = plan(Settings(n_ctx=32_768, gpu_layers="auto"), gpu=gpu)
    # a layer takes 10 MB of weights and 25.2 MB of keys and values
    assert made.gpu_layers == layers
    assert ("layers on the GPU" in made.describe()) == (gpu > 0)


def test_layers_that_the_gpu_doesn_t_hold_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(MemoryBudgetError, match=r"31 layers .* need 1,016 MiB .* 477 MiB are free. Take --gpu-layers 12"):
        plan(Settings(n_ctx=32_768, kv_type="f16", gpu_layers=-1), gpu=500_000_000)
    assert plan(Settings(n_ctx=32_768, kv_type="f16", gpu_layers=12), gpu=500_000_000).gpu_layers == 12


def test_what_lies_on_the_gpu_is_not_asked_of_the_host() -> None:
    made = plan(Settings(n_ctx=32_768, kv_type="auto", gpu_layers="auto"), GIB // 4, gpu=16 * GIB)
    assert (made.kv_type, made.gpu_layers) == ("f16", 31)


# What is chosen between groups and recall


def test_recall_leaves_nothing_out_while_the_trained_window_holds_the_text() -> None:
    recall = Settings(ga_mode="recall")
    assert not group_attention_for(recall, WINDOW, WINDOW).enabled
    assert group_attention_for(recall, WINDOW + 1, WINDOW) == fetching(2048, None, WINDOW)
    growth = next_growth(recall, group_attention_for(recall, 100, WINDOW), 100, 4 * WINDOW, WINDOW)
    assert growth == (WINDOW + 1, fetching(2048, None, WINDOW))


@pytest.mark.parametrize(
    ("n_tokens", "window", "sliding", "label"),
    [
        (3000, 8192, 0, "n=1"),
        (8192, 8192, 0, "n=2, w=1024, progressive"),
        (8193, 8192, 0, "recall of 2,048, w=1024"),
        (24_576, 8192, 0, "recall of 2,048, w=1024"),
        (24_577, 8192, 0, "recall of 1,024, w=640"),
        (100_000, 32_768, 0, "recall of 2,048, w=2560"),
        (8192, 1024, 0, "n=64, w=128, progressive"),
        (8193, 1024, 0, "recall of 256, w=128"),
        (65_536, 32_768, 512, "n=16, w=4096, progressive"),
        (1000, 128, 0, "n=64, w=16, progressive"),
    ],
)
def test_the_automatic_choice(n_tokens: int, window: int, sliding: int, label: str) -> None:
    assert group_attention_for(Settings(), n_tokens, window, sliding).label == label


@pytest.mark.parametrize(
    "settings",
    [
        Settings(ga_w=512),
        Settings(ga_fraction=0.5),
        Settings(ga_n=8),
        Settings(ga_mode="progressive"),
        Settings(ga_recall=0),
        Settings(groups_only="a reason"),
    ],
)
def test_who_asks_for_groups_gets_groups(settings: Settings) -> None:
    assert not group_attention_for(settings, 20_000, WINDOW).recall


@pytest.mark.parametrize(("gpu", "kv_type", "recalls"), [(0, "q4_0", True), (8 * GIB, "f16", True), (8 * GIB, "q8_0", False)])
def test_a_quantised_cache_on_a_gpu_keeps_groups(gpu: int, kv_type: str, recalls: bool) -> None:
    made = plan(Settings(need_tokens=20_000, kv_type=kv_type, gpu_layers=-1 if gpu else 0), gpu=gpu)
    assert bool(made.group_attention.recall) == recalls
    assert recalls == (not made.groups_only)


def test_without_flash_attention_there_is_no_recall() -> None:
    shape = Shape(WINDOW, "f16", 0, flash_attn=False)
    assert "flash attention" in restricted(Settings(), shape).groups_only


def test_a_growing_text_goes_from_plain_to_groups_to_recall() -> None:
    seen, length = [group_attention_for(Settings(), 1, WINDOW)], 1
    while growth := next_growth(Settings(), seen[-1], length, 4 * WINDOW, WINDOW):
        length, ga = growth
        seen.append(ga)
    forms = ["n=1", "n=2, w=1024, progressive", "recall of 2,048, w=1024", "recall of 1,024, w=640"]
    assert [ga.label for ga in seen] == forms
    assert length == 3 * WINDOW + 1


@pytest.mark.parametrize(
    ("settings", "n_tokens", "words"),
    [
        (Settings(), 100, "bit for bit"),
        (Settings(), 8000, "finds less than groups"),
        (Settings(), 9000, "beyond 8,192 tokens recall"),
        (Settings(ga_mode="recall"), 100, "nothing is left out"),
        (Settings(groups_only="recall takes no q8_0 cache on a GPU"), 9000, "on a GPU"),
        (Settings(ga_n=4), 9000, "asked for"),
        (Settings(tuned=True, ga_w=512), 9000, "selfextend tune"),
    ],
)
def test_it_says_why(settings: Settings, n_tokens: int, words: str) -> None:
    assert words in why(settings, n_tokens, WINDOW)


def test_it_says_why_small_windows_and_sliding_ones_keep_groups() -> None:
    assert "up to 8,192 tokens groups" in why(Settings(), 4096, 1024)
    assert "sliding-window" in why(Settings(), 65_536, 32_768, 512)


# A KV cache in a file


def filed(settings: Settings, available: int, disk: int) -> ContextPlan:
    def measure(shape: Shape) -> Use:
        kv_cache = int(shape.n_ctx * BYTES_PER_TOKEN * SIZES[shape.kv_type])
        return Use(kv_cache, COMPUTE + (0 if shape.in_file else kv_cache), 0, kv_cache if shape.in_file else 0)

    return make_plan(settings, WINDOW, sliding_window=0, memory=Memory(available, 0, disk), n_layers=31, measure=measure)


def test_a_cache_that_memory_does_not_hold_goes_into_a_file_where_recall_reads_it() -> None:
    made = filed(Settings(need_tokens=260_000), 5 * GIB // 4, 100 * GIB)
    assert made.in_file
    assert made.describe().endswith("KV cache 5,715 MiB f16 in a file, since with f16 5,810 MiB were needed and 1,280 MiB are free")
    assert not filed(Settings(need_tokens=260_000), 16 * GIB, 100 * GIB).in_file
    assert filed(Settings(need_tokens=260_000, kv_file="on"), 16 * GIB, 100 * GIB).in_file


@pytest.mark.parametrize(
    ("settings", "available", "disk", "words"),
    [
        (Settings(need_tokens=260_000, kv_file="off"), GIB, 100 * GIB, "Take a shorter text"),
        (Settings(need_tokens=260_000), GIB // 4, 100 * GIB, "Take a shorter text"),  # not even what is compared at a time
        (Settings(need_tokens=260_000, kv_file="on"), GIB, 2 * GIB, "5,715 MiB of disk, 2,048 MiB are free. Take --kv-file FOLDER"),
        (Settings(need_tokens=260_000, kv_file="on", ga_mode="progressive"), GIB, 100 * GIB, "take --ga-mode recall"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(settings: Settings, available: int, disk: int, words: str) -> None:
    with pytest.raises(MemoryBudgetError, match=words):
        filed(settings, available, disk)
