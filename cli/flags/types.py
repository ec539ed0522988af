"""The types of flags that several commands have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class NumberOrAuto(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number from `least` on, or "auto". `meaning`: what `least` stands for, for the error."""

    name = "N|auto"

    def __init__(self, least: int, meaning: str = "") -> None:
        self._least, self._meaning = least, meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        if number < self._least:
            self.fail(f"{number} is below {self._least}{self._meaning}", param, ctx)
        return number


class ListOf(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Values separated by commas, each one read by `read`, which raises ValueError with what is wrong."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self._read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            found = tuple(self._read(part.strip()) for part in value.split(",") if part.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not found:
            self.fail("the list is empty", param, ctx)
        return found


class StopText(click.types.StringParamType):
    """A text; a line each in a variable."""

    envvar_list_splitter = "\n"


class StopTexts(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Several texts in one line."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return () if value == "none" else tuple(text for part in value.split(";") if (text := part.strip()))


class SizeType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of bytes: 500M, 2.5G."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size; take something like 500M or 2.5G", param, ctx)
        return int(float(match[1]) * _UNITS[match[2].upper()])
