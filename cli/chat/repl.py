"""The conversation: reads a line, runs a command or asks, until the user leaves.

Knows the order. No error ends it, and no single key does.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from selfextend_local.errors import Interrupted, SelfExtendError

from ..errors import EXIT_INTERRUPTED
from ..terminal import interrupts, output, progress
from ..terminal.line_editor import reader, whole
from ..terminal.views import view
from . import slash, slash_chats, slash_documents
from .reply import say_what_it_took, show

if TYPE_CHECKING:
    from selfextend_local.chat.history import ChatHistory
    from selfextend_local.chat.workspace import Reply, Workspace

    from ..terminal.line_editor import Reader
    from .options import Options
    from .reply import Ask

_REGISTERED = (slash_documents, slash_chats)


class Repl:
    """A conversation in a workspace.

    Attributes:
        last: the last answer, as it was shown; None before the first.
    """

    def __init__(self, workspace: Workspace, options: Options, history: ChatHistory) -> None:
        self.workspace = workspace
        self.history = history
        self.last: Reply | None = None
        self._options = options

    @property
    def options(self) -> Options:
        """The options, with the settings that the conversation has now."""
        return replace(self._options, chat=self.workspace.settings)

    @options.setter
    def options(self, options: Options) -> None:
        self._options = options
        self.workspace.change_settings(options.chat)

    def run(self) -> int:
        """Converse; returns the exit code."""
        lines = reader(partial(slash.complete, self))
        if sys.stdin.isatty():
            output.say_dim("Ask away; /help lists the commands, Ctrl-D leaves.")
        # Between two prompts Ctrl-C never ends the conversation, not even when it comes a moment too late to stop anything.
        with interrupts.StopOnInterrupt() as stop:
            return self._converse(lines, stop)

    def _converse(self, lines: Reader, stop: interrupts.StopOnInterrupt) -> int:
        warned = False
        while True:
            try:
                with interrupts.interruptible():
                    line = lines.read()
            except KeyboardInterrupt:
                if warned:
                    return EXIT_INTERRUPTED
                warned = True
                output.say("Press Ctrl-C again to leave; what was read stays.")
                continue
            warned = stop.requested = False
            if line is None:
                return 0
            try:
                self._run(line)
            except slash.Leave:
                return 0

    def _run(self, line: str) -> None:
        text = whole(line)
        try:
            if line.lstrip().startswith("/") and "\n" not in text:
                slash.run(self, text)
            elif text:
                self.ask(partial(self.workspace.stream, text))
        except Interrupted as error:
            output.say(f"{error} Ask again to go on from there." if error.n_done else str(error))
        except SelfExtendError as error:
            output.say(f"error: {error}")

    def ask(self, ask: Ask) -> None:
        """Ask, show the answer, and keep the chat."""
        options = self.options
        with progress.keys_unseen():
            try:
                with view(plain=options.as_text, thoughts=options.think == "show") as shown:
                    self.last = show(self.workspace, ask, shown, cite=options.cite)
            finally:
                self.history.keep(self.workspace)
                self.workspace.tell_notes()
            say_what_it_took(self.last)
