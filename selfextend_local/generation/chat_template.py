"""A model's Jinja chat template, as pieces: what the template writes, and where the contents go.

The template never sees a content. It is rendered with random stand-ins, and the result is split at them, so no text of
a user, a document or a model can be mistaken for the template's own. Knows Jinja and roles. Must not know tokens.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

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


class _IgnoreGeneration(jinja2.ext.Extension):
    """`{% generation %}` of Hugging Face's templates marks text for training; here its body passes through."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        parser.stream.skip(1)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class ChatTemplate:
    """Renders roles to pieces; same helpers and settings as Transformers and llama-cpp-python.

    Raises ModelUnsupported if the source is no Jinja template.
    """

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_IgnoreGeneration, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelUnsupported(
                f"The model's chat template can't be read ({error}): take another GGUF file of this model."
            ) from error
        # One clock for a conversation: a template that prints the time must print the same one in each turn.
        self._now = datetime.now()

    def pieces(self, roles: Sequence[Role]) -> list[Piece]:
        """The conversation up to and including the header of the answer that comes next.

        Raises:
            TemplateRefused: the template doesn't take this sequence of roles.
        """
        marks: dict[str, Content | Mark] = {_stand_in(): Content(i) for i in range(len(roles))}
        messages = [{"role": r, "content": c} for r, c in zip(roles, marks, strict=True)]
        bos, eos = _stand_in(), _stand_in()
        marks[bos], marks[eos] = Mark.BOS, Mark.EOS
        try:
            text = self._template.render(
                messages=messages,
                bos_token=bos,
                eos_token=eos,
                add_generation_prompt=True,
                # Hidden reasoning costs minutes on a laptop and eats the answer's tokens.
                enable_thinking=False,
                tools=None,
                tool_choice=None,
                functions=None,
                function_call=None,
                documents=None,
                raise_exception=_refuse,
                strftime_now=self._now.strftime,
            )
        except TemplateRefused:
            raise
        except Exception as error:  # A template is a program of somebody else: anything can go wrong in it.
            raise TemplateRefused(f"{type(error).__name__}: {error}") from error
        return [marks.get(part, part) for part in re.split(f"({'|'.join(marks)})", text) if part]


def _stand_in() -> str:
    return f"x{secrets.token_hex(16)}x"


def _refuse(message: object) -> None:
    raise TemplateRefused(str(message))


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Not Jinja's own filter, which escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
