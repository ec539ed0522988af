"""The flags that say how answers are drawn, with the defaults of Sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from selfextend_local.generation.sampling import Sampling

from .schema import SchemaFile
from .types import StopText

F = TypeVar("F", bound=Callable[..., Any])

USUAL = Sampling()

LIMITS: dict[str, click.ParamType[Any]] = {
    "max_tokens": click.IntRange(1),
    "temperature": click.FloatRange(0),
    "top_p": click.FloatRange(0, 1),
    "top_k": click.IntRange(0),
    "min_p": click.FloatRange(0, 1),
    "repeat_penalty": click.FloatRange(0.1, 3),
    "dry": click.FloatRange(0, 10),
    "seed": click.IntRange(0, 2**32 - 2),
}
"""What is allowed, on the command line and for /set."""

_HELP = {
    "max_tokens": "Of an answer.",
    "temperature": "0 = the likeliest answer.",
    "repeat_penalty": "Above 1: words said lately become less likely. Small models that go round in circles need 1.1.",
    "dry": "The more, the less an answer says the same words again. Names, numbers and what the document says cost nothing. 0 = off.",
}


def _flag(name: str, *more: str) -> Callable[[F], F]:
    limit = LIMITS[name]
    metavar = "N" if isinstance(limit, click.IntRange) else "X"
    return click.option(
        f"--{name.replace('_', '-')}", *more, type=limit, default=getattr(USUAL, name), show_default=True, metavar=metavar,
        help=_HELP.get(name),
    )  # fmt: skip


def sampling(function: F) -> F:
    """Add them to a command."""
    flags = (
        *(_flag(name, *(("--temp",) if name == "temperature" else ())) for name in LIMITS),
        click.option("--stop", type=StopText(), multiple=True, metavar="TEXT", help="Ends the answer. Can be given several times."),
        click.option("--schema", type=SchemaFile(), metavar="FILE", help="A JSON schema that each answer has to follow."),
    )
    for flag in reversed(flags):
        function = flag(function)
    return function


def taken(flags: dict[str, Any]) -> Sampling:
    """Take them out of `flags`."""
    return Sampling(**{name: flags.pop(name) for name in (*LIMITS, "stop", "schema")})
