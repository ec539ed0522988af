"""The conversation: reads a line, runs a command or asks, until the user leaves.

Knows the order. No error ends it, and no single key does.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from selfextend_local.errors import Interrupted, SelfExtendError

from ..errors import EXIT_INTERRUPTED
from ..terminal import console
from ..terminal.line_editor import reader, whole
from ..terminal.views import view
from . import slash, slash_chats, slash_documents
from .reply import say_what_it_took, show

if TYPE_CHECKING:
    from ..terminal.line_editor import Reader
    from .history import Journal
    from .reply import Ask, Reply
    from .workspace import Desk

_REGISTERED = (slash_documents, slash_chats)


class Repl:
    """A conversation at a desk.

    Attributes:
        last: the last answer, as it was shown; None before the first.
    """

    def __init__(self, desk: Desk, journal: Journal) -> None:
        self.desk = desk
        self.journal = journal
        self.last: Reply | None = None

    def run(self) -> int:
        """Converse; returns the exit code."""
        lines = reader(partial(slash.complete, self))
        if sys.stdin.isatty():
            console.mutter("Ask away; /help lists the slash, Ctrl-D leaves.")
        # Between two prompts Ctrl-C never ends the conversation, not even when it comes a moment too late to stop anything.
        with console.StopOnInterrupt() as stop:
            return self._converse(lines, stop)

    def _converse(self, lines: Reader, stop: console.StopOnInterrupt) -> int:
        warned = False
        while True:
            try:
                with console.interruptible():
                    line = lines.read()
            except KeyboardInterrupt:
                if warned:
                    return EXIT_INTERRUPTED
                warned = True
                console.say("Press Ctrl-C again to leave; what was read stays.")
                continue
            warned = stop.requested = False
            if line is None:
                return 0
            try:
                self._obey(line)
            except slash.Leave:
                return 0

    def _obey(self, line: str) -> None:
        text = whole(line)
        try:
            if line.lstrip().startswith("/") and "\n" not in text:
                slash.run(self, text)
            elif text:
                self.desk.asked(text, self.ask)
        except Interrupted as error:
            console.say(f"{error} Ask again to go on from there.")
        except SelfExtendError as error:
            console.say(f"error: {error}")

    def ask(self, ask: Ask) -> None:
        """Ask, show the answer, and keep the chat."""
        options = self.desk.options
        with console.keys_unseen():
            try:
                with view(plain=options.as_text, thoughts=options.think == "show") as shown:
                    self.last = show(self.desk.chat, ask, shown)
            finally:
                self.journal.keep(self.desk)
                for note in self.desk.notes():
                    console.say(note)
            say_what_it_took(self.last, self.desk.citations(self.last.answer) if options.cite else [])
