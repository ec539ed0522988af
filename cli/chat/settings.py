"""What /set shows and changes: a name, a value, and what is allowed.

Knows the options and their limits. Must not know the chat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from selfextend_local.errors import CommandError

from ..flags.sampling import LIMITS
from ..flags.types import StopTexts
from .options import Options


@dataclass(frozen=True)
class Setting:
    """A setting: the option that it is, the type that checks it, and a few words."""

    name: str
    field: str
    type: click.ParamType[Any]
    meaning: str

    @property
    def choices(self) -> tuple[str, ...]:
        if isinstance(self.type, click.Choice):
            return tuple(map(str, self.type.choices))
        return ("on", "off") if self.type is click.BOOL else ()


ALIASES = {"temp": "temperature"}

_DRAWING = {
    "temperature": "0 = the same answer each time",
    "top_p": "share of the likeliest tokens to draw from",
    "top_k": "number of the likeliest tokens to draw from, 0 = all",
    "min_p": "least probability, as a share of the likeliest token's",
    "repeat_penalty": "above 1 against going round in circles",
    "dry": "the more, the less an answer says the same words again, 0 = off",
    "seed": "of the drawing",
    "max_tokens": "of an answer",
}

SETTINGS: dict[str, Setting] = {
    s.name: s
    for s in (
        *(Setting(name.replace("_", "-"), name, LIMITS[name], meaning) for name, meaning in _DRAWING.items()),
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
    return options.changed(**{setting.field: new})


def describe(options: Options, name: str | None = None) -> list[str]:
    """A line a setting; all of them, or the one that is named."""
    wanted = _proper(name.partition("=")[0]) if name else None
    return [f"{s.name:<14} {_shown(options, s):<6} {s.meaning}" for s in SETTINGS.values() if wanted in (None, s.name)]


def _proper(name: str) -> str:
    name = name.replace("_", "-")
    return ALIASES.get(name, name)


def _shown(options: Options, setting: Setting) -> str:
    value = options.get(setting.field)
    if isinstance(value, tuple):
        return "; ".join(map(repr, value)) or "none"
    return ("on" if value else "off") if setting.type is click.BOOL else str(value)
