"""The plan for a context: group attention, n_ctx and the memory it takes, decided before anything is allocated.

Knows positions and figures. It loads nothing and asks no library: the caller brings the measured memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from selfextend_local.errors import ContextOverflow, GroupAttentionError, MemoryBudgetError, ModelError
from selfextend_local.positions import (
    INSIDE_GROUP_SIZE,
    RECALL_FIRST,
    RECALL_REACH,
    RELIABLE_FRACTION,
    GroupAttention,
    GroupForm,
    choose,
    fetching,
    fixed,
    reach,
    recall_from,
)

GroupSize = int | Literal["auto"]
GpuLayers = int | Literal["auto"]
GroupMode = Literal["auto"] | GroupForm

DEFAULT_EXTENSION = 4
"""Without a known need, the context is this many trained windows long, if the memory allows."""

MEMORY_SHARE = 0.9
"""Share of the available memory that a context may take; the rest is for the process itself and its neighbours."""

AUTO_KV_TYPES = ("f16", "q8_0", "q4_0")
"""What kv_type "auto" means: the first that fits. Each takes about half of the one before, and loses a little more."""

_HELD = RECALL_FIRST + (1 << 13)
"""Tokens of a KV cache in a file that memory should hold."""

_PADDING = 256
_MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What a user asked for, and the one place with its defaults. `n_ctx` is the size of the context in tokens, `need_tokens` what
    it has to hold.

    `ga_recall` is how many far tokens are fetched, with `ga_mode` "recall" or "auto"; None means as many as
    `positions.fetching` says for the length and the trained window.
    `ga_mode` "auto" is as tuned, else recall where the text is long enough (`positions.recall_from`) and nothing else is given,
    progressive below while n is chosen too, and the paper's two levels for an n that was given. `groups_only`: why the
    automatic choice can't recall.
    `ga_fraction` None means RELIABLE_FRACTION. `kv_type` "auto" is the first of AUTO_KV_TYPES that fits; `gpu_layers` "auto"
    as many as the GPU's free memory holds, -1 all. `kv_file`: whether the KV cache lies in a file: "off", "on", a folder to have it in, or
    "auto": where recall reads a text whose cache memory doesn't hold. `threads` None: the physical cores. `ga_temperature` is as in
    `SelfExtendLlama`, None means as tuned, else 0. `tuned`: a profile of this model filled in what the user left open.
    """

    ga_n: GroupSize = "auto"
    ga_w: int | None = None
    ga_fraction: float | None = None
    n_ctx: int | None = None
    need_tokens: int | None = None
    kv_type: str = "auto"
    gpu_layers: GpuLayers = "auto"
    tuned: bool = False
    ga_mode: GroupMode = "auto"
    threads: int | None = None
    ga_temperature: float | None = None
    ga_recall: int | None = None
    groups_only: str = ""
    kv_file: str = "auto"

    @property
    def chooses(self) -> bool:
        """Whether nothing is given that decides between groups and recall."""
        given = (self.ga_w, self.ga_fraction, self.ga_recall)
        return self.ga_mode == self.ga_n == "auto" and given == (None, None, None) and not self.groups_only

    @property
    def recalls(self) -> bool:
        """Whether far tokens are fetched instead of grouped."""
        return self.ga_recall != 0 if self.ga_mode == "recall" else self.ga_mode == "auto" and bool(self.ga_recall)

    @property
    def progressive(self) -> bool:
        """Whether groups grow with the distance."""
        return self.ga_mode == "progressive" or (self.ga_mode == "auto" and self.ga_n == "auto")

    @property
    def fraction(self) -> float:
        """Share of the trained window to rely on."""
        return RELIABLE_FRACTION if self.ga_fraction is None else self.ga_fraction


@dataclass(frozen=True)
class Memory:
    """Bytes that are free: on the host, on GPUs (0 = there is none), and on the disk for a KV cache."""

    host: int
    gpu: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Use:
    """Bytes that a context takes: its KV cache wherever it lies; what is allocated on the host; what on GPUs, weights included;
    what of the KV cache lies in a file."""

    kv_cache: int
    host: int
    gpu: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Shape:
    """What decides how much memory a context takes: tokens, KV cache type, layers on the GPU, flash attention, a KV cache in a file."""

    n_ctx: int
    kv_type: str
    gpu_layers: int
    flash_attn: bool
    in_file: bool = False

    @property
    def held(self) -> float:
        """The share of a KV cache in a file that memory should hold: what recall compares and fetches at a time."""
        return min(1.0, _HELD / self.n_ctx) if self.in_file else 0.0


Measure = Callable[[Shape], Use | None]
"""What a context takes, or None if the library can't tell."""


@dataclass(frozen=True)
class ContextPlan:
    """A context that fits: sizes in tokens, `kv_bytes` of KV cache (None if the library can't tell).

    `group_attention` is the one for a text of `planned_tokens`; the automatic choice begins with the plain model and
    grows up to it. `capacity` is the most tokens that the context can ever hold. `groups_only`: why it never goes over to recall.
    """

    n_ctx: int
    n_ctx_train: int
    capacity: int
    group_attention: GroupAttention
    kv_type: str
    kv_bytes: int | None
    tuned: bool = False
    gpu_layers: int = 0
    flash_attn: bool = True
    reasons: tuple[str, ...] = ()
    groups_only: str = ""
    in_file: bool = False

    def describe(self) -> str:
        """One line, such as "trained 8,192 → up to 31,900 tokens (n=8, w=1024), KV cache 720 MiB f16", and why where it was
        chosen from the memory at hand."""
        group = self.group_attention.label + (", tuned" if self.tuned else "")
        where = " in a file" if self.in_file else ""
        size = "" if self.kv_bytes is None else f", KV cache {self.kv_bytes / _MIB:,.0f} MiB {self.kv_type}{where}"
        return ", ".join((f"trained {self.n_ctx_train:,} → up to {self.capacity:,} tokens ({group}){size}", *self.reasons))


def check_settings(settings: Settings, window: int, sliding_window: int = 0) -> int:
    """The most tokens that these settings can read with a trained window. Raises GroupAttentionError."""
    if settings.recalls:
        return group_attention_for(settings, window + 1, window, sliding_window).capacity(window)
    if settings.ga_n == "auto":
        group_attention_for(settings, 1, window, sliding_window)
        return _auto_reach(settings, window, sliding_window)
    return fixed(settings.ga_n, settings.ga_w, window, sliding_window, settings.progressive).capacity(window)


def _auto_reach(settings: Settings, window: int, sliding_window: int) -> int:
    """The most tokens that the automatic choice reads: as far as recall reaches where it may take it, else as groups do."""
    if settings.chooses and recall_from(window, sliding_window) < RECALL_REACH:
        return RECALL_REACH
    return reach(window, w=settings.ga_w, sliding_window=sliding_window, progressive=settings.progressive)


def group_attention_for(settings: Settings, n_tokens: int, window: int, sliding_window: int = 0) -> GroupAttention:
    """The (n, w, r) that these settings mean for a text of `n_tokens`."""
    if settings.ga_recall is not None and settings.ga_mode not in ("auto", "recall"):
        raise GroupAttentionError(f"--ga-recall goes with --ga-mode recall, not {settings.ga_mode}.")
    if settings.recalls:
        if settings.ga_n not in ("auto", 1):
            raise GroupAttentionError(f"Recall takes no groups: leave --ga-n {settings.ga_n} out.")
        recall = fetching(settings.ga_recall, settings.ga_w, window, sliding_window, n_tokens)
        # Nothing is left out of a text that the trained window holds.
        return recall if n_tokens > window else replace(recall, recall=0)
    if settings.chooses and n_tokens > recall_from(window, sliding_window):
        return fetching(None, None, window, n_tokens=n_tokens)
    if settings.ga_n == "auto":
        ga = choose(
            n_tokens,
            window,
            w=settings.ga_w,
            fraction=settings.fraction,
            sliding_window=sliding_window,
            progressive=settings.progressive,
        )
        if ga.n > INSIDE_GROUP_SIZE and n_tokens <= window and settings.ga_mode == "auto" and settings.ga_fraction is None:
            return fixed(INSIDE_GROUP_SIZE, settings.ga_w, window, sliding_window, settings.progressive)
        return ga
    return fixed(settings.ga_n, settings.ga_w, window, sliding_window, settings.progressive)


def next_growth(
    settings: Settings, now: GroupAttention, n_tokens: int, capacity: int, window: int, sliding_window: int = 0
) -> tuple[int, GroupAttention] | None:
    """(length, group attention): where a text that has `n_tokens` now, read with `now`, goes over to larger groups or to recall;
    None if it doesn't up to `capacity`."""

    def at(length: int) -> GroupAttention:
        return group_attention_for(settings, length, window, sliding_window)

    low, high = n_tokens + 1, capacity
    if high < low or at(high).stage <= now.stage:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).stage > now.stage else (middle + 1, high)
    return low, at(low)


def make_plan(
    settings: Settings,
    window: int,
    *,
    sliding_window: int,
    memory: Memory,
    measure: Measure,
    n_layers: int = 0,
    flash_attn: bool = True,
) -> ContextPlan:
    """Size a context.

    `window` is the trained one, `n_layers` what can be on a GPU. Raises GroupAttentionError, ContextOverflow,
    MemoryBudgetError.
    """
    most = check_settings(settings, window, sliding_window)
    wanted = settings.n_ctx or settings.need_tokens
    if wanted is not None and wanted > most:
        raise overflow(settings, wanted, most, window, sliding_window)
    first, *others = AUTO_KV_TYPES if settings.kv_type == "auto" else (settings.kv_type,)
    budget = _Budget(settings.gpu_layers, memory, measure, n_layers, flash_attn)
    size = _padded(wanted or min(most, DEFAULT_EXTENSION * window))
    found = [budget.place(size, first)]
    for kv_type in others:
        if not found[-1].fits:
            with suppress(ModelError):  # not every model takes every type
                found.append(budget.place(size, kv_type))
    chosen = found[-1]
    asked = settings.kv_file not in ("auto", "off")
    if asked or (settings.kv_file == "auto" and wanted is not None and not chosen.fits):
        filed = budget.place(size, first, in_file=True)
        there = restricted(settings, filed.shape if memory.gpu else replace(filed.shape, gpu_layers=0))
        recalls = group_attention_for(there, min(size, most), window, sliding_window).recall > 0
        if not recalls and not chosen.fits and asked:
            raise budget.no_recall(chosen)
        if asked or (recalls and filed.fits):
            chosen = filed
            found.append(filed)
    if wanted is None:
        chosen = _shrunk(chosen, min(window, most), budget)
    if not chosen.fits:
        raise budget.refusal(chosen)
    settings = restricted(settings, chosen.shape if memory.gpu else replace(chosen.shape, gpu_layers=0))
    most = check_settings(settings, window, sliding_window)
    if wanted is not None and wanted > most:
        raise overflow(settings, wanted, most, window, sliding_window)
    capacity = min(chosen.shape.n_ctx, most)
    planned = settings.need_tokens or capacity
    return ContextPlan(
        n_ctx=chosen.shape.n_ctx,
        n_ctx_train=window,
        capacity=capacity,
        group_attention=group_attention_for(settings, planned, window, sliding_window),
        kv_type=chosen.shape.kv_type,
        kv_bytes=None if chosen.use is None else chosen.use.kv_cache,
        tuned=settings.tuned,
        gpu_layers=chosen.shape.gpu_layers,
        flash_attn=chosen.shape.flash_attn,
        reasons=budget.reasons(chosen, found),
        groups_only=settings.groups_only,
        in_file=chosen.shape.in_file,
    )


def restricted(settings: Settings, shape: Shape) -> Settings:
    """The settings for such a context, where the library refuses recall."""
    if not shape.flash_attn:
        return replace(settings, groups_only="recall needs flash attention")
    if shape.gpu_layers > 0 and shape.kv_type not in ("f16", "f32"):
        return replace(settings, groups_only=f"recall takes no {shape.kv_type} cache on a GPU")
    return settings


def why(settings: Settings, n_tokens: int, window: int, sliding_window: int = 0) -> str:
    """Why these settings read a text of `n_tokens` as they do, in a sentence. docs/results.md has the figures."""
    ga = group_attention_for(settings, n_tokens, window, sliding_window)
    if settings.tuned:
        return "selfextend tune found it for this model"
    if settings.recalls:
        return "asked for" if ga.recall else "the trained window holds it, so nothing is left out"
    if settings.ga_n != "auto":
        return "asked for"
    start = recall_from(window, sliding_window)
    if ga.recall:
        return f"beyond {start:,} tokens recall finds and answers as much as groups or more, at a price that hardly grows"
    if not ga.enabled:
        return f"it fits {settings.fraction:.3g} of the trained window: the plain model, bit for bit"
    if n_tokens <= window:
        return f"beyond {settings.fraction:.3g} of the trained window the plain model finds less than groups do"
    if n_tokens <= start and settings.chooses:
        return _NO_RECALL if start >= RECALL_REACH else f"up to {start:,} tokens groups name more of what is asked than recall does"
    return settings.groups_only or "asked for"


_NO_RECALL = "recall was never measured on models with sliding-window layers, and needs a window of some hundred tokens"


@dataclass(frozen=True)
class _Placed:
    """A context, what it takes, and whether there is room for it."""

    shape: Shape
    use: Use | None
    fits: bool


@dataclass(frozen=True)
class _Budget:
    gpu_layers: GpuLayers
    memory: Memory
    measure: Measure
    n_layers: int
    flash_attn: bool

    def place(self, n_ctx: int, kv_type: str, *, in_file: bool = False) -> _Placed:
        shape = Shape(n_ctx, kv_type, 0, self.flash_attn, in_file)
        shape = replace(shape, gpu_layers=self._layers(shape))
        use = self.measure(shape)
        fits = use is None or (self._fits_host(use, shape) and self._fits_gpu(use) and self._fits_disk(use))
        return _Placed(shape, use, fits)

    def _fits_host(self, use: Use, shape: Shape) -> bool:
        return use.host + shape.held * use.disk <= MEMORY_SHARE * self.memory.host

    def _fits_disk(self, use: Use) -> bool:
        return use.disk <= MEMORY_SHARE * self.memory.disk

    def _fits_gpu(self, use: Use) -> bool:
        return use.gpu <= MEMORY_SHARE * self.memory.gpu

    def _layers(self, shape: Shape) -> int:
        if self.gpu_layers != "auto":
            return self.n_layers if self.gpu_layers < 0 else self.gpu_layers
        return self._most_layers(shape)

    def _most_layers(self, shape: Shape) -> int:
        if not self.memory.gpu:
            return 0
        low, high = 0, self.n_layers
        while low < high:
            middle = (low + high + 1) // 2
            use = self.measure(replace(shape, gpu_layers=middle))
            low, high = (middle, high) if use is not None and self._fits_gpu(use) else (low, middle - 1)
        return low

    def reasons(self, chosen: _Placed, tried: list[_Placed]) -> tuple[str, ...]:
        """What was chosen from the memory at hand, with the figures."""
        reasons = []
        first = tried[0]
        differs = (chosen.shape.kv_type, chosen.shape.in_file) != (first.shape.kv_type, first.shape.in_file)
        if differs and not first.fits and first.use is not None:
            needed = f"with {first.shape.kv_type} {_mib(first.use.host)} were needed"
            reasons.append(f"since {needed} and {_mib(self.memory.host)} are free")
        if self.gpu_layers == "auto" and self.memory.gpu and chosen.use is not None:
            taken = f"{_mib(chosen.use.gpu)} of the {_mib(self.memory.gpu)} free there"
            reasons.append(f"{chosen.shape.gpu_layers} of {self.n_layers} layers on the GPU ({taken})")
        return tuple(reasons)

    def refusal(self, placed: _Placed) -> MemoryBudgetError:
        """The error for a context that doesn't fit, with the figures and a setting that would."""
        use, shape = placed.use, placed.shape
        assert use is not None  # what can't be measured isn't refused
        if not self._fits_disk(use):
            return MemoryBudgetError(
                f"A KV cache of {shape.n_ctx:,} tokens in a file needs {_mib(use.disk)} of disk, {_mib(self.memory.disk)} are free. "
                "Take --kv-file FOLDER on another disk, --kv-type q8_0 (half of it), or a shorter text."
            )
        if not self._fits_gpu(use):
            there = self._most_layers(shape)
            return MemoryBudgetError(
                f"{shape.gpu_layers} layers on the GPU need {_mib(use.gpu)} there with a context of {shape.n_ctx:,} tokens, "
                f"{_mib(self.memory.gpu)} are free. Take --gpu-layers {there} or auto, or a shorter text."
            )
        return MemoryBudgetError(f"{self._needed(placed)} {_cheaper(shape.kv_type)}")

    def no_recall(self, placed: _Placed) -> MemoryBudgetError:
        """The error for a KV cache in a file that each token would read all of."""
        return MemoryBudgetError(
            f"{self._needed(placed)} In a file each token would read all of it, since recall doesn't read this text: take --ga-mode recall."
        )

    def _needed(self, placed: _Placed) -> str:
        use, shape = placed.use, placed.shape
        assert use is not None
        needed = use.host + int(shape.held * use.disk)
        return (
            f"A context of {shape.n_ctx:,} tokens needs {_mib(needed)} ({_mib(use.kv_cache)} of KV cache, {shape.kv_type}), "
            f"{_mib(self.memory.host)} are available."
        )


def overflow(settings: Settings, n_tokens: int, capacity: int, window: int, sliding_window: int = 0) -> ContextOverflow:
    """The error for a text that is too long, with the setting that would fit it."""
    over = f"{n_tokens:,} tokens are {n_tokens - capacity:,} more than the {capacity:,} that fit"
    auto = _auto_reach(settings, window, sliding_window)
    if settings.ga_n != "auto" and n_tokens <= auto:
        needed = choose(n_tokens, window, w=settings.ga_w, sliding_window=sliding_window, progressive=settings.progressive)
        advice = f"Take --ga-n {needed.n}, or --ga-n auto."
    elif n_tokens <= auto:
        advice = f"Take n_ctx={_padded(n_tokens)} or more."
    else:
        further = auto < RECALL_REACH and not settings.recalls and recall_from(window, sliding_window) < RECALL_REACH
        reason = f", since {settings.groups_only}" if further and settings.groups_only else ""
        recall = "take --ga-mode recall, " if further and not settings.groups_only else ""
        advice = (
            f"At most {auto:,} tokens can be read with a trained window of {window:,}{reason}: {recall}shorten the text, or take a "
            "model with a longer window."
        )
    return ContextOverflow(f"{over}. {advice}", n_tokens, capacity)


def _shrunk(placed: _Placed, least: int, budget: _Budget) -> _Placed:
    n_ctx = placed.shape.n_ctx
    while not placed.fits and n_ctx > _padded(least):
        n_ctx = max(_padded(n_ctx // 2), _padded(least))
        placed = budget.place(n_ctx, placed.shape.kv_type, in_file=placed.shape.in_file)
    return placed


def _cheaper(kv_type: str) -> str:
    if kv_type in ("f32", "f16"):
        return "Take --kv-type q8_0 (half the KV cache) or a shorter text."
    if kv_type == "q8_0":
        return "Take --kv-type q4_0 (half the KV cache) or a shorter text."
    return "Take a shorter text or a smaller model."


def _mib(count: int) -> str:
    return f"{count / _MIB:,.0f} MiB"


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // _PADDING) * _PADDING
