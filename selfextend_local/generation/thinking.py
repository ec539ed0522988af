"""What a reasoning model thinks aloud, told apart from what it answers.

Knows the tags that open and close a block of thought, also where they come in pieces. Must not know models or terminals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TAGS = ("think", "thinking")
_OPEN = re.compile(rf"<({'|'.join(_TAGS)})>")
_OPENS_FIRST = re.compile(rf"\s*<(?:{'|'.join(_TAGS)})>")
_CLOSES = re.compile(rf"</(?:{'|'.join(_TAGS)})>")
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
        self._gap: list[str] = []  # white space that goes with a tag, should one come
        self._held = ""
        self._at_start = True
        self._answered = False

    def feed(self, piece: str, *, final: bool = False) -> Iterator[Part]:
        self._held += piece
        at = 0
        while (tag := self._next_tag(at)) is not None:
            yield from self._part(self._held[at : tag.start()].rstrip())
            self._gap.clear()
            self._thought, self._at_start = not self._thought, True
            at = tag.end()
        cut = len(self._held) if final else max(at, len(self._held) - self._maybe_tag(at))
        text, self._held = self._held[at:cut], self._held[cut:]
        yield from self._part(text)
        if self._thought:
            tag_or_text = self._held.lstrip()
            self._gap.append(self._held[: len(self._held) - len(tag_or_text)])
            self._held = tag_or_text
        if final:
            yield from self._part("", final=True)

    def _next_tag(self, at: int) -> re.Match[str] | None:
        if self._thought:
            return _CLOSES.search(self._held, at)
        return None if self._answered else _OPENS_FIRST.match(self._held, at)

    def _maybe_tag(self, at: int) -> int:
        """Length of the end of what is held behind `at` that may become a tag, with the white space in front of it."""
        if not self._thought and self._answered:
            return 0
        marks = [m for m in _MARKS if m.startswith("</") is self._thought]
        held = self._held[at:]
        for n in range(min(len(held), max(map(len, marks)) - 1), 0, -1):
            if any(m.startswith(held[-n:]) for m in marks):
                return len(held) - len(held[:-n].rstrip())
        return len(held) - len(held.rstrip()) if self._thought else 0

    def _part(self, text: str, *, final: bool = False) -> Iterator[Part]:
        if text or final:
            text = "".join([*self._gap, text])
            self._gap.clear()
        if self._at_start:
            text = text.lstrip()
        if text:
            self._at_start = False
            self._answered = self._answered or not self._thought
            yield Part(text, self._thought)
