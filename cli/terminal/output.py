"""What is printed: the answer on stdout, all else on stderr, and nothing that drives the terminal.

Whatever writes to a terminal passes the gate that `harmless_streams` puts there: ours, click's, a library's log, a traceback. What we
draw ourselves goes around it, to `drawing(stream)`; its words are made `visible` one by one. tests/test_terminal_gate.py lists who draws.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO, cast

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
    print(f"\x1b[2m{shown}\x1b[22m" if draws(sys.stderr) else shown, file=drawing(sys.stderr), flush=True)


def say_drawn(line: str) -> None:
    """A line on stderr that we have drawn ourselves, colours and all."""
    print(line, file=drawing(sys.stderr), flush=True)


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


class Gate:
    """A terminal for text of anybody: what would drive it is shown."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # by this click tells a stream of text from one of bytes
            raise TypeError(f"a terminal takes text, not {type(text).__name__}")
        self.terminal.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def drawing(stream: TextIO) -> TextIO:
    """The terminal behind the gate, for what we draw. The words in it must be `visible`."""
    return stream.terminal if isinstance(stream, Gate) else stream


def harmless_streams() -> None:
    """Characters that stdout or stderr can't encode become question marks instead of ending the program, and terminals get a gate."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if sys.stdout.isatty():
        sys.stdout = cast(TextIO, Gate(sys.stdout))
    if sys.stderr.isatty():
        sys.stderr = cast(TextIO, Gate(sys.stderr))


def write_answer(piece: str) -> None:
    """A piece of the answer on stdout, harmless to a terminal."""
    sys.stdout.write(visible(piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()
