"""Limits on reading one document, for every command that reads some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def read_limits(seconds: float, mib: int) -> Callable[[F], F]:
    """--read-timeout and --read-memory, with these defaults."""

    def add(command: F) -> F:
        timeout = click.option("--read-timeout", type=click.FloatRange(0, min_open=True), default=seconds, show_default=True,
                               metavar="S", help="Give the reading of a document up after so long without progress.")  # fmt: skip
        memory = click.option("--read-memory", type=click.IntRange(128), default=mib, show_default=True, metavar="MIB",
                              help="Memory that reading a document may take (Linux).")  # fmt: skip
        return timeout(memory(command))

    return add
