"""The ways to read beyond a trained window that are compared, and what each means for a text of one length.

Knows positions and the names of llama.cpp's context parameters. It loads nothing.

Sources: linear interpolation arXiv:2306.15595; NTK-aware base: base * s^(d/(d-2)) for a text s windows long, d rotary
dimensions (bloc97, 2023); YaRN arXiv:2309.00071, as llama.cpp computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from selfextend_local.engine.plan import GroupMode, GroupSize, Settings, group_attention_for
from selfextend_local.positions import PLAIN, GroupAttention

NAMES = ("plain", "selfextend", "yarn", "ntk", "linear", "upstream")

# enum llama_rope_scaling_type
_LINEAR, _YARN = 1, 2


@dataclass(frozen=True)
class Rotary:
    """What a model file says of its positions: trained window in tokens, base, rotary dimensions, scaling it ships with.

    `tuned`: what the automatic choice has of a profile.
    """

    window: int
    base: float
    dimensions: int
    factor: float = 1.0
    sliding_window: int = 0
    tuned: Settings = Settings()

    @staticmethod
    def of(metadata: Mapping[str, str], window: int, sliding_window: int = 0, tuned: Settings | None = None) -> Rotary:
        """Read from GGUF metadata; the defaults are llama.cpp's."""
        architecture = metadata.get("general.architecture", "")

        def number(key: str, default: float) -> float:
            return float(metadata.get(f"{architecture}.{key}", default))

        heads = max(1.0, number("attention.head_count", 1))
        head = number("attention.key_length", number("embedding_length", 64) / heads)
        return Rotary(
            window=window,
            base=number("rope.freq_base", 10_000.0),
            dimensions=int(number("rope.dimension_count", head)),
            factor=number("rope.scaling.factor", 1.0),
            sliding_window=sliding_window,
            tuned=tuned or Settings(),
        )


@dataclass(frozen=True)
class Setup:
    """A method at one length. `context`: keyword arguments of llama_cpp.Llama; `upstream`: drive its schedule; `temperature`: of
    attention, 0 = off."""

    group_attention: GroupAttention = PLAIN
    upstream: bool = False
    context: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 0.0


@dataclass(frozen=True)
class Method:
    """One column of a comparison: a name of NAMES and, for the two that group, a group size and a neighbour window."""

    name: str
    ga_n: GroupSize = "auto"
    ga_w: int | None = None
    ga_fraction: float | None = None
    ga_mode: GroupMode = "auto"
    ga_temperature: float | None = None
    ga_recall: int | None = None

    @property
    def label(self) -> str:
        """Such as "selfextend auto", "selfextend auto c=0.3" or "upstream n=8 w=1024"."""
        if self.name not in ("selfextend", "upstream"):
            return self.name
        given = "" if self.ga_w is None else f" w={self.ga_w}"
        given += "" if self.ga_temperature is None else f" c={self.ga_temperature:g}"
        if self.ga_mode == "recall":
            return "recall" + ("" if self.ga_recall is None else f" of {self.ga_recall:,}") + given
        size = "auto" if self.ga_n == "auto" else f"n={self.ga_n}"
        # Without a word: what the automatic choice takes, and two levels where n is given.
        mode = f" {self.ga_mode}" if self.ga_mode == "progressive" or (self.ga_mode == "two-level" and self.ga_n == "auto") else ""
        return f"{self.name}{mode} {size}{given}"

    def label_for(self, rotary: Rotary) -> str:
        """The label, and whether a profile of the model decides what it means."""
        decides = self.name == "selfextend" and self.ga_n == "auto" and self.ga_mode != "recall" and rotary.tuned.tuned
        return self.label + (", tuned" if decides else "")

    def _mode(self, tuned: Settings) -> GroupMode:
        if self.name == "upstream":
            return "two-level"
        return tuned.ga_mode if self.ga_mode == "auto" else self.ga_mode

    def setup(self, length: int, rotary: Rotary) -> Setup:
        """What this method does for a text of `length` tokens. Raises GroupAttentionError."""
        stretch = max(1.0, length / rotary.window)
        if self.name in ("selfextend", "upstream"):
            tuned = rotary.tuned if self.ga_n == "auto" and self.ga_mode != "recall" else Settings()
            settings = Settings(
                ga_n=self.ga_n,
                ga_w=tuned.ga_w if self.ga_w is None else self.ga_w,
                ga_fraction=tuned.ga_fraction if self.ga_fraction is None else self.ga_fraction,
                ga_mode=self._mode(tuned),
                ga_recall=self.ga_recall if self.ga_mode == "recall" else None,
                groups_only=rotary.tuned.groups_only,
            )
            ga = group_attention_for(settings, length, rotary.window, rotary.sliding_window)
            if self.name == "selfextend":
                c = tuned.ga_temperature if self.ga_temperature is None else self.ga_temperature
                return Setup(ga, temperature=c or 0.0)
            # Its blocks of w positions are divided by n.
            return Setup(replace(ga, w=-(-ga.w // ga.n) * ga.n) if ga.enabled else ga, upstream=ga.enabled)
        if stretch == 1.0 or self.name == "plain":
            return Setup()
        if self.name == "ntk":
            d = rotary.dimensions
            return Setup(context={"rope_freq_base": rotary.base * stretch ** (d / (d - 2))})
        scale = 1.0 / (stretch * rotary.factor)
        if self.name == "linear":
            return Setup(context={"rope_scaling_type": _LINEAR, "rope_freq_scale": scale})
        return Setup(context={"rope_scaling_type": _YARN, "rope_freq_scale": scale, "yarn_orig_ctx": rotary.window})


def methods(
    names: Sequence[str],
    sizes: Sequence[GroupSize],
    neighbours: Sequence[int | None],
    modes: Sequence[GroupMode] = ("auto",),
    temperatures: Sequence[float | None] = (None,),
    recalls: Sequence[int | None] = (None,),
) -> list[Method]:
    """The columns for `names`, the two grouping ones once for each size and neighbour window, ours for each mode and temperature too,
    recall for each number of tokens."""
    found = []
    for name in names:
        if name == "selfextend":
            for mode in modes:
                every = product(sizes, neighbours, temperatures, recalls if mode == "recall" else (None,))
                found += [Method(name, n, w, ga_mode=mode, ga_temperature=c, ga_recall=recall) for n, w, c, recall in every]
        elif name == "upstream":
            found += [Method(name, n, w) for n in sizes for w in neighbours]
        else:
            found.append(Method(name))
    return found
