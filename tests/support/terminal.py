"""A person at a terminal: types, looks at the screen, changes the window. pexpect runs the program, pyte is the screen."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import pexpect
import pyte

CHAT = [sys.executable, "-c", "from selfextend_cli.chat.command import main; main()"]
"""selfextend-chat, run by this Python."""

PATIENCE_S = 600.0
"""When a test gives up on what must come: far beyond what the busiest machine takes, since nothing is asserted about time."""

_ENTER, _NOTHING_MORE_S = "\r", 0.05


class Terminal:
    """A program on a screen of `columns` by `rows`, tall enough by default that nothing scrolls away."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, columns: int = 100, rows: int = 200
    ) -> None:
        self.child = pexpect.spawn(
            command[0], list(command[1:]), encoding="utf-8", codec_errors="replace", dimensions=(rows, columns),
            env=dict(environment), timeout=PATIENCE_S,
        )  # fmt: skip
        self.child.delaybeforesend = None
        self._screen = pyte.Screen(columns, rows)
        self._screen.write_process_input = self.child.send  # the screen's answers, such as where the cursor is
        self._stream = pyte.Stream(self._screen)
        self.raw = ""
        self.patience_s = PATIENCE_S

    def cell(self, row: int, column: int) -> pyte.screens.Char:
        """What stands in a cell of the screen, and how."""
        return self._screen.buffer[row][column]

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without the empty lines below."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cursor_is_shown(self) -> bool:
        return not self._screen.cursor.hidden

    def look(self, seconds: float = _NOTHING_MORE_S) -> None:
        """Let the screen take what the program writes."""
        with contextlib.suppress(pexpect.TIMEOUT):
            data = self.child.read_nonblocking(1 << 16, seconds)
            self.raw += data
            self._stream.feed(data)

    def wait(self, seen: str | Callable[[], bool]) -> None:
        """Until the screen shows it."""
        until = time.monotonic() + self.patience_s
        while not (seen in self.text if isinstance(seen, str) else seen()):
            try:
                self.look()
            except pexpect.EOF:
                raise AssertionError(f"the program ended; the screen:\n{self.text}") from None
            assert time.monotonic() < until, f"never seen: {seen}; the screen:\n{self.text}"

    def wait_idle(self) -> None:
        """Until an empty prompt is the last line."""
        self.wait(lambda: self.lines[-1:] == [">"])

    def type(self, keys: str) -> None:
        self.child.send(keys)

    def run(self, line: str) -> list[str]:
        """Type a line and Enter; returns the lines that came of it when the next prompt is there."""
        shown = f"> {line}".rstrip()
        before = self.lines.count(shown)
        self.type(line + _ENTER)
        self.wait(lambda: self.lines.count(shown) > before and self.lines[-1] == ">")
        lines = self.lines
        start = len(lines) - 1 - lines[::-1].index(shown)
        return lines[start + 1 : -1]

    def resize(self, columns: int, rows: int) -> None:
        self.child.setwinsize(rows, columns)
        self._screen.resize(rows, columns)

    def end(self) -> int | None:
        """Wait for the end; returns the exit status."""
        with contextlib.suppress(pexpect.EOF):
            until = time.monotonic() + self.patience_s
            while time.monotonic() < until:
                self.look()
            self.close()
        # The last output comes before the end: pexpect's close would hurry a slow one with a signal.
        self.child.wait()
        return self.child.exitstatus

    def close(self) -> None:
        """End the program, whatever it does."""
        if self.child.isalive():
            self.child.kill(signal.SIGKILL)
            self.child.wait()
        self.child.close()
