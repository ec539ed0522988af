"""Markdown as rich draws it, a block at a time, made fit for a model's text.

Knows CommonMark and rich. Must not know the screen. HTML is text, links show their address, single line breaks stay,
code is verbatim.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, ClassVar

from markdown_it import MarkdownIt
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_STYLES = {"markdown.code": "cyan", "markdown.h1": "bold", "markdown.h2": "bold", "markdown.item.bullet": "cyan"}


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("image")


def finished(text: str, certain: int) -> int:
    """How many characters at the beginning of `text` are blocks that nothing after them can change any more.

    The last block is never finished. A line needs `certain` characters, or its end, to prove that it begins a new one.
    """
    starts = [token.map[0] for token in _parser().parse(text) if token.level == 0 and token.map and token.nesting >= 0]
    if len(starts) < 2:
        return 0
    lines = text.splitlines(keepends=True)
    last = lines[starts[-1]]
    if not last.endswith("\n") and len(last.strip()) < certain:
        return 0
    return sum(map(len, lines[: starts[-1]]))


def render(text: str) -> list[RenderableType | Code]:
    """The blocks of `text`, each to be drawn by itself with an empty line between them."""
    tokens = _parser().parse(text)
    blocks: list[RenderableType | Code] = []
    first = 0
    for index, token in enumerate(tokens):
        if token.level or token.nesting > 0:
            continue
        if token.type in ("fence", "code_block"):
            blocks.append(Code(token.content, token.info.split()[0] if token.info.strip() else ""))
        else:
            blocks.append(_Block(tokens[first : index + 1]))
        first = index + 1
    return blocks


class Code:
    """A code block: its lines as they are, coloured where the language is known."""

    def __init__(self, code: str, language: str) -> None:
        self._code = code.rstrip("\n")
        self._language = language

    def lines(self, console: Console) -> list[list[Segment]]:
        """Never wrapped, so that what is copied from the screen is the code."""
        text = Text(self._code)
        if self._language:
            text = Syntax("", self._language, theme="ansi_dark").highlight(self._code)
            text.rstrip()
        return [
            [Segment(s.text, s.style) for s in line.render(console) if s.text.strip("\n")] for line in text.split("\n", allow_blank=True)
        ]


class _LeftHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Block(Markdown):
    """One top-level block, from its tokens."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _LeftHeading}

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = [_with_breaks(token) for token in tokens]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.theme import Theme

        with console.use_theme(Theme(_STYLES)):
            yield from super().__rich_console__(console, options)


def _with_breaks(token: Token) -> Token:
    # Poems, addresses, lists without bullets: a model's line breaks are meant.
    for child in token.children or ():
        if child.type == "softbreak":
            child.type = "hardbreak"
    return token
