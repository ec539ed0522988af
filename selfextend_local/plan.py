"""The plan for a context: group attention, n_ctx and the memory it takes, decided before anything is allocated.

Knows positions and figures. It loads nothing and asks no library: the caller brings the measured memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import ContextOverflow, MemoryBudgetError
from .positions import RELIABLE_FRACTION, GroupAttention, choose, fixed, reach

GroupSize = int | Literal["auto"]

DEFAULT_EXTENSION = 4
"""Without a known need, the context is this many trained windows long, if the memory allows."""

MEMORY_SHARE = 0.9
"""Share of the available memory that a context may take; the rest is for the process itself and its neighbours."""

_PADDING = 256
_MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What a user asked for. `n_ctx` is the size of the context in tokens, `need_tokens` what it has to hold.

    `ga_fraction` None means RELIABLE_FRACTION. `tuned`: a profile of this model filled in what the user left open.
    """

    ga_n: GroupSize = "auto"
    ga_w: int | None = None
    ga_fraction: float | None = None
    n_ctx: int | None = None
    need_tokens: int | None = None
    kv_type: str = "f16"
    tuned: bool = False

    @property
    def fraction(self) -> float:
        """Share of the trained window to rely on."""
        return RELIABLE_FRACTION if self.ga_fraction is None else self.ga_fraction


@dataclass(frozen=True)
class ContextPlan:
    """A context that fits: sizes in tokens, `kv_bytes` of KV cache (None if the library can't tell).

    `group_attention` is the one for a text of `planned_tokens`; the automatic choice begins with the plain model and
    grows up to it. `capacity` is the most tokens that the context can ever hold.
    """

    n_ctx: int
    n_ctx_train: int
    capacity: int
    group_attention: GroupAttention
    kv_type: str
    kv_bytes: int | None
    tuned: bool = False

    def describe(self) -> str:
        """One line, such as "trained 8,192 → up to 31,900 tokens (n=8, w=1024), KV cache 720 MiB f16"."""
        ga = self.group_attention
        group = (f"n={ga.n}, w={ga.w}" if ga.enabled else "n=1") + (", tuned" if self.tuned else "")
        size = "" if self.kv_bytes is None else f", KV cache {self.kv_bytes / _MIB:,.0f} MiB {self.kv_type}"
        return f"trained {self.n_ctx_train:,} → up to {self.capacity:,} tokens ({group}){size}"


def check_settings(settings: Settings, window: int, sliding_window: int = 0) -> int:
    """The most tokens that these settings can read with a trained window. Raises GroupAttentionError."""
    if settings.ga_n == "auto":
        choose(1, window, w=settings.ga_w, fraction=settings.fraction, sliding_window=sliding_window)
        return reach(window, w=settings.ga_w, sliding_window=sliding_window)
    return fixed(settings.ga_n, settings.ga_w, window, sliding_window).capacity(window)


def group_attention_for(settings: Settings, n_tokens: int, window: int, sliding_window: int = 0) -> GroupAttention:
    """The (n, w, r) that these settings mean for a text of `n_tokens`."""
    if settings.ga_n == "auto":
        return choose(
            n_tokens, window, w=settings.ga_w, fraction=settings.fraction, sliding_window=sliding_window
        )
    return fixed(settings.ga_n, settings.ga_w, window, sliding_window)


def next_growth(
    settings: Settings, n: int, n_tokens: int, capacity: int, window: int, sliding_window: int = 0
) -> tuple[int, int] | None:
    """(length, group size): where the group grows beyond `n` for a text that has `n_tokens` now; None if it doesn't up to
    `capacity`."""

    def size(length: int) -> int:
        return group_attention_for(settings, length, window, sliding_window).n

    low, high = n_tokens + 1, capacity
    if high < low or size(high) <= n:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) > n else (middle + 1, high)
    return low, size(low)


def make_plan(
    settings: Settings,
    window: int,
    *,
    sliding_window: int,
    available_bytes: int,
    measure: Callable[[int], tuple[int, int] | None],
) -> ContextPlan:
    """Size a context.

    `window` is the trained one; `measure(n_ctx)` returns (bytes of KV cache, bytes to allocate in all), or None if they
    can't be known. Raises GroupAttentionError, ContextOverflow, MemoryBudgetError.
    """
    most = check_settings(settings, window, sliding_window)
    wanted = settings.n_ctx or settings.need_tokens
    if wanted is None:
        n_ctx = _largest_that_fits(min(most, DEFAULT_EXTENSION * window), window, available_bytes, measure)
    else:
        if wanted > most:
            raise overflow(settings, wanted, most, window, sliding_window)
        n_ctx = _padded(wanted)
    measured = measure(n_ctx)
    if measured is not None and measured[1] > MEMORY_SHARE * available_bytes:
        raise MemoryBudgetError(
            f"A context of {n_ctx:,} tokens needs {measured[1] / _MIB:,.0f} MiB ({measured[0] / _MIB:,.0f} MiB of KV cache, "
            f"{settings.kv_type}), {available_bytes / _MIB:,.0f} MiB are available. {_cheaper(settings)}"
        )
    capacity = min(n_ctx, most)
    planned = settings.need_tokens or capacity
    return ContextPlan(
        n_ctx=n_ctx,
        n_ctx_train=window,
        capacity=capacity,
        group_attention=group_attention_for(settings, planned, window, sliding_window),
        kv_type=settings.kv_type,
        kv_bytes=None if measured is None else measured[0],
        tuned=settings.tuned,
    )


def overflow(settings: Settings, n_tokens: int, capacity: int, window: int, sliding_window: int = 0) -> ContextOverflow:
    """The error for a text that is too long, with the setting that would fit it."""
    over = f"{n_tokens:,} tokens are {n_tokens - capacity:,} more than the {capacity:,} that fit"
    auto = reach(window, w=settings.ga_w, sliding_window=sliding_window)
    if settings.ga_n != "auto" and n_tokens <= auto:
        needed = choose(n_tokens, window, w=settings.ga_w, sliding_window=sliding_window)
        advice = f"Take --ga-n {needed.n}, or --ga-n auto."
    elif n_tokens <= auto:
        advice = f"Take n_ctx={_padded(n_tokens)} or more."
    else:
        advice = (
            f"At most {auto:,} tokens can be read with a trained window of {window:,}: shorten the text, or take a model "
            "with a longer window."
        )
    return ContextOverflow(f"{over}. {advice}", n_tokens, capacity)


def _largest_that_fits(
    most: int, window: int, available_bytes: int, measure: Callable[[int], tuple[int, int] | None]
) -> int:
    n_ctx = _padded(most)
    while n_ctx > min(window, most):
        measured = measure(n_ctx)
        if measured is None or measured[1] <= MEMORY_SHARE * available_bytes:
            break
        n_ctx = _padded(n_ctx // 2)
    return max(n_ctx, min(window, _padded(most)))


def _cheaper(settings: Settings) -> str:
    if settings.kv_type in ("f32", "f16"):
        return "Take --kv-type q8_0 (half the KV cache) or a shorter text."
    if settings.kv_type == "q8_0":
        return "Take --kv-type q4_0 (half the KV cache) or a shorter text."
    return "Take a shorter text or a smaller model."


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // _PADDING) * _PADDING
