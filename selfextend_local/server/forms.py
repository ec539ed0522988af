"""What the shapes of answers have in common, whoever's interface they are of.

Must not know HTTP, models or how an answer comes about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from selfextend_local.chat.conversation import TurnStats
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.thinking import Part

from .model import Reading
from .refusals import Refused
from .requests import ChatRequest

Event = dict[str, Any]
"""A line of a stream. One with a `type` is an event of that name."""


@dataclass(frozen=True)
class Answered:
    """An answer that is complete. `ended_by`: the text of the request's `stop` that ended it. `looked_at`: see `looked_pages`."""

    shown: tuple[Part, ...]
    stats: TurnStats
    ended_by: str | None = None
    citations: Sequence[dict[str, Any]] = ()
    looked_at: Sequence[dict[str, Any]] = ()

    def text(self, *, thought: bool = False) -> str:
        """What is meant for the reader, or the thoughts."""
        return "".join(part.text for part in self.shown if part.thought is thought)


class Form(Protocol):
    """The shape of what is sent for one request: in one piece, or as events.

    last_line: what ends a stream, if anything does.
    """

    last_line: str | None

    def whole(self, answers: Sequence[Answered]) -> Event:
        """The answers, as many as were asked for."""

    def opening(self) -> list[Event]:
        """The first events."""

    def piece(self, part: Part) -> list[Event]:
        """Text of the answer that is being written."""

    def progress(self, reading: Reading) -> list[Event]:
        """How far the prompt is read."""

    def answered(self, answer: Answered) -> list[Event]:
        """The answer that is being written is complete."""

    def ended(self) -> list[Event]:
        """All answers are."""


class Dialect(NamedTuple):
    """An interface: how a body is understood (what it leaves open is in the Sampling), the form of the answer of a model of that name,
    and what an error's body says."""

    understood: Callable[[dict[str, Any], Sampling], ChatRequest]
    form: Callable[[str, ChatRequest], Form]
    failed: Callable[[Refused], dict[str, Any]]


def ours(answer: Answered, asked: ChatRequest) -> Event:
    """What is beside an answer in each interface: its figures, and what it stands on."""
    return {"selfextend": figures(answer.stats)} | evidence(answer, asked)


def evidence(answer: Answered, asked: ChatRequest) -> dict[str, Any]:
    """The pages that an answer names, and those that the model looked at, if documents were named."""
    return {"citations": list(answer.citations), "looked_at": list(answer.looked_at)} if asked.document_ids else {}


def figures(stats: TurnStats) -> dict[str, Any]:
    """What nobody's fields have a place for."""
    return {
        "stop_reason": stats.stop_reason,
        "group_attention": stats.group_attention.label,
        "evaluated_tokens": stats.evaluated_tokens,
        "restored_tokens": stats.restored_tokens,
        "prefill_s": round(stats.prefill_s, 3),
        "decode_tps": round(stats.decode_tps, 1),
    }
