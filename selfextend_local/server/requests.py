"""The body of a request: checked, and made into messages and settings. Fields that nobody knows are ignored.

Knows OpenAI's fields and llama.cpp's beside them. Must not know HTTP, models or documents.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from selfextend_local.engine.grammar import check_grammar, grammar_of, schema_of
from selfextend_local.errors import SelfExtendError
from selfextend_local.generation.chat_template import MOST_MESSAGES, Role
from selfextend_local.generation.sampling import Sampling
from selfextend_local.storage.plain_json import loads

from .refusals import Refused, wrong

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOLS = "leave them out, ask for JSON with response_format, or start the server with --parallel."
_LARGEST_SEED = (1 << 32) - 2
_TEXT_PARTS = ("text", "input_text", "output_text")
_MOST_ANSWERS = 16
_LONGEST_STOP = 1_000
_REFUSED = {
    "tools": f"Tools aren't supported here: {TOOLS}",
    "functions": f"Functions aren't supported here: {TOOLS}",
    "logprobs": "Log-probabilities aren't supported: leave logprobs out.",
    "logit_bias": "logit_bias isn't supported: leave it out.",
    "presence_penalty": "presence_penalty isn't supported: take repeat_penalty, such as 1.1.",
    "frequency_penalty": "frequency_penalty isn't supported: take repeat_penalty, such as 1.1.",
}
"""Fields that would change the answer, and what to do instead. Empty, false or 0 they change nothing."""


@dataclass(frozen=True)
class ChatRequest:
    """A request that can be tried, for `n` answers.

    `messages` are (role, text), with at most one system message in front; or there are none, and `text` is to be continued, which
    `echo` has in front of the answer.
    """

    messages: tuple[tuple[Role, str], ...]
    sampling: Sampling
    n: int = 1
    text: str | None = None
    echo: bool = False
    document_ids: tuple[str, ...] = ()
    streams: bool = False
    wants_usage: bool = False
    wants_progress: bool = False


def parsed(data: bytes) -> dict[str, Any]:
    """The object that a body spells. Raises Refused."""
    try:
        found = loads(data, parse_constant=_no_number)
    except ValueError as error:
        raise Refused(400, "invalid_json", f"The body is no JSON ({error}): send a JSON object.") from error
    if not isinstance(found, dict):
        raise Refused(400, "invalid_json", "The body is no JSON object: send one, with messages.")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def check_constraints(body: dict[str, Any]) -> None:
    """Raises Refused for a schema or a grammar, of whatever interface, that would keep or end who makes a grammar of it."""
    for field, schema in _schemas(body):
        try:
            if field == "grammar":
                check_grammar(schema)
            else:
                grammar_of(json.dumps(schema))
        except SelfExtendError as error:
            raise Refused(400, "invalid_value", str(error), field) from error


def _schemas(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    text = body.get("text")
    for field, form in (("response_format", body.get("response_format")), ("text", text.get("format") if isinstance(text, dict) else None)):
        described = form.get("json_schema", form) if isinstance(form, dict) else None
        if isinstance(described, dict) and described.get("schema") is not None:
            yield field, described["schema"]
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        for name in ("parameters", "input_schema"):
            if isinstance(function, dict) and function.get(name) is not None:
                yield "tools", function[name]
    if body.get("json_schema") is not None:
        yield "json_schema", body["json_schema"]
    if isinstance(rules := body.get("grammar"), str) and rules:
        yield "grammar", rules


def chat_request(body: dict[str, Any], usual: Sampling) -> ChatRequest:
    """The request of a chat's body; what it leaves open is `usual`. Raises Refused."""
    return replace(_request(body, usual), messages=_messages(body.get("messages")), document_ids=_document_ids(body.get("document_ids")))


def text_request(body: dict[str, Any], usual: Sampling) -> ChatRequest:
    """The request of a body with a `prompt` that is to be continued as it is. Raises Refused."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        (prompt,) = prompt
    if not isinstance(prompt, str) or not prompt:
        raise wrong("prompt", "prompt is no text: send one text a request, not tokens.")
    for field in ("suffix", "best_of", "document_ids"):
        if body.get(field) not in (None, "", 1, []):
            raise unsupported(field, f"{field} isn't supported with a prompt: leave it out, or take /v1/chat/completions.")
    # A text that is continued, such as a program, may repeat itself.
    return replace(_request(body, replace(usual, dry=0.0)), text=prompt, echo=_flag(body, "echo"))


def unsupported(field: str, message: str) -> Refused:
    """A field that would change the answer, which the server doesn't do."""
    return Refused(400, "unsupported_parameter", message, field)


def _request(body: dict[str, Any], usual: Sampling) -> ChatRequest:
    """What is asked, without what is asked about."""
    for field, message in _REFUSED.items():
        if body.get(field) and not (field == "tools" and body.get("tool_choice") == "none"):
            raise unsupported(field, message)
    n = _whole(body, "n", 1, 1, 1 << 31)
    if n > _MOST_ANSWERS:
        raise wrong("n", f"n is {n}: {_MOST_ANSWERS} answers are the most at once.")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise wrong("stream_options", "stream_options is no object.")
    return ChatRequest(
        (),
        _sampling(body, usual),
        n,
        streams=_flag(body, "stream"),
        wants_usage=_flag(options, "include_usage"),
        wants_progress=_flag(body, "return_progress"),
    )


def _messages(given: Any) -> tuple[tuple[Role, str], ...]:
    if not isinstance(given, list) or not given:
        raise wrong("messages", 'messages is missing or empty: send [{"role": "user", "content": "…"}].')
    if len(given) > MOST_MESSAGES:
        raise wrong("messages", f"messages has {len(given):,} entries, and {MOST_MESSAGES:,} are the most: join some.")
    found = [_message(message, f"messages[{i}]") for i, message in enumerate(given)]
    first = next((i for i, (role, _) in enumerate(found) if role != "system"), len(found))
    if first > 1:
        found[:first] = [("system", "\n\n".join(text for _, text in found[:first]))]
    if all(role == "system" for role, _ in found):
        raise wrong("messages", "messages has no question: add a message with the role user.")
    return tuple(found)


def _message(given: Any, where: str) -> tuple[Role, str]:
    if not isinstance(given, dict):
        raise wrong(where, f"{where} is no object.")
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        known = ", ".join(_ROLES)
        raise wrong(f"{where}.role", f"{where}.role is {role!r}: take one of {known}. Tools aren't supported here: {TOOLS}")
    if given.get("tool_calls"):
        raise wrong(f"{where}.tool_calls", f"{where} calls tools, which aren't supported here: {TOOLS}")
    return _ROLES[role], content_text(given.get("content"), role, f"{where}.content")


def content_text(given: Any, role: str, where: str) -> str:
    """The text of a content, which may come in parts. Raises Refused."""
    if isinstance(given, str):
        return given
    if given is None and role == "assistant":
        return ""
    if not isinstance(given, list):
        raise wrong(where, f"{where} is no text: send a text, or a list of parts of type text.")
    texts = []
    for part in given:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text" if kind in _TEXT_PARTS else "refusal") if isinstance(part, dict) else None
        if kind not in (*_TEXT_PARTS, "refusal") or not isinstance(text, str):
            raise wrong(where, f"{where} holds a part of type {kind!r}: this model reads text only. Send files to /v1/documents.")
        texts.append(text)
    return "".join(texts)


def _document_ids(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise wrong("document_ids", 'document_ids is no list of ids: send ["doc-…"], as POST /v1/documents gives them.')
    return tuple(dict.fromkeys(given))


def _sampling(body: dict[str, Any], usual: Sampling) -> Sampling:
    most = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    temperature = _number(body, "temperature", usual.temperature, 0, 100)
    # Without a seed each draw is another; with temperature 0 nothing is drawn.
    seed = usual.seed if temperature == 0 else secrets.randbelow(_LARGEST_SEED)
    return replace(
        usual,
        max_tokens=_whole(body, most, usual.max_tokens, 1, 1 << 31),
        temperature=temperature,
        top_p=_number(body, "top_p", usual.top_p, 0, 1),
        top_k=_whole(body, "top_k", usual.top_k, 0, 1 << 31),
        min_p=_number(body, "min_p", usual.min_p, 0, 1),
        repeat_penalty=_number(body, "repeat_penalty", usual.repeat_penalty, 0.1, 3),
        dry=_number(body, "dry", usual.dry, 0, 10),
        seed=_whole(body, "seed", seed, -(1 << 63), 1 << 64) % (_LARGEST_SEED + 1),
        stop=_stop(body.get("stop")),
        schema=_schema(body.get("response_format")),
    )


def _number(body: dict[str, Any], name: str, usual: float, least: float, most: float) -> float:
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most or not math.isfinite(value):
        raise wrong(name, f"{name} is {value!r}: take a number from {least:g} to {most:g}.")
    return float(value)


def _whole(body: dict[str, Any], name: str, usual: int, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong(name, f"{name} is {value!r}: take a whole number{f' from {least}' if least in (0, 1) else ''}.")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise wrong(name, f"{name} is {value!r}: take true or false.")
    return bool(value)


def _stop(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else [] if given is None else given
    good = isinstance(texts, list) and all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in texts)
    if not good or len(texts) > 64:
        raise wrong("stop", f"stop is neither a text of up to {_LONGEST_STOP:,} characters nor a list of up to 64 that aren't empty.")
    return tuple(texts)


def _schema(given: Any) -> str | None:
    try:
        return schema_of(given)
    except SelfExtendError as error:
        raise wrong("response_format", str(error)) from error
