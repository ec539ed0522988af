"""config.toml: defaults for the flags of the chat, sets of them under a name, and short names of models.

    [chat]              any flag of selfextend-chat
    [profiles.NAME]     the same, chosen with --profile NAME
    [models]            NAME = "FILE"

Knows TOML and click's flags. Must not know what flags mean. (What `selfextend tune` finds out is a tuning profile, and
lies elsewhere.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import click

from selfextend_local.storage.folders import CONFIG_VARIABLE, chosen, config_file

_META = "selfextend.config"
_TABLES = ("chat", "profiles", "models")


@dataclass(frozen=True)
class Config:
    """A file that was read. `chat`, `profile` (the chosen one) by parameter, as click takes them; `models` by name."""

    path: Path | None = None
    chat: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)


def use(context: click.Context, profile: str | None) -> Config:
    """Make what the file says the defaults of this command's flags; below a flag and a variable, above our own defaults.

    Raises click.UsageError naming the file and the key.
    """
    config = read(context, profile)
    context.default_map = {**config.chat, **config.profile}
    context.meta[_META] = config
    return config


def in_use(context: click.Context) -> Config:
    """What `use` has read for this command."""
    found = context.meta.get(_META)
    return found if isinstance(found, Config) else Config()


def aliases() -> dict[str, Path]:
    """The short names of models, for commands that take nothing else from the file. Raises click.UsageError."""
    path = config_file()
    models = _table(path, "models", _tables(path).get("models"))
    return {name: _model(path, name, file) for name, file in models.items()}


def read(context: click.Context, profile: str | None = None) -> Config:
    """The file, with the flags checked against this command. No file is an empty one. Raises click.UsageError."""
    path = config_file()
    tables = _tables(path)
    for name in tables:
        if name not in _TABLES:
            _wrong(path, name, f"there is no such table; there are {_listed(_TABLES)}")
    profiles = {name: _table(path, f"profiles.{name}", held) for name, held in _table(path, "profiles", tables.get("profiles")).items()}
    if profile is not None and profile not in profiles:
        raise click.UsageError(f"There is no profile {profile!r} in {path}. There {_are(profiles)}.")
    checked = {name: _Flags(context, path, f"profiles.{name}").checked(held) for name, held in profiles.items()}
    return Config(
        path,
        _Flags(context, path, "chat").checked(_table(path, "chat", tables.get("chat"))),
        checked[profile] if profile is not None else {},
        aliases(),
    )


def _tables(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if chosen(CONFIG_VARIABLE):
            raise click.UsageError(f"{CONFIG_VARIABLE} names {path}, which isn't there: correct the variable or unset it.") from None
        return {}
    except OSError as error:
        raise click.UsageError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{path} is no TOML: {error}.") from error


def _table(path: Path, name: str, held: Any) -> dict[str, Any]:
    if held is not None and not isinstance(held, dict):
        _wrong(path, name, f"must be a table, [{name}]")
    return held or {}


def _model(path: Path, name: str, file: Any) -> Path:
    if not isinstance(file, str):
        _wrong(path, f"models.{name}", 'must be the name of a file in quotes, "…"')
    return _located(path, file)


def _located(path: Path, name: str) -> Path:
    """A file that the configuration names: from the folder that it lies in."""
    return path.parent / os.path.expanduser(name)


class _Flags:
    """One table of flags."""

    def __init__(self, context: click.Context, path: Path, table: str) -> None:
        self._context, self._path, self._table = context, path, table
        options = (p for p in context.command.params if isinstance(p, click.Option) and p.expose_value)
        self._options = {flag_name(option): option for option in options}

    def checked(self, held: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._one(key, value) for key, value in held.items())

    def _one(self, key: str, value: Any) -> tuple[str, Any]:
        option = self._options.get(key.replace("_", "-"))
        where = f"{self._table}.{key}"
        if option is None or option.name is None:
            near = [name for name in self._options if key.replace("_", "-") in name or name in key]
            _wrong(self._path, where, "there is no such flag" + (f"; did you mean {near[0]}?" if near else ""))
        if wanted := _mismatch(option, value):
            _wrong(self._path, where, f"must be {wanted}")
        if isinstance(option.type, click.Path) and not option.multiple:
            value = str(_located(self._path, value))
        try:
            option.type_cast_value(self._context, value)
        except click.BadParameter as error:
            _wrong(self._path, where, error.message)
        return option.name, value


def flag_name(option: click.Option) -> str:
    """The name of a flag without dashes: the first long one, or the only one."""
    return next((o for o in option.opts if o.startswith("--")), option.opts[0]).lstrip("-")


def _mismatch(option: click.Option, value: Any) -> str | None:
    """What the value should be, None if it is that."""
    if option.multiple:
        fits = isinstance(value, list) and all(isinstance(v, str) for v in value)
        return None if fits else 'a list of texts, ["…"]'
    if option.is_flag:
        return None if isinstance(value, bool) else "true or false"
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if isinstance(option.type, click.types.IntParamType):
        return None if number and isinstance(value, int) else "a whole number"
    if isinstance(option.type, click.types.FloatParamType):
        return None if number else "a number"
    return None if isinstance(value, str) or (number and option.type.name == "N|auto") else 'a text in quotes, "…"'


def _wrong(path: Path, key: str, what: str) -> NoReturn:
    raise click.UsageError(f"{path}: {key}: {what.rstrip('.')}.")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"[{name}]" for name in names)


def _are(profiles: Mapping[str, Any]) -> str:
    return f"are: {', '.join(profiles)}" if profiles else "are none"
