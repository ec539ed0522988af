"""The flags of the engine, the same in every command, with the defaults of Settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from selfextend_local.engine.plan import AUTO_KV_TYPES, Settings

from .types import NumberOrAuto

F = TypeVar("F", bound=Callable[..., Any])

USUAL = Settings()
POSITIVE_OR_AUTO = NumberOrAuto(1)
GROUP_MODES = ("auto", "two-level", "progressive", "recall")
GROUP_MODES_HELP = (
    "progressive: the farther, the larger the group. recall: far text is fetched as it is needed. "
    "auto: as tuned, else what was measured best for the length: selfextend plan --why."
)
TEMPERATURE_HELP = "Sharpen attention beyond the trained window L: queries at i times 1 + C ln(i/L)."
KV_TYPES = click.Choice(["auto", *AUTO_KV_TYPES])

_KV_TYPE_HELP = "KV cache; auto = the first of f16, q8_0 and q4_0 that fits the free memory."
_KV_FILE_HELP = "KV cache in a file: auto = where recall reads a text whose cache memory doesn't hold; or off, on, or a folder."
_GPU_LAYERS_HELP = "Layers on the GPU; -1 = all, auto = what its free memory holds."

threads = click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores.")
gpu_layers = click.option(
    "--gpu-layers", type=NumberOrAuto(-1, ", which means all"), default=USUAL.gpu_layers, show_default=True, help=_GPU_LAYERS_HELP
)


def kv_type(default: str) -> Callable[[F], F]:
    """--kv-type, with its default."""
    return click.option("--kv-type", type=KV_TYPES, default=default, show_default=True, help=_KV_TYPE_HELP)


def engine(default_kv_type: str = USUAL.kv_type) -> Callable[[F], F]:
    """All flags of the engine."""
    flags = (
        click.option("--ga-n", type=POSITIVE_OR_AUTO, default=USUAL.ga_n, show_default=True, help="Group size of SelfExtend."),
        click.option("--ga-w", type=click.IntRange(1), metavar="TOKENS", help="Neighbour window. Default: 1/8 of the trained one."),
        click.option("--ga-mode", type=click.Choice(GROUP_MODES), default=USUAL.ga_mode, show_default=True, help=GROUP_MODES_HELP),
        click.option("--ga-temperature", metavar="C", type=click.FloatRange(0, 10),
                     help=f"{TEMPERATURE_HELP} Default: as tuned, else 0."),  # fmt: skip
        click.option("--ga-recall", type=click.IntRange(1), metavar="TOKENS",
                     help="Far tokens fetched. Default with --ga-mode recall: 2048, fewer with a small window or much text."),  # fmt: skip
        kv_type(default_kv_type),
        click.option("--kv-file", metavar="auto|off|on|FOLDER", default=USUAL.kv_file, show_default=True, help=_KV_FILE_HELP),
        threads,
        gpu_layers,
    )

    def add(function: F) -> F:
        for flag in reversed(flags):
            function = flag(function)
        return function

    return add


def taken(flags: dict[str, Any]) -> Settings:
    """Take the flags of the engine out of `flags`."""
    names = ("ga_n", "ga_w", "ga_mode", "ga_temperature", "ga_recall", "kv_type", "kv_file", "threads", "gpu_layers")
    return Settings(**{name: flags.pop(name) for name in names})
