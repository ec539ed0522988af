"""Answers in OpenAI's shapes: a chat completion, and its chunks.

Knows JSON. Must not know HTTP, models or how an answer comes about.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from selfextend_local.chat.conversation import TurnStats
from selfextend_local.generation.stream import StopReason
from selfextend_local.generation.thinking import Part

from .model import Reading

_FINISH: dict[StopReason, str] = {"stop": "stop", "loop": "stop", "length": "length", "context": "length"}


class Completion:
    """One answer to a client; all that is sent of it has one id."""

    def __init__(self, model: str, *, wants_usage: bool = False, cites: bool = False) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._wants_usage, self._cites = wants_usage, cites

    def whole(self, shown: Sequence[Part], stats: TurnStats, citations: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": _joined(shown, thought=False)}
        if thoughts := _joined(shown, thought=True):
            message["reasoning_content"] = thoughts
        if self._cites:
            message["citations"] = list(citations)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[stats.stop_reason]}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": usage(stats), "selfextend": figures(stats)}

    def opening(self) -> dict[str, Any]:
        """The first chunk."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, part: Part) -> dict[str, Any]:
        """A chunk with text."""
        return self._chunk({"reasoning_content" if part.thought else "content": part.text})

    def progress(self, reading: Reading) -> dict[str, Any]:
        """A chunk that says how far the prompt is read."""
        left = None if reading.seconds_left is None else round(reading.seconds_left, 1)
        told = {"total": reading.total, "cache": reading.cached, "processed": reading.done, "seconds_left": left}
        return self._chunk({}) | {"prompt_progress": told}

    def closing(self, stats: TurnStats, citations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The last chunks."""
        last = self._chunk({}, _FINISH[stats.stop_reason]) | {"selfextend": figures(stats)}
        if self._cites:
            last["citations"] = list(citations)
        if not self._wants_usage:
            return [last]
        return [last, self._chunk({}) | {"choices": [], "usage": usage(stats)}]

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        return chunk | {"usage": None} if self._wants_usage else chunk


def usage(stats: TurnStats) -> dict[str, Any]:
    """Tokens; those are cached that needn't be evaluated."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "total_tokens": stats.prompt_tokens + stats.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.prompt_tokens - stats.evaluated_tokens},
    }


def figures(stats: TurnStats) -> dict[str, Any]:
    """What OpenAI's fields have no place for."""
    return {
        "stop_reason": stats.stop_reason,
        "group_attention": stats.group_attention.label,
        "evaluated_tokens": stats.evaluated_tokens,
        "restored_tokens": stats.restored_tokens,
        "prefill_s": round(stats.prefill_s, 3),
        "decode_tps": round(stats.decode_tps, 1),
    }


def _joined(shown: Sequence[Part], *, thought: bool) -> str:
    return "".join(part.text for part in shown if part.thought is thought)
