"""Answers in the shapes of OpenAI's chat completions and completions, in one piece and in chunks.

Knows JSON. Must not know HTTP, models or how an answer comes about.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from selfextend_local.generation.stream import StopReason
from selfextend_local.generation.thinking import Part

from .forms import Answered, Dialect, Event, evidence, figures, ours
from .model import Reading
from .refusals import body
from .requests import ChatRequest, chat_request, text_request

_FINISH: dict[StopReason, str] = {"stop": "stop", "loop": "stop", "length": "length", "context": "length"}


class ChatForm:
    """The answers to one chat request; all that is sent of them has one id."""

    last_line: str | None = "[DONE]"
    _prefix, _kind, _chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, asked: ChatRequest) -> None:
        self._head = {"id": f"{self._prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._asked = asked
        self._answers: list[Answered] = []

    def whole(self, answers: Sequence[Answered]) -> Event:
        """A completion."""
        choices = [
            self._whole(answer) | {"index": index, "logprobs": None, "finish_reason": _FINISH[answer.stats.stop_reason]}
            for index, answer in enumerate(answers)
        ]
        ours = {"usage": usage(answers), "selfextend": figures(answers[0].stats)}
        return self._head | {"object": self._kind, "choices": choices} | ours

    def opening(self) -> list[Event]:
        """A chunk for each answer."""
        return [self._chunk(self._opened(), index) for index in range(self._asked.n)]

    def piece(self, part: Part) -> list[Event]:
        """A chunk with text."""
        return [self._chunk(self._piece(part), len(self._answers))]

    def progress(self, reading: Reading) -> list[Event]:
        """A chunk that says how far the prompt is read, if that is wanted."""
        if not self._asked.wants_progress:
            return []
        left = None if reading.seconds_left is None else round(reading.seconds_left, 1)
        told = {"total": reading.total, "cache": reading.cached, "processed": reading.done, "seconds_left": left}
        return [self._chunk(self._empty(), len(self._answers)) | {"prompt_progress": told}]

    def answered(self, answer: Answered) -> list[Event]:
        """The last chunk of an answer."""
        last = self._chunk(self._empty(), len(self._answers), _FINISH[answer.stats.stop_reason])
        self._answers.append(answer)
        return [last | ours(answer, self._asked)]

    def ended(self) -> list[Event]:
        """A chunk with the usage, if that is wanted."""
        if not self._asked.wants_usage:
            return []
        return [self._chunk(self._empty(), 0) | {"choices": [], "usage": usage(self._answers)}]

    def _whole(self, answer: Answered) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text()}
        if thoughts := answer.text(thought=True):
            message["reasoning_content"] = thoughts
        return {"message": message | evidence(answer, self._asked)}

    def _opened(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}

    def _piece(self, part: Part) -> dict[str, Any]:
        return {"delta": {"reasoning_content" if part.thought else "content": part.text}}

    def _empty(self) -> dict[str, Any]:
        return {"delta": {}}

    def _chunk(self, what: dict[str, Any], index: int, finish: str | None = None) -> Event:
        choice = {"index": index} | what | {"logprobs": None, "finish_reason": finish}
        chunk = self._head | {"object": self._chunk_kind, "choices": [choice]}
        return chunk | {"usage": None} if self._asked.wants_usage else chunk


class TextForm(ChatForm):
    """The continuations of one text."""

    _prefix, _kind, _chunk_kind = "cmpl", "text_completion", "text_completion"

    def _whole(self, answer: Answered) -> dict[str, Any]:
        return {"text": self._begun + answer.text()}

    @property
    def _begun(self) -> str:
        return self._asked.text or "" if self._asked.echo else ""

    def _opened(self) -> dict[str, Any]:
        return {"text": self._begun}

    def _piece(self, part: Part) -> dict[str, Any]:
        return {"text": part.text}

    def _empty(self) -> dict[str, Any]:
        return {"text": ""}


CHAT = Dialect(chat_request, ChatForm, body)
TEXT = Dialect(text_request, TextForm, body)


def usage(answers: Sequence[Answered]) -> dict[str, Any]:
    """Tokens; those are cached that needn't be evaluated. The prompt of several answers counts once."""
    stats = answers[0].stats
    written = sum(answer.stats.completion_tokens for answer in answers)
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": stats.prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
    }
