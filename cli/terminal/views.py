"""How an answer is shown while it comes: plain, or Markdown with the open block redrawn in place.

Knows rich and the screen. Must not know models or documents. Nothing that a model wrote reaches the terminal but as
visible text: no control characters, no rich markup, no HTML that vanishes, no links whose address is hidden.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol

from . import interrupts, output, progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.segment import Segment

    from selfextend_local.generation.thinking import Part

    from .markdown import Code

SECONDS_BETWEEN_FRAMES = 0.05
_CERTAIN = 6
"""Characters of a line after which it can't become part of the block before it any more."""


class View(Protocol):
    """Shows the parts of one answer."""

    def write(self, part: Part) -> None:
        """Show a part as it comes."""

    def close(self) -> None:
        """Show what is left, and end the line."""


@contextmanager
def view(*, plain: bool, thoughts: bool) -> Iterator[View]:
    """The view that suits where stdout goes. `thoughts`: show them too, dimmed. One Ctrl-C never leaves half a drawing."""
    chosen: View = PlainView(thoughts) if plain or not output.draws(sys.stdout) else MarkdownView(thoughts)
    with progress.keys_unseen(), interrupts.StopOnInterrupt():
        try:
            yield chosen
        finally:
            chosen.close()


class SilentView:
    """Shows nothing: for --json."""

    def write(self, part: Part) -> None:
        pass

    def close(self) -> None:
        pass


class PlainView:
    """The answer as it comes on stdout; thoughts on stderr between two lines that say what they are."""

    def __init__(self, thoughts: bool) -> None:
        self._thoughts = _PlainThoughts() if thoughts else _HiddenThoughts()
        self._open = False

    def write(self, part: Part) -> None:
        if part.thought:
            self._thoughts.write(part.text)
            return
        self._thoughts.close()
        self._open = True
        output.write_answer(part.text)

    def close(self) -> None:
        self._thoughts.close()
        if self._open:
            output.write_answer("\n")
            self._open = False


class MarkdownView:
    """Finished blocks are printed once and scroll away; only the open one is redrawn.

    While a block is open the cursor waits, hidden, at its beginning. A terminal that changes its width moves the cursor
    along with the text, so that erasing from there on hits the block and nothing else.
    """

    def __init__(self, thoughts: bool) -> None:
        self._thoughts = _DimThoughts() if thoughts else _HiddenThoughts()
        self._open = ""
        self._painter: _Painter | None = None
        self._drawn_at = 0.0

    def write(self, part: Part) -> None:
        if part.thought:
            self._thoughts.write(part.text)
            return
        self._thoughts.close()
        self._open += output.visible(part.text)
        if time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_FRAMES:
            self._draw()

    def close(self) -> None:
        self._thoughts.close()
        if self._open.strip():
            self._paint().finish(self._open)
        self._open = ""
        if self._painter:
            self._painter.close()
            self._painter = None

    def _draw(self) -> None:
        from .markdown import finished

        cut = finished(self._open, _CERTAIN)
        if cut:
            self._paint().finish(self._open[:cut])
            self._open = self._open[cut:]
        self._paint().show(self._open)
        self._drawn_at = time.monotonic()

    def _paint(self) -> _Painter:
        self._painter = self._painter or _Painter()
        return self._painter


class _Painter:
    """Draws blocks: for good, or so that they can be drawn again."""

    _ERASE: ClassVar[str] = "\r\x1b[J"
    _HOLD, _RELEASE = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output: no flicker where it is known

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(file=output.drawing(sys.stdout), highlight=False, markup=False, emoji=False)
        self._first = True
        self._put("\x1b[?25l")

    def show(self, text: str) -> None:
        """Draw `text` as the open block: the lines of it that fit the screen, the cursor at their beginning."""
        from .markdown import render

        size = self._console.size
        lines = self._lines(render(text), crop=size.width)
        if not self._first:
            lines = [[], *lines]
        lines = lines[-max(1, size.height - 1) :]
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        self._put(self._HOLD + self._ERASE + "\r\n".join(map(self._ansi, lines)) + up + "\r" + self._RELEASE)

    def finish(self, text: str) -> None:
        """Print `text` for good."""
        from .markdown import render

        lines = self._lines(render(text), crop=None)
        if not self._first:
            lines = [[], *lines]
        self._first = False
        self._put(self._HOLD + self._ERASE + "".join(self._ansi(line) + "\r\n" for line in lines) + self._RELEASE)

    def close(self) -> None:
        self._put(self._ERASE + "\x1b[?25h")

    def _lines(self, blocks: list[RenderableType | Code], *, crop: int | None) -> list[list[Segment]]:
        from rich.segment import Segment

        from .markdown import Code

        lines: list[list[Segment]] = []
        for block in blocks:
            if lines:
                lines.append([])
            if isinstance(block, Code):
                code = block.lines(self._console)
                lines += code if crop is None else [Segment.adjust_line_length(line, crop, pad=False) for line in code]
            else:
                lines += _trimmed(self._console.render_lines(block, pad=False))
        return lines

    def _ansi(self, line: list[Segment]) -> str:
        from rich.color import ColorSystem

        names = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}
        system = names.get(self._console.color_system or "")
        return "".join(s.style.render(s.text, color_system=system) if s.style else s.text for s in line if not s.control)

    @staticmethod
    def _put(text: str) -> None:
        terminal = output.drawing(sys.stdout)
        terminal.write(text)
        terminal.flush()


def _trimmed(lines: list[list[Segment]]) -> list[list[Segment]]:
    """Without white space at line ends, which would wrap when the window gets narrower, nor empty lines around."""
    from rich.segment import Segment

    kept: list[list[Segment]] = []
    for line in lines:
        line = [s for s in line if s.text and not s.control]
        while line and not line[-1].text.strip() and not (line[-1].style and line[-1].style.underline):
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        kept.append(line)
    while kept and not kept[0]:
        kept.pop(0)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _draw(text: str) -> None:
    terminal = output.drawing(sys.stderr)
    terminal.write(text)
    terminal.flush()


class _DimThoughts:
    """Thoughts as they come, dimmed."""

    def __init__(self) -> None:
        self._open = False

    def write(self, text: str) -> None:
        self._open = True
        _draw("\x1b[2m" + output.visible(text) + "\x1b[22m")

    def close(self) -> None:
        if self._open:
            _draw("\n\n")
            self._open = False


class _PlainThoughts(_DimThoughts):
    """Thoughts as they come, between two lines that say so."""

    def write(self, text: str) -> None:
        _draw(("" if self._open else "(thinking)\n") + output.visible(text))
        self._open = True

    def close(self) -> None:
        if self._open:
            _draw("\n(end of thinking)\n")
            self._open = False


class _HiddenThoughts(_DimThoughts):
    """A sign of life in place of the thoughts, on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._words = 0

    def write(self, text: str) -> None:
        self._words += text.count(" ")
        if sys.stderr.isatty():
            _draw(f"\rThinking, {self._words:,} words")
            self._open = True

    def close(self) -> None:
        if self._open:
            _draw("\r" + " " * len(f"Thinking, {self._words:,} words") + "\r")
            self._open = False
