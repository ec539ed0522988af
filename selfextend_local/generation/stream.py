"""One answer: how it is drawn, its text as it comes, and why it ended.

Knows sampling, characters that span tokens, and stop texts. Must not know documents, histories or the terminal.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from selfextend_local.errors import Interrupted

from .completion import grammar_of
from .prompts import Prompts

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

StopReason = Literal["stop", "length", "context", "interrupted"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer is drawn.

    Temperature 0 (greedy) by default: a question about a document has one right answer, and the same question should
    get the same answer twice.

    Attributes:
        stop: texts that end the answer; they aren't part of it.
        schema: a JSON schema, as text, that the answer has to follow; nothing is penalised for being repeated then.
    """

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    schema: str | None = None


class Answer:
    """The sampling of one answer: its tokens so far, and why and when it ended."""

    def __init__(
        self, llm: SelfExtendLlama, prompts: Prompts, sampling: Sampling, prompt: Sequence[int], room: int
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._sampling = sampling
        self._prompt = prompt
        self._limit = min(sampling.max_tokens, room)
        self._at_limit: StopReason = "length" if sampling.max_tokens <= room else "context"
        self.tokens: list[int] = []
        self.stop_reason: StopReason = "interrupted"
        self.first_at: float | None = None
        self.last_at: float | None = None

    def pieces(self, should_stop: Callable[[], bool] | None) -> Iterator[str]:
        text = _TextStream((*self._prompts.stop_texts, *self._sampling.stop))
        stop_tokens, detokenize, clock = self._prompts.stop_tokens, self._llm.detokenize, time.perf_counter
        for token in self._sampled(should_stop):
            self.last_at = clock()
            self.first_at = self.first_at or self.last_at
            if token in stop_tokens:
                self.stop_reason = "stop"
                break
            self.tokens.append(token)
            piece = text.feed(detokenize([token]))
            if piece:
                yield piece
            if text.stopped:
                self.stop_reason = "stop"
                self._forget_from(text.stopped_at)
                return
            if len(self.tokens) >= self._limit:
                self.stop_reason = self._at_limit
                break
            if should_stop is not None and should_stop():
                break
        if rest := text.rest():
            yield rest

    def _sampled(self, should_stop: Callable[[], bool] | None) -> Iterator[int]:
        s = self._sampling
        self._llm.set_seed(s.seed)
        with suppress(Interrupted):
            yield from self._llm.generate(
                self._prompt,
                temp=s.temperature,
                top_k=s.top_k,
                top_p=s.top_p,
                min_p=s.min_p,
                repeat_penalty=1.0 if s.schema else s.repeat_penalty,
                grammar=grammar_of(s.schema),
                should_stop=should_stop,
            )

    def _forget_from(self, end: int) -> None:
        # A stop text is no part of the answer; one of the template's is written again in front of the next question.
        while self.tokens and len(self._llm.detokenize(self.tokens).decode("utf-8", "replace")) > end:
            self.tokens.pop()


class _TextStream:
    """Bytes in, text out: whole characters only, no white space in front, nothing from a stop text on.

    `stopped_at` is the place of the stop text in all that came, in characters.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._held = ""
        self._begun = False
        self._passed = 0
        self.stopped = False
        self.stopped_at = 0

    def feed(self, data: bytes) -> str:
        return self._ready(self._decoder.decode(data))

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        text = self._ready(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return self._trimmed(text)

    def _ready(self, text: str) -> str:
        self._held += text
        if not self._stops:
            text, self._held = self._held, ""
            return self._trimmed(text)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self.stopped_at = self._passed + min(found)
            text, self._held = self._held[: min(found)].rstrip(), ""
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
