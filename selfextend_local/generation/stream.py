"""One answer: its text as it comes, and why it ended.

The one way from tokens to text. Knows characters that span tokens, and stop texts. Must not know documents, histories or the terminal.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from selfextend_local.errors import Interrupted

from .loops import loop_at_end

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

    from .prompts import Prompts
    from .sampling import Sampling

StopReason = Literal["stop", "length", "context", "interrupted", "loop"]


class Writing:
    """One answer in the making: takes tokens until it is over.

    Args:
        limit: the most tokens, where the context has room for fewer than `sampling.max_tokens`; 0 or less: none.
        continues: the answer goes on with the prompt's text, so that white space in front is part of it.

    Attributes:
        tokens: of the answer so far, a stop text not counted.
        is_over: whether it wants no more.
        stop_reason: why it ended; "interrupted" while it hasn't.
        first_at, last_at: when its first and its last token came, by time.perf_counter.
    """

    def __init__(self, llm: SelfExtendLlama, prompts: Prompts, sampling: Sampling, room: int, *, continues: bool = False) -> None:
        self._llm = llm
        self._stop_tokens = prompts.stop_tokens
        self._text = _TextStream((*prompts.stop_texts, *sampling.stop), continues)
        self._limit = min(sampling.max_tokens, room)
        self._at_limit: StopReason = "length" if sampling.max_tokens <= room else "context"
        self._max_words = None if sampling.schema else sampling.max_words
        self._may_repeat = sampling.schema is not None
        self._pieces: list[str] = []
        self._words, self._ended_in_space = 0, True
        self.sampling = sampling
        self.tokens: list[int] = []
        self.is_over = False
        self.stop_reason: StopReason = "interrupted"
        self.first_at: float | None = None
        self.last_at: float | None = None

    def take(self, token: int) -> str:
        """The next token; the text that is certain by it, which may be empty."""
        self.last_at = time.perf_counter()
        self.first_at = self.first_at or self.last_at
        if token in self._stop_tokens or self._llm.ends_answers(token):
            self._end("stop")
            return self._shown(self._text.rest())
        self.tokens.append(token)
        piece = self._shown(self._text.feed(self._llm.detokenize([token])))
        if self._text.ended_by is not None:
            self._end("stop")
            self._forget_from(self._text.stopped_at)
        elif len(self.tokens) >= self._limit:
            self._end(self._at_limit)
            piece += self.rest()
        elif not self._may_repeat and loop_at_end(self.tokens):
            self._end("loop")
            piece += self.rest()
        elif self._max_words is not None and self._words > self._max_words:
            self._end("length")
        return piece

    @property
    def ended_by(self) -> str | None:
        """The text of `sampling.stop` that ended the answer, if one did."""
        return self._text.ended_by if self._text.ended_by in self.sampling.stop else None

    def rest(self) -> str:
        """What was held back, when no more tokens are taken. A character that is cut by that is left out."""
        return self._shown(self._text.rest(cut=True))

    @property
    def text(self) -> str:
        """The answer so far, without outer white space, and no longer than `max_words`."""
        text = "".join(self._pieces).strip()
        return text if self._max_words is None else within(text, self._max_words)

    def _end(self, reason: StopReason) -> None:
        self.is_over, self.stop_reason = True, reason

    def _shown(self, piece: str) -> str:
        if piece:
            continues = not self._ended_in_space and not piece[0].isspace()
            self._words += len(piece.split()) - continues
            self._ended_in_space = piece[-1].isspace()
            self._pieces.append(piece)
        return piece

    def _forget_from(self, end: int) -> None:
        # A stop text is no part of the answer; one of the template's is written again in front of the next question.
        while self.tokens and len(self._llm.detokenize(self.tokens).decode("utf-8", "replace")) > end:
            self.tokens.pop()


def stream(llm: SelfExtendLlama, prompt: Sequence[int], writing: Writing, should_stop: Callable[[], bool] | None) -> Iterator[str]:
    """The text of an answer to a prompt that is evaluated, in pieces as they come. A stop ends it early."""
    llm.set_seed(writing.sampling.seed)
    with suppress(Interrupted):
        for token in llm.generate(prompt, **writing.sampling.chain(), should_stop=should_stop):
            if piece := writing.take(token):
                yield piece
            if writing.is_over:
                return
            if should_stop is not None and should_stop():
                break
    if rest := writing.rest():
        yield rest


class _TextStream:
    """Bytes in, text out: whole characters only, no white space in front of what doesn't continue a text, nothing from a stop text on.

    `ended_by` is the stop text, `stopped_at` its place in all that came, in characters.
    """

    def __init__(self, stops: Sequence[str], continues: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._held = ""
        self._begun = continues
        self._passed = 0
        self.ended_by: str | None = None
        self.stopped_at = 0

    def feed(self, data: bytes) -> str:
        return self._ready(self._decoder.decode(data))

    def rest(self, *, cut: bool = False) -> str:
        """What was held back, at the end of the answer. A character that isn't whole is replaced, or left out of one that is `cut`."""
        text = "" if cut else self._ready(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return self._trimmed(text)

    def _ready(self, text: str) -> str:
        self._held += text
        if not self._stops:
            text, self._held = self._held, ""
            return self._trimmed(text)
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.ended_by = min(found)
            self.stopped_at = self._passed + at
            text, self._held = self._held[:at].rstrip(), ""
            return self._trimmed(text)
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        self._passed += cut
        text, self._held = self._held[:cut], self._held[cut:]
        return self._trimmed(text)

    def _trimmed(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def within(text: str, max_words: int) -> str:
    """`text` as it is, or its first `max_words` words less a sentence that was begun there and not ended."""
    words = text.split()
    if len(words) <= max_words:
        return text
    end = 0
    for word in words[:max_words]:
        end = text.index(word, end) + len(word)
    cut = text[:end]
    ends = [i + 1 for i, c in enumerate(cut) if c in ".!?。" and (i + 1 == len(cut) or cut[i + 1].isspace())]
    return cut[: ends[-1]] if ends else cut + " …"
