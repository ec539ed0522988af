"""A model's Jinja chat template, as pieces: what the template writes, and where the contents go.

The template never sees a content. It is rendered with random stand-ins, and the result is split at them, so no text of
a user, a document or a model can be mistaken for the template's own. Knows roles. Must not know tokens.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Literal

from selfextend_local.child import ChildFailed, shared
from selfextend_local.errors import ModelUnsupported

Role = Literal["system", "user", "assistant"]

PLAIN_TEMPLATE = """\
{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}User: {{ message.content }}

{% else %}Assistant: {{ message.content }}

{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
"""For models that bring no template: a transcript, which base models continue. The best that can be done, not good."""


@dataclass(frozen=True, slots=True)
class Content:
    """The place of the content of message `index`."""

    index: int


class Mark(Enum):
    """The place of a special token that the template asked for by name."""

    BOS = "bos"
    EOS = "eos"


Piece = str | Content | Mark


class TemplateRefused(Exception):
    """The template raised an error on this sequence of roles (many refuse a system message)."""


MOST_MESSAGES = 4096
"""Messages of a conversation that comes from elsewhere: each is rendered with all before it."""

SECONDS, MIB = 10.0, 1_024
"""What one rendering may take, and all trials of a template together. Templates render in milliseconds; more is a loop, or text without
end."""


class ChatTemplate:
    """Renders roles to pieces; same helpers and settings as Transformers and llama-cpp-python. It runs in a child process, with limits.

    Raises ModelUnsupported if the source is no Jinja template, or beyond the limits.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # One clock for a conversation: a template that prints the time must print the same one in each turn.
        self._now = datetime.now().isoformat()
        self._trials = _trials(source)
        self._trials.check()

    def pieces(self, roles: Sequence[Role]) -> list[Piece]:
        """The conversation up to and including the header of the answer that comes next.

        Raises:
            TemplateRefused: the template doesn't take this sequence of roles, or writes too much around it.
            ModelUnsupported: it took more time or memory than a template needs.
        """
        found = _rendered(self._source, roles, self._now)
        for reason in (found.refused, found.too_long):
            if reason is not None:
                raise TemplateRefused(reason)
        return found.pieces

    def trial(self, roles: Sequence[Role]) -> list[Piece]:
        """As `pieces`, to learn how the template writes: rendered once for all who ask about it, at whatever time that was.

        Raises:
            TemplateRefused: the template doesn't take this sequence of roles.
            ModelUnsupported: for this or any earlier trial it wrote too much, or all together took too long.
        """
        return self._trials.pieces(tuple(roles))


@dataclass(frozen=True, slots=True)
class _Rendering:
    """What came of rendering: pieces, or why there are none; and the processor's time that it took."""

    pieces: list[Piece]
    seconds: float
    broken: str | None = None
    refused: str | None = None
    too_long: str | None = None


class _Trials:
    """The trials of one template. What they find is kept, also that it can't be used: a template that takes long would take it once
    for each shape of conversation, and for each who asks."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._now = datetime.now().isoformat()
        self._lock = threading.Lock()
        self._kept: dict[tuple[Role, ...] | None, _Rendering] = {}
        self._seconds = 0.0
        self._unusable: str | None = None

    def check(self) -> None:
        """Raises ModelUnsupported if it is no template."""
        self._found(None)

    def pieces(self, roles: tuple[Role, ...]) -> list[Piece]:
        found = self._found(roles)
        if found.refused is not None:
            raise TemplateRefused(found.refused)
        return list(found.pieces)

    def _found(self, roles: tuple[Role, ...] | None) -> _Rendering:
        with self._lock:
            if self._unusable is None and roles not in self._kept:
                self._try(roles)
            if self._unusable is not None:
                raise ModelUnsupported(self._unusable)
            return self._kept[roles]

    def _try(self, roles: tuple[Role, ...] | None) -> None:
        try:
            found = self._kept[roles] = _rendered(self._source, roles, self._now)
        except _BeyondLimits as error:
            self._unusable = str(error)
            return
        self._seconds += found.seconds
        if found.broken is not None:
            self._unusable = f"The model's chat template can't be read ({found.broken}): take another GGUF file of this model."
        elif found.too_long is not None:
            self._unusable = _unusable(found.too_long)
        elif self._seconds > SECONDS:
            self._unusable = _unusable(_too_slow())


class _BeyondLimits(ModelUnsupported):
    """It would go there again. A crash may have been somebody else's."""


@lru_cache(8)
def _trials(source: str) -> _Trials:
    return _Trials(source)


def _too_slow() -> str:
    return f"it ran for more than {SECONDS:g} s"


def _unusable(why: str) -> str:
    return f"The model's chat template can't be used: {why}. Take another GGUF file of this model."


def _rendered(source: str, roles: Sequence[Role] | None, now: str) -> _Rendering:
    """Without roles, only whether the source is a template."""
    secret = secrets.token_hex(16)
    request: dict[str, Any] = {"source": source, "messages": None, "now": now}
    request |= {f"{mark.value}_token": _stand_in(secret, mark.value) for mark in Mark}
    if roles is not None:
        request["messages"] = [{"role": role, "content": _stand_in(secret, i)} for i, role in enumerate(roles)]
    try:
        answer = shared("selfextend_local.generation.template_process:rendered", seconds=SECONDS, mib=MIB).ask(request)
    except ChildFailed as error:
        limits = {"time": _too_slow(), "memory": f"it needed more than {MIB:,} MiB"}
        if error.reason in limits:
            raise _BeyondLimits(_unusable(limits[error.reason])) from error
        raise ModelUnsupported(_unusable("it ended the process that rendered it")) from error
    return _Rendering(list(_split(answer.pop("text", ""), secret)), **answer)


_PLACE = re.compile("([0-9]+|bos|eos)x")


def _stand_in(secret: str, place: int | str) -> str:
    return f"x{secret}x{place}x"


def _split(text: str, secret: str) -> Iterator[Piece]:
    """`text` cut at its stand-ins. What a template made of one that it changed is text: its place is missing then."""
    written, *rest = text.split(f"x{secret}x")
    for part in rest:
        if not (place := _PLACE.match(part)):
            written += part
            continue
        if written:
            yield written
        yield Content(int(place[1])) if place[1].isdecimal() else Mark(place[1])
        written = part[place.end() :]
    if written:
        yield written
