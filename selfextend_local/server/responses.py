"""OpenAI's Responses: their bodies as chat requests, and answers in their shapes. Nothing is kept: a conversation comes whole.

Knows JSON. Must not know HTTP, models or how an answer comes about.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import StopReason
from selfextend_local.generation.thinking import Part

from .forms import Answered, Dialect, Event, ours
from .model import Reading
from .refusals import body, wrong
from .requests import ChatRequest, chat_request, unsupported

_NOT_KEPT = "Answers aren't kept: send the whole conversation as input."
_REFUSED = {
    "previous_response_id": _NOT_KEPT,
    "conversation": _NOT_KEPT,
    "background": "background isn't supported: take stream, or wait for the answer.",
    "prompt": "Prompts by id aren't kept here: send input and instructions.",
    "top_logprobs": "Log-probabilities aren't supported: leave top_logprobs out.",
}
_INCOMPLETE: tuple[StopReason, ...] = ("length", "context")


def response_request(body: dict[str, Any], usual: Sampling) -> ChatRequest:
    """The chat request of a body. Raises Refused."""
    for field, message in _REFUSED.items():
        if body.get(field):
            raise unsupported(field, message)
    given = body.get("input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) and given else given
    if not isinstance(messages, list) or not messages:
        raise wrong("input", 'input is missing or empty: send a text, or [{"role": "user", "content": "…"}].')
    messages = [_message(item, f"input[{i}]") for i, item in enumerate(messages)]
    messages = [message for message in messages if message is not None]
    instructions = body.get("instructions")
    if not isinstance(instructions, (str, type(None))):
        raise wrong("instructions", "instructions is no text.")
    if instructions:
        messages.insert(0, {"role": "system", "content": instructions})
    names = ("temperature", "top_p", "stream", "tools", "tool_choice", "document_ids", "top_k", "min_p", "seed", "stop")
    fields = {name: body[name] for name in names if name in body}
    limit = {"max_tokens": body.get("max_output_tokens")}
    return chat_request(fields | limit | {"messages": messages, "response_format": _format(body.get("text"))}, usual)


def _message(item: Any, where: str) -> dict[str, Any] | None:
    """An item of the input as a message; None for the thoughts of an earlier answer, which aren't read again."""
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "reasoning":
        return None
    if kind != "message":
        raise wrong(where, f"{where} is of type {kind!r}: send messages. Tools and files by id aren't supported here.")
    assert isinstance(item, dict)
    return item


def _format(given: Any) -> dict[str, Any] | None:
    """`text.format` as a chat's response_format."""
    form = (given or {}).get("format") if isinstance(given, dict) or not given else given
    if isinstance(form, dict) and form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": form}
    return form


class ResponseForm:
    """The answer to one request, and its events."""

    last_line: str | None = None

    def __init__(self, model: str, asked: ChatRequest) -> None:
        self._asked = asked
        sampling = asked.sampling
        self._head: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(16)}", "object": "response", "created_at": int(time.time()), "model": model, "error": None,
            "incomplete_details": None, "instructions": None, "max_output_tokens": sampling.max_tokens, "metadata": {},
            "parallel_tool_calls": False, "previous_response_id": None, "store": False, "temperature": sampling.temperature,
            "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": sampling.top_p, "truncation": "disabled",
        }  # fmt: skip
        self._number = -1
        self._items: list[Event] = []
        self._open: Event | None = None
        self._texts: list[str] = []

    def whole(self, answers: Sequence[Answered]) -> Event:
        """A response."""
        (answer,) = answers
        items = [_item(True, thoughts)] if (thoughts := answer.text(thought=True)) else []
        return self._complete(answer, [*items, _item(False, answer.text())])

    def opening(self) -> list[Event]:
        """The response, with nothing in it."""
        empty = self._head | {"status": "in_progress", "output": [], "usage": None}
        return [self._event(f"response.{name}", response=empty) for name in ("created", "in_progress")]

    def piece(self, part: Part) -> list[Event]:
        """Text, behind the beginning of its item if it is the first of it."""
        events = []
        if self._open is None or _is_thought(self._open) != part.thought:
            events = [*self._closed(), *self._opened(part.thought)]
        self._texts.append(part.text)
        return [*events, self._part_event("delta", delta=part.text)]

    def progress(self, reading: Reading) -> list[Event]:
        """There is no event for it."""
        return []

    def answered(self, answer: Answered) -> list[Event]:
        """The ends of the item and of the response."""
        if self._open is None or _is_thought(self._open):
            events = [*self._closed(), *self._opened(False), *self._closed()]
        else:
            events = self._closed()
        response = self._complete(answer, self._items)
        return [*events, self._event(f"response.{response['status']}", response=response)]

    def ended(self) -> list[Event]:
        """Nothing comes after the response."""
        return []

    def _opened(self, thought: bool) -> list[Event]:
        self._open, self._texts = _item(thought, ""), []
        item = self._open | {"status": "in_progress", "content": []}
        (part,) = self._open["content"]
        return [
            self._event("response.output_item.added", output_index=len(self._items), item=item),
            self._placed("response.content_part.added", part=part),
        ]

    def _closed(self) -> list[Event]:
        if self._open is None:
            return []
        text = "".join(self._texts)
        item = _item(_is_thought(self._open), text) | {"id": self._open["id"]}
        events = [
            self._part_event("done", text=text),
            self._placed("response.content_part.done", part=item["content"][0]),
            self._event("response.output_item.done", output_index=len(self._items), item=item),
        ]
        self._items.append(item)
        self._open = None
        return events

    def _part_event(self, name: str, **fields: Any) -> Event:
        assert self._open is not None
        kind = "reasoning_text" if _is_thought(self._open) else "output_text"
        return self._placed(f"response.{kind}.{name}", **fields | ({} if kind == "reasoning_text" else {"logprobs": []}))

    def _placed(self, kind: str, **fields: Any) -> Event:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], output_index=len(self._items), content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}

    def _complete(self, answer: Answered, items: Sequence[Event]) -> Event:
        stats = answer.stats
        ended = stats.stop_reason in _INCOMPLETE
        return self._head | {
            "status": "incomplete" if ended else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if ended else None,
            "output": list(items),
            "usage": {
                "input_tokens": stats.prompt_tokens,
                "input_tokens_details": {"cached_tokens": stats.cached_tokens},
                "output_tokens": stats.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": stats.prompt_tokens + stats.completion_tokens,
            },
        } | ours(answer, self._asked)  # fmt: skip


def _item(thought: bool, text: str) -> Event:
    if thought:
        thoughts = [{"type": "reasoning_text", "text": text}]
        return {"id": f"rs_{secrets.token_hex(16)}", "type": "reasoning", "status": "completed", "summary": [], "content": thoughts}
    part: Event = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": f"msg_{secrets.token_hex(16)}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _is_thought(item: Event) -> bool:
    return bool(item["type"] == "reasoning")


RESPONSES = Dialect(response_request, ResponseForm, body)
