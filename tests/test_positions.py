"""The arithmetic of positions: its properties, and the figures that the design promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfextend_local.engine.plan import Settings, group_attention_for
from selfextend_local.errors import GroupAttentionError
from selfextend_local.positions import (
    MAX_GROUP_SIZE,
    RECALL_SINKS,
    RELIABLE_FRACTION,
    GroupAttention,
    choose,
    default_neighbours,
    default_step,
    fetching,
    fixed,
    reach,
)


@st.composite
def settings(draw: st.DrawFn) -> GroupAttention:
    progressive = draw(st.booleans())
    n = draw(st.sampled_from((1, 2, 4, 8, 16)) if progressive else st.integers(1, 16))
    return GroupAttention(n, draw(st.integers(1, 300)), n * draw(st.integers(1, 20)), progressive)


@given(settings(), st.integers(0, 4000))
def test_the_last_w_keys_are_seen_at_their_exact_distance(ga: GroupAttention, i: int) -> None:
    for j in range(max(0, i - ga.w), i + 1):
        assert ga.relative_position(i, j) == i - j


@pytest.mark.slow
@given(settings(), st.integers(0, 4000))
def test_rotations_never_decrease_along_the_text_and_nothing_is_seen_from_ahead(ga: GroupAttention, i: int) -> None:
    b = ga.borders(i)
    rotations = [ga.rotation(j, b) for j in range(i + 1)]
    assert all(0 <= step <= 1 for step in (y - x for x, y in zip(rotations, rotations[1:], strict=False)))
    assert rotations[0] == 0


@given(settings(), st.integers(0, 4000))
def test_the_exact_window_breathes_between_w_and_w_plus_r(ga: GroupAttention, i: int) -> None:
    exact = i + 1 - ga.boundary(i)
    if ga.enabled and ga.boundary(i) > 0:
        assert ga.w + 1 <= exact <= ga.w + ga.r
    else:
        assert exact == i + 1


@pytest.mark.slow
@given(settings(), st.integers(1, 3000))
def test_the_boundary_depends_on_the_place_in_the_text_alone(ga: GroupAttention, n_tokens: int) -> None:
    steps = {ga.boundary(i) for i in range(n_tokens)}
    assert steps == {k * ga.r for k in range(len(steps))}


@pytest.mark.slow
@given(settings(), st.integers(1, 2000))
def test_largest_rotation_is_the_largest(ga: GroupAttention, n_tokens: int) -> None:
    assert ga.largest_rotation(n_tokens) == max(ga.rotation(i, ga.borders(i)) for i in range(n_tokens))


@given(settings(), st.integers(1, 600))
def test_capacity_is_tight(ga: GroupAttention, window: int) -> None:
    capacity = ga.capacity(window)
    assert ga.largest_rotation(capacity) < window
    assert ga.largest_rotation(capacity + 1) >= window


@given(st.integers(1, 200_000), st.integers(256, 32_768))
def test_the_automatic_choice_grows_with_the_text_and_stays_plain_while_it_fits(n_tokens: int, window: int) -> None:
    ga = choose(n_tokens, window)
    assert ga.n in (1, 2, 4, 8, 16, 32, 64)
    assert ga.enabled == (n_tokens > int(window * RELIABLE_FRACTION))
    assert choose(n_tokens + 1, window).n >= ga.n
    if ga.enabled and ga.n < MAX_GROUP_SIZE:
        assert ga.largest_rotation(n_tokens) < window * RELIABLE_FRACTION


@pytest.mark.slow
@given(st.integers(1, 200_000), st.integers(256, 32_768))
def test_progressive_groups_grow_with_the_text_as_far_as_it_reaches(n_tokens: int, window: int) -> None:
    ga = choose(n_tokens, window, progressive=True)
    assert ga.enabled == (n_tokens > int(window * RELIABLE_FRACTION))
    assert choose(n_tokens + 1, window, progressive=True).n >= ga.n
    if ga.enabled and ga.largest_rotation(n_tokens) >= window * RELIABLE_FRACTION:
        assert ga.largest_rotation(n_tokens) == fixed(MAX_GROUP_SIZE, None, window, progressive=True).largest_rotation(n_tokens)


def _keys_moved(ga: GroupAttention, n_tokens: int) -> int:
    """By all steps of the borders over a text: keys from the farthest border that moves on."""
    moved, before = 0, ga.borders(0)
    for i in range(0, n_tokens, ga.r):
        borders = ga.borders(i)
        moved += max((i - old for old, new in zip(before, borders, strict=True) if old != new), default=0)
        before = borders
    return moved


@pytest.mark.parametrize("windows", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("window", [2048, 8192, 32_768])
@pytest.mark.parametrize("n", [16, 32, 64])
def test_steps_of_progressive_groups_move_less_than_twice_the_keys_of_two_levels(n: int, window: int, windows: int) -> None:
    far, two = (_keys_moved(fixed(n, None, window, progressive=progressive), windows * window) for progressive in (True, False))
    assert far < 2 * two


def test_the_design_s_figures() -> None:
    # Largest rotations behind the passkey table of the design: the first three found every key, the last lost half.
    assert GroupAttention(8, 512, 512).largest_rotation(16_384) == 2943
    assert GroupAttention(16, 1024, 512).largest_rotation(16_384) == 2463
    assert GroupAttention(32, 1024, 512).largest_rotation(65_536) == 3535
    assert GroupAttention(4, 1024, 512).largest_rotation(16_384) == 5247
    assert choose(16_384, 8192) == GroupAttention(16, 1024, 512)


def test_defaults_scale_with_the_window() -> None:
    assert (default_step(8192), default_neighbours(8192)) == (512, 1024)
    assert (default_step(256), default_neighbours(256)) == (16, 32)
    assert default_neighbours(8192, sliding_window=1500) == 1536
    assert default_neighbours(131_072) == 4096
    assert reach(8192) == GroupAttention(64, 1024, 512).capacity(8192)


@pytest.mark.parametrize(("n", "w", "message"), [(0, 512, "1 or more"), (4, 0, "1 or more"), (3, 512, "power of two")])
def test_invalid_settings_are_refused(n: int, w: int, message: str) -> None:
    with pytest.raises(GroupAttentionError, match=message):
        fixed(n, w, 8192)


def test_a_window_that_cannot_hold_is_refused_with_one_that_can() -> None:
    with pytest.raises(GroupAttentionError, match="at most 7,680. Take --ga-w 1024"):
        fixed(4, 8192, 8192)


def test_fractions_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(GroupAttentionError, match="fraction"):
        choose(1, 8192, fraction=1.5)


def test_recall_leaves_nothing_out_of_a_text_that_fits() -> None:
    ga = fetching(2048, None, 8192)
    assert (ga.mode, ga.label) == ("recall", "recall of 2,048, w=1024")
    first = next(i for i in range(8192) if ga.borders(i)[0])
    assert (first - ga.w) % ga.r == 0
    assert 0 < first - ga.w - RECALL_SINKS - ga.recall <= ga.r
    assert ga.largest_rotation(first) == first - 1
    assert ga.largest_rotation(1_000_000) < ga.capacity(8192)


@pytest.mark.parametrize(("recall", "w", "sliding"), [(2050, None, 0), (8192, None, 0), (2048, 6000, 0), (2048, 512, 1024)])
def test_recall_that_does_not_fit_is_refused(recall: int, w: int | None, sliding: int) -> None:
    with pytest.raises(GroupAttentionError):
        fetching(recall, w, 8192, sliding)


@pytest.mark.parametrize(("window", "fetched"), [(131_072, 2048), (16_384, 2048), (8192, 2048), (4096, 1216), (2048, 576), (1024, 256)])
def test_recall_that_nobody_sized_fits_half_of_the_window(window: int, fetched: int) -> None:
    ga = fetching(None, None, window)
    assert ga.recall == fetched
    assert RECALL_SINKS + ga.recall + ga.w + ga.r <= window // 2


@pytest.mark.parametrize(
    ("window", "w", "r", "fetched"),
    [(131_072, 4096, 256, 2048), (32_768, 2560, 128, 2048), (8192, 640, 64, 1024), (1024, 128, 64, 256), (512, 64, 32, 96)],
)
def test_recall_of_a_long_text_has_fewer_near_tokens_and_smaller_steps(window: int, w: int, r: int, fetched: int) -> None:
    ga = fetching(None, None, window, n_tokens=3 * window + 1)
    assert (ga.w, ga.r, ga.recall) == (w, r, fetched)
    shorter = fetching(None, None, window, n_tokens=3 * window)
    assert (shorter.w, shorter.r) == (default_neighbours(window), max(32, default_step(window)))


@pytest.mark.parametrize("settings", [Settings(ga_n=4, ga_mode="recall"), Settings(ga_mode="two-level", ga_recall=64)])
def test_recall_takes_no_groups(settings: Settings) -> None:
    with pytest.raises(GroupAttentionError):
        group_attention_for(settings, 10_000, 8192)
