"""What a reasoning model thinks aloud, told apart from what it answers.

Knows the tags that open and close a block of thought, also where they come in pieces. Must not know models or terminals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TAGS = ("think", "thinking")
_OPEN = re.compile(rf"<({'|'.join(_TAGS)})>")
_MARKS = tuple(f"<{slash}{tag}>" for tag in _TAGS for slash in ("", "/"))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer: thought, or what is meant for the reader. The tags themselves are in neither."""

    text: str
    thought: bool


def opens_thought(text: str) -> bool:
    """Whether `text`, the end of a prompt, leaves a block of thought open."""
    *_, last = [None, *_OPEN.finditer(text)]
    return last is not None and f"</{last[1]}>" not in text[last.end() :]


def parts(pieces: Iterable[str], *, open: bool = False) -> Iterator[Part]:
    """The streamed `pieces` of an answer, told apart; `open`: it begins inside a block of thought.

    Only what may be the beginning of a tag is held back. White space around a block goes with the tags. A block opens
    only at the beginning of an answer, so that an answer may speak about the tags.
    """
    splitter = _Splitter(open)
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.feed("", final=True)


def split(answer: str, *, open: bool = False) -> tuple[str, str]:
    """(what is meant for the reader, the thoughts) of a whole answer."""
    found = list(parts([answer], open=open))
    return tuple("".join(p.text for p in found if p.thought is thought).strip() for thought in (False, True))  # type: ignore[return-value]


class _Splitter:
    def __init__(self, open: bool) -> None:
        self._thought = open
        self._held = ""
        self._at_start = True
        self._answered = False

    def feed(self, piece: str, *, final: bool = False) -> Iterator[Part]:
        self._held += piece
        while (found := self._next_tag()) is not None:
            start, end = found
            yield from self._part(self._held[:start].rstrip())
            self._held, self._thought, self._at_start = self._held[end:], not self._thought, True
        cut = len(self._held) if final else len(self._held) - self._maybe_tag()
        text, self._held = self._held[:cut], self._held[cut:]
        yield from self._part(text)

    def _next_tag(self) -> tuple[int, int] | None:
        marks = [m for m in _MARKS if m.startswith("</") is self._thought]
        if not self._thought and self._answered:
            return None
        at, mark = min(((self._held.find(m), m) for m in marks if m in self._held), default=(-1, ""))
        if at < 0 or (not self._thought and self._held[:at].strip()):
            return None
        return at, at + len(mark)

    def _maybe_tag(self) -> int:
        """Length of the end of what is held that may become a tag, with the white space in front of it."""
        if not self._thought and self._answered:
            return 0
        marks = [m for m in _MARKS if m.startswith("</") is self._thought]
        for n in range(min(len(self._held), max(map(len, marks)) - 1), 0, -1):
            if any(m.startswith(self._held[-n:]) for m in marks):
                return len(self._held) - len(self._held[:-n].rstrip())
        return len(self._held) - len(self._held.rstrip()) if self._thought else 0

    def _part(self, text: str) -> Iterator[Part]:
        if self._at_start:
            text = text.lstrip()
        if text:
            self._at_start = False
            self._answered = self._answered or not self._thought
            yield Part(text, self._thought)
