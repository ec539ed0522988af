"""--schema FILE: a JSON schema as a value of the command line, and what its answers say.

Knows files and JSON. Must not know models; the schema is compiled once here, so that a bad one is refused before any work.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import EXIT_INTERRUPTED


class SchemaFile(click.Path):
    """The name of a file that holds a JSON schema; the value is the schema, as text on one line."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = str(super().convert(value, param, ctx))
        if ctx is not None and ctx.resilient_parsing:
            return name
        from selfextend_local.engine.grammar import grammar_of
        from selfextend_local.errors import SelfExtendError
        from selfextend_local.storage.plain_json import loads

        try:
            schema = json.dumps(loads(Path(name).read_text(encoding="utf-8")))
        except OSError as error:
            self.fail(f"{name} can't be read: {error.strerror}.", param, ctx)
        except ValueError as error:
            self.fail(f"{name} is no JSON: {error}", param, ctx)
        try:
            grammar_of(schema)
        except SelfExtendError as error:
            self.fail(f"{name}: {error}", param, ctx)
        except KeyboardInterrupt:  # click would say "Aborted!" and leave with 1
            sys.exit(EXIT_INTERRUPTED)
        return schema


def is_whole(answer: str) -> bool:
    """Whether an answer spells a value: it wasn't cut."""
    return parsed(answer) is not None or answer.strip() == "null"


def parsed(answer: str) -> Any:
    """The value that an answer spells, None where it was cut."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None
