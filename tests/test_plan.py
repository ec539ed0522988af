"""The plan: sizes, memory, and the errors that name the setting which would fit."""

from __future__ import annotations

import pytest

from selfextend_local.errors import ContextOverflow, GroupAttentionError, MemoryBudgetError
from selfextend_local.plan import ContextPlan, Settings, make_plan

GIB = 1 << 30
WINDOW = 8192
BYTES_PER_TOKEN = 23_040  # SmolLM2-135M, f16


def plan(settings: Settings, available: int = 16 * GIB) -> ContextPlan:
    def measure(n_ctx: int) -> tuple[int, int]:
        return n_ctx * BYTES_PER_TOKEN, n_ctx * BYTES_PER_TOKEN + 100_000_000

    return make_plan(settings, WINDOW, sliding_window=0, available_bytes=available, measure=measure)


def test_the_context_is_sized_from_the_need_and_said_in_one_line() -> None:
    made = plan(Settings(need_tokens=12_900))
    assert made.n_ctx == 13_056
    assert made.describe() == "trained 8,192 → up to 13,056 tokens (n=8, w=1024), KV cache 287 MiB f16"


def test_a_short_text_needs_no_groups() -> None:
    made = plan(Settings(need_tokens=3000))
    assert not made.group_attention.enabled
    assert made.describe().startswith("trained 8,192 → up to 3,072 tokens (n=1)")


def test_without_a_need_four_windows_or_what_the_memory_allows() -> None:
    assert plan(Settings()).n_ctx == 4 * WINDOW
    assert plan(Settings(), available=GIB // 2).n_ctx == 2 * WINDOW
    assert plan(Settings(ga_n=1)).n_ctx == WINDOW


def test_too_little_memory_is_refused_with_figures_and_the_next_step() -> None:
    with pytest.raises(MemoryBudgetError, match=r"32,768 tokens needs 815 MiB.*256 MiB are available.*--kv-type q8_0"):
        plan(Settings(n_ctx=32_768), available=GIB // 4)


def test_a_text_too_long_for_a_fixed_n_names_the_n_that_fits() -> None:
    with pytest.raises(ContextOverflow, match=r"tokens are 11,456 more than the 28,544 that fit. Take --ga-n 32") as caught:
        plan(Settings(ga_n=4, need_tokens=40_000))
    assert caught.value.over == 11_456


def test_a_text_beyond_every_n_says_so() -> None:
    with pytest.raises(ContextOverflow, match="At most 428,024 tokens can be read with a trained window of 8,192"):
        plan(Settings(need_tokens=1_000_000))


def test_settings_that_cannot_hold_are_refused() -> None:
    with pytest.raises(GroupAttentionError, match="doesn't fit the trained window"):
        plan(Settings(ga_n=4, ga_w=9000))
