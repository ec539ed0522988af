"""What /set shows and changes: a name, a value, and what is allowed.

Knows the options and their limits. Must not know the chat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import click

from selfextend_local.errors import CommandError

from .options import Options


@dataclass(frozen=True)
class Setting:
    """A setting: the field of Options that it is, the type that checks it, and a few words."""

    name: str
    field: str
    type: click.ParamType[Any]
    meaning: str

    @property
    def choices(self) -> tuple[str, ...]:
        if isinstance(self.type, click.Choice):
            return tuple(map(str, self.type.choices))
        return ("on", "off") if self.type is click.BOOL else ()


class StopTexts(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Several texts in one line."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return () if value == "none" else tuple(text for part in value.split(";") if (text := part.strip()))


ALIASES = {"temp": "temperature"}

SETTINGS: dict[str, Setting] = {
    s.name: s
    for s in (
        Setting("temperature", "temperature", click.FloatRange(0, 5), "0 = the same answer each time"),
        Setting("top-p", "top_p", click.FloatRange(0, 1), "share of the likeliest tokens to draw from"),
        Setting("top-k", "top_k", click.IntRange(0), "number of the likeliest tokens to draw from, 0 = all"),
        Setting("min-p", "min_p", click.FloatRange(0, 1), "least probability, as a share of the likeliest token's"),
        Setting("repeat-penalty", "repeat_penalty", click.FloatRange(0.1, 3), "above 1 against going round in circles"),
        Setting("seed", "seed", click.IntRange(0, 2**32 - 2), "of the drawing"),
        Setting("max-tokens", "max_tokens", click.IntRange(1), "of an answer"),
        Setting("stop", "stop", StopTexts(), "texts that end an answer, with ; between them; none = no text"),
        Setting("think", "think", click.Choice(["show", "hide"]), "a reasoning model's thoughts"),
        Setting("cite", "cite", click.BOOL, "check the page references of an answer"),
        Setting("plain", "plain", click.BOOL, "no Markdown"),
    )
}


def change(options: Options, text: str) -> Options:
    """`options` after `NAME VALUE` (or NAME=VALUE). Raises CommandError."""
    name, _, value = text.replace("=", " ", 1).partition(" ")
    setting = SETTINGS.get(_proper(name))
    if setting is None:
        raise CommandError(f"There is no setting {name}. There are: {', '.join(SETTINGS)}.")
    if not value.strip():
        return options
    try:
        new = setting.type.convert(value.strip(), None, None)
    except click.BadParameter as error:
        raise CommandError(f"{setting.name} stays {_shown(options, setting)}: {error.message}") from error
    return replace(options, **{setting.field: new})


def describe(options: Options, name: str | None = None) -> list[str]:
    """A line a setting; all of them, or the one that is named."""
    wanted = _proper(name.partition("=")[0]) if name else None
    return [f"{s.name:<14} {_shown(options, s):<6} {s.meaning}" for s in SETTINGS.values() if wanted in (None, s.name)]


def _proper(name: str) -> str:
    name = name.replace("_", "-")
    return ALIASES.get(name, name)


def _shown(options: Options, setting: Setting) -> str:
    value = getattr(options, setting.field)
    if isinstance(value, tuple):
        return "; ".join(map(repr, value)) or "none"
    return ("on" if value else "off") if setting.type is click.BOOL else str(value)
