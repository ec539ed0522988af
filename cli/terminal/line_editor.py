"""The line that a user types: with history, search, completion and several lines on a terminal; plain from a pipe.

Knows prompt_toolkit. Must not know what the commands do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from selfextend_local.storage.folders import history_file

from . import output

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

MULTILINE = '"""'
PROMPT, CONTINUATION = "> ", "… "


@dataclass(frozen=True)
class PathSoFar:
    """A completion that is a path: what of it stands there already."""

    text: str


Completions = Iterable[tuple[str, str]] | PathSoFar
"""Words that may replace the last one, each with what it is; or a path."""

Complete = Callable[[str], Completions]
"""From the line so far, which begins with a slash."""


class Reader(Protocol):
    """Where questions and commands come from."""

    def read(self) -> str | None:
        """The next one, which may have several lines; None at the end. Raises KeyboardInterrupt at Ctrl-C."""


def reader(complete: Complete) -> Reader:
    """The reader that suits stdin and stdout."""
    if sys.stdin.isatty() and sys.stdout.isatty() and not output.is_dumb():
        return TerminalReader(complete)
    return LineReader()


def whole(text: str) -> str:
    """What was meant by `text`: without the quotes of several lines, and without outer white space."""
    text = text.strip()
    if text.startswith(MULTILINE):
        text = text[len(MULTILINE) :].removesuffix(MULTILINE)
    return text.strip()


def is_open(text: str) -> bool:
    """Whether `text` began with three quotes that aren't closed yet."""
    text = text.strip()
    return text.startswith(MULTILINE) and not (len(text) >= 2 * len(MULTILINE) and text.endswith(MULTILINE))


class LineReader:
    """Lines of stdin. The prompt goes to stderr, and only where somebody types."""

    def read(self) -> str | None:
        lines: list[str] = []
        while not lines or is_open("".join(lines)):
            if sys.stdin.isatty():
                click.echo(CONTINUATION if lines else PROMPT, err=True, nl=False)
            line = sys.stdin.readline()
            if not line:
                return "".join(lines) or None
            lines.append(line)
        return "".join(lines)


class TerminalReader:
    """A line editor. Enter sends, Esc-Enter or three quotes make several lines; a paste never sends by itself."""

    def __init__(self, complete: Complete) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition

        self._session: PromptSession[str] = PromptSession(
            history=_history(history_file()),
            completer=_completer(complete),
            complete_in_thread=True,
            complete_while_typing=Condition(lambda: self._session.default_buffer.text.startswith("/")),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=lambda width, number, wrapped: "" if wrapped else CONTINUATION,
            enable_open_in_editor=True,
            enable_suspend=True,
            reserve_space_for_menu=5,
        )

    def read(self) -> str | None:
        try:
            return self._session.prompt(PROMPT)
        except EOFError:
            return None


def _history(path: Path) -> FileHistory:
    from prompt_toolkit.history import FileHistory

    class History(FileHistory):
        """Without lines that begin with a space, and without repetitions; a disk that refuses is no reason to stop."""

        def append_string(self, string: str) -> None:
            if string.strip() and not string.startswith(" ") and string != next(iter(self.get_strings()[-1:]), None):
                super().append_string(string)

        def load_history_strings(self) -> Iterable[str]:
            try:
                return list(super().load_history_strings())
            except OSError:
                return []

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(string)

    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    return History(str(path))


def _keys() -> KeyBindings:
    from prompt_toolkit.filters import is_searching
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        state = buffer.complete_state
        if state and state.current_completion and not buffer.text.endswith(state.current_completion.text):
            buffer.apply_completion(state.current_completion)
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def next_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=~is_searching)
    def interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


def _completer(complete: Complete) -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class CommandCompleter(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            line = document.text_before_cursor
            if not line.startswith("/") or "\n" in line:
                return
            found = complete(line)
            if isinstance(found, PathSoFar):
                yield from PathCompleter(expanduser=True).get_completions(Document(found.text, len(found.text)), event)
                return
            last = "" if line.endswith(" ") else line.split(" ")[-1]
            for word, meaning in found:
                if word.startswith(last):
                    yield Completion(word, -len(last), display_meta=output.visible(meaning))

    return CommandCompleter()
