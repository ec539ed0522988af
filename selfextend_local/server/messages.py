"""Anthropic's Messages: their bodies as chat requests, and answers in their shapes.

Knows JSON. Must not know HTTP, models or how an answer comes about.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import StopReason
from selfextend_local.generation.thinking import Part

from .forms import Answered, Dialect, Event, ours
from .model import Reading
from .refusals import Refused, wrong
from .requests import ChatRequest, chat_request, content_text

_STOPPED: dict[StopReason, str] = {"stop": "end_turn", "loop": "end_turn", "length": "max_tokens", "context": "max_tokens"}
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 503: "overloaded_error"}
_THOUGHTS = ("thinking", "redacted_thinking")


def message_request(body: dict[str, Any], usual: Sampling) -> ChatRequest:
    """The chat request of a body. Raises Refused."""
    given = body.get("messages")
    messages = [_without_thoughts(message) for message in given] if isinstance(given, list) else given
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        raise wrong("messages", "The last message is the assistant's: an answer can't be begun for it here. Leave it out.")
    names = ("temperature", "top_p", "top_k", "stream", "tools", "max_tokens", "document_ids", "min_p", "seed", "repeat_penalty", "dry")
    fields = {name: body[name] for name in names if name in body}
    asked = chat_request(fields | {"messages": messages, "stop": body.get("stop_sequences")}, usual)
    system = body.get("system")
    text = content_text(system, "system", "system") if system is not None else ""
    return replace(asked, messages=(("system", text), *asked.messages)) if text else asked


def _without_thoughts(message: Any) -> Any:
    """A message less the thoughts of an earlier answer, which aren't read again."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    kept = [part for part in content if not (isinstance(part, dict) and part.get("type") in _THOUGHTS)]
    return message | {"content": kept}


class MessageForm:
    """The answer to one request, and its events."""

    last_line: str | None = None

    def __init__(self, model: str, asked: ChatRequest) -> None:
        self._head = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model}
        self._asked = asked
        self._blocks = 0
        self._thought: bool | None = None  # of the block that is open

    def whole(self, answers: Sequence[Answered]) -> Event:
        """A message."""
        (answer,) = answers
        blocks = [_block(True, thoughts)] if (thoughts := answer.text(thought=True)) else []
        return self._head | {"content": [*blocks, _block(False, answer.text())]} | self._end(answer) | ours(answer, self._asked)

    def opening(self) -> list[Event]:
        """The message, with nothing in it."""
        empty: Event = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0}}
        return [{"type": "message_start", "message": self._head | empty}]

    def piece(self, part: Part) -> list[Event]:
        """Text, behind the beginning of its block if it is the first of it."""
        events = [] if self._thought is part.thought else [*self._closed(), self._opened(part.thought)]
        kind = "thinking" if part.thought else "text"
        delta = {"type": f"{kind}_delta", kind: part.text}
        return [*events, {"type": "content_block_delta", "index": self._blocks, "delta": delta}]

    def progress(self, reading: Reading) -> list[Event]:
        """A sign of life."""
        return [{"type": "ping"}]

    def answered(self, answer: Answered) -> list[Event]:
        """The ends of the block and of the message."""
        events = self._closed() if self._thought is False else [*self._closed(), self._opened(False), *self._closed()]
        end = self._end(answer)
        usage = end.pop("usage")
        return [*events, {"type": "message_delta", "delta": end, "usage": usage} | ours(answer, self._asked), {"type": "message_stop"}]

    def ended(self) -> list[Event]:
        """Nothing comes after the message."""
        return []

    def _opened(self, thought: bool) -> Event:
        self._thought = thought
        return {"type": "content_block_start", "index": self._blocks, "content_block": _block(thought, "")}

    def _closed(self) -> list[Event]:
        if self._thought is None:
            return []
        self._thought, index = None, self._blocks
        self._blocks += 1
        return [{"type": "content_block_stop", "index": index}]

    def _end(self, answer: Answered) -> Event:
        stats = answer.stats
        return {
            "stop_reason": "stop_sequence" if answer.ended_by else _STOPPED[stats.stop_reason],
            "stop_sequence": answer.ended_by,
            "usage": {
                "input_tokens": stats.evaluated_tokens,
                "cache_read_input_tokens": stats.cached_tokens,
                "cache_creation_input_tokens": 0,
                "output_tokens": stats.completion_tokens,
            },
        }


def _block(thought: bool, text: str) -> Event:
    return {"type": "thinking", "thinking": text, "signature": ""} if thought else {"type": "text", "text": text}


def _failed(refused: Refused) -> Event:
    kind = _KINDS.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
    message = refused.message.encode("utf-8", "replace").decode()
    return {"type": "error", "error": {"type": kind, "message": message, "code": refused.code, "param": refused.param}}


MESSAGES = Dialect(message_request, MessageForm, _failed)
