"""What is printed: the answer on stdout, all else on stderr, and nothing that drives the terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TextIO

import click


def say(text: str) -> None:
    """Lines on stderr, wrapped between words on a terminal."""
    click.echo(_wrapped(visible(text)), err=True)


def _wrapped(text: str) -> str:
    if not sys.stderr.isatty():
        return text
    width = max(20, columns() - 1)
    return "\n".join(line if len(line) <= width else _filled(line, width) for line in text.split("\n"))


def _filled(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line.strip(), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


def say_dim(text: str) -> None:
    """A line on stderr that matters less: dim where that can be shown."""
    shown = _wrapped(visible(text))
    click.echo(f"\x1b[2m{shown}\x1b[22m" if draws(sys.stderr) else shown, err=True)


def say_drawn(line: str) -> None:
    """A line on stderr that we have drawn ourselves, colours and all."""
    click.echo(line, err=True, color=True)


def columns() -> int:
    """Width of the terminal."""
    return shutil.get_terminal_size().columns


def draws(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes colours and cursor movements, and whose user wants them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal is one that only prints; Windows names none, and its terminals can draw."""
    return os.environ.get("TERM", "" if os.name == "posix" else "windows") in ("", "dumb")


_DIRECTION_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """`text` with what drives a terminal shown instead of obeyed: control characters, escape sequences, changes of the
    writing direction. Line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or not _drives(c) else c.encode("unicode_escape").decode() for c in text)


def _drives(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _DIRECTION_OVERRIDES


def harmless_streams() -> None:
    """Characters that stdout or stderr can't encode become question marks instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write_answer(piece: str) -> None:
    """A piece of the answer on stdout, harmless to a terminal."""
    sys.stdout.write(visible(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()
