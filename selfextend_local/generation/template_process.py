"""Rendering a chat template: what runs in the child process of chat_template.py, since a template is a program of somebody else.

Knows Jinja. A sandbox keeps it from Python's objects, the child's limits from time and memory.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# The most characters around the contents: no template writes as many, and a reader of any length would spend hours on more.
_MOST, _MOST_A_MESSAGE = 16_384, 4_096


class _IgnoreGeneration(jinja2.ext.Extension):
    """`{% generation %}` of Hugging Face's templates marks text for training; here its body passes through."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        parser.stream.skip(1)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def rendered(request: dict[str, Any]) -> dict[str, Any]:
    """The text of a conversation, or why there is none: the template refuses it, writes too much, or is broken. Without messages, only
    whether it is. And the processor's time that it took."""
    started = time.process_time()
    answer: dict[str, Any] = _answer(request)
    return answer | {"seconds": time.process_time() - started}


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        template = _compiled(request["source"])
    except Exception as error:  # Deep nesting is a RecursionError, an IndentationError or a ValueError.
        return {"broken": f"{type(error).__name__}: {error}" if not isinstance(error, jinja2.TemplateError) else str(error)}
    if request["messages"] is None:
        return {}
    try:
        most = _MOST + _MOST_A_MESSAGE * len(request["messages"])
        text = "".join(_limited(template.generate(_names(request)), most))
    except _TooLong as error:
        return {"too_long": str(error)}
    except _Refused as error:
        return {"refused": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # Anything can go wrong in it.
        return {"refused": f"{type(error).__name__}: {error}"}
    return {"text": text}


class _Refused(Exception):
    pass


class _TooLong(Exception):
    pass


def _refuse(message: object) -> None:
    raise _Refused(str(message))


def _limited(parts: Any, most: int) -> Any:
    written = 0
    for part in parts:
        written += len(part)
        if written > most:
            raise _TooLong(f"it writes more than {most:,} characters around the messages")
        yield part


def _names(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "messages": request["messages"],
        "bos_token": request["bos_token"],
        "eos_token": request["eos_token"],
        "add_generation_prompt": True,
        # Hidden reasoning costs minutes on a laptop and eats the answer's tokens.
        "enable_thinking": False,
        **dict.fromkeys(("tools", "tool_choice", "functions", "function_call", "documents")),
        "raise_exception": _refuse,
        "strftime_now": datetime.fromisoformat(request["now"]).strftime,
    }


@lru_cache(4)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_IgnoreGeneration, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    return environment.from_string(source)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Not Jinja's own filter, which escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
