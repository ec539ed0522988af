"""A model's Jinja chat template, as pieces: what the template writes, and where the contents go.

The template never sees a content. It is rendered with random stand-ins, and the result is split at them, so no text of
a user, a document or a model can be mistaken for the template's own. Knows roles. Must not know tokens.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

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


SECONDS, MIB = 10.0, 1_024
"""What one rendering may take. Templates render in milliseconds; more is a loop, or text without end."""


class ChatTemplate:
    """Renders roles to pieces; same helpers and settings as Transformers and llama-cpp-python. It runs in a child process, with limits.

    Raises ModelUnsupported if the source is no Jinja template, or beyond the limits.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        # One clock for a conversation: a template that prints the time must print the same one in each turn.
        self._now = datetime.now().isoformat()
        if broken := self._ask(None, "", "").get("broken"):
            raise ModelUnsupported(f"The model's chat template can't be read ({broken}): take another GGUF file of this model.")

    def pieces(self, roles: Sequence[Role]) -> list[Piece]:
        """The conversation up to and including the header of the answer that comes next.

        Raises:
            TemplateRefused: the template doesn't take this sequence of roles.
            ModelUnsupported: it took more time or memory than a template needs.
        """
        secret = secrets.token_hex(16)
        messages = [{"role": role, "content": _stand_in(secret, i)} for i, role in enumerate(roles)]
        answer = self._ask(messages, _stand_in(secret, Mark.BOS.value), _stand_in(secret, Mark.EOS.value))
        if "refused" in answer:
            raise TemplateRefused(answer["refused"])
        return list(_split(answer["text"], secret))

    def _ask(self, messages: list[dict[str, str]] | None, bos: str, eos: str) -> dict[str, str]:
        request = {"source": self._source, "messages": messages, "bos_token": bos, "eos_token": eos, "now": self._now}
        try:
            renderer = shared("selfextend_local.generation.template_process:rendered", seconds=SECONDS, mib=MIB)
            found: dict[str, str] = renderer.ask(request)
        except ChildFailed as error:
            limits = {"time": f"it ran for more than {SECONDS:g} s", "memory": f"it needed more than {MIB:,} MiB"}
            said = limits.get(error.reason, "it ended the process that rendered it")
            raise ModelUnsupported(f"The model's chat template can't be used: {said}. Take another GGUF file of this model.") from error
        return found


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
