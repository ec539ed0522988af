"""One item answered by a model: how it becomes prompts, and what counts as a failure of it.

Must not know where items come from, where results go, nor how the model is loaded.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import Any

from selfextend_local.batch.job import Job, Limits
from selfextend_local.batch.outcome import Failure, failure
from selfextend_local.documents import Document
from selfextend_local.errors import Interrupted, SelfExtendError
from selfextend_local.generation.chat_template import MOST_MESSAGES, Role
from selfextend_local.generation.completion import Completion, Progress, Prompt, ShouldStop, TextModel
from selfextend_local.generation.sampling import LONG_ANSWERS, Sampling
from selfextend_local.summarize import Summary, document_prompt, pages_read, read_whole, summarize_with

Material = Document | dict[str, Any]
"""What an item holds when it is read: a document, or the body of a chat request."""

_MOST_TOKENS = 1 << 31  # more than any context holds
_SEED_BITS = (1 << 32) - 1  # what a sampler takes
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def whole_prompt(job: Job, material: Material) -> tuple[Prompt, Sampling]:
    """The prompt that has all of an item in it. Raises SelfExtendError."""
    if isinstance(material, Document):
        return document_prompt(job.instruction, [material]), job.instruction.sampling()
    return prompt_of(material)


def whole_summary(answer: Completion, job: Job, material: Material) -> Summary | Failure:
    """What the answer to `whole_prompt` comes to."""
    return checked(read_whole(answer, pages_read([material]) if isinstance(material, Document) else 0), job.instruction.schema)


def prompt_of(body: dict[str, Any]) -> tuple[Prompt, Sampling]:
    """A chat request as a prompt. Raises SelfExtendError for what isn't supported here."""
    messages: list[tuple[Role, str]] = []
    if (count := len(body["messages"])) > MOST_MESSAGES:
        raise SelfExtendError(f"The request has {count:,} messages, and {MOST_MESSAGES:,} are the most: join some.")
    for message in body["messages"]:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if isinstance(content, list):
            content = "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)) or None
        if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
            raise SelfExtendError("A message has no text, or a role other than system, user and assistant: send text only.")
        messages.append((_ROLES[role], content))
    for unknown in ("tools", "functions"):
        if body.get(unknown):
            raise SelfExtendError(f"{unknown} aren't supported: leave them out.")
    if body.get("n", 1) != 1 or body.get("stream"):
        raise SelfExtendError("n above 1 and stream aren't supported in a batch: leave them out.")
    return Prompt(tuple(messages)), _sampling(body)


def _sampling(body: dict[str, Any]) -> Sampling:
    schema = None
    form = body.get("response_format") or {}
    if not isinstance(form, dict):
        raise SelfExtendError("response_format is no object: correct it.")
    if form.get("type") == "json_schema":
        described = form.get("json_schema")
        if not isinstance(described, dict) or "schema" not in described:
            raise SelfExtendError("response_format has no json_schema.schema: give one.")
        schema = json.dumps(described["schema"])
    elif form.get("type") == "json_object":
        schema = '{"type": "object"}'
    try:
        return replace(
            LONG_ANSWERS,
            max_tokens=min(max(1, int(body.get("max_completion_tokens") or body.get("max_tokens") or 512)), _MOST_TOKENS),
            schema=schema,
            temperature=_finite(body.get("temperature") or 0.0),
            top_p=_finite(body.get("top_p") or 0.95),
            seed=int(body.get("seed") or 0) & _SEED_BITS,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise SelfExtendError(f"A setting of the request is no number ({error}): correct it.") from error


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value}")
    return number


def carry_out(
    model: TextModel, job: Job, material: Material, progress: Progress | None = None, should_stop: ShouldStop | None = None
) -> Summary | Failure:
    """Answer one item with a model; what goes wrong with it is a Failure.

    Raises Interrupted only if `should_stop` said so.
    """
    patience = Patience(job.limits.answer_s, should_stop)
    try:
        if isinstance(material, Document):
            summary = summarize_with(model, material, job.instruction, progress=progress, should_stop=patience)
        else:
            prompt, sampling = prompt_of(material)
            summary = read_whole(model.answer(prompt, sampling, progress=progress, should_stop=patience), 0)
    except Interrupted:
        if not patience.is_over:
            raise
        return late(job.limits)
    except Exception as error:  # One item's failure must not be the end of the others.
        return failure(error)
    return checked(summary, job.instruction.schema)


def late(limits: Limits) -> Failure:
    """That an item's time is up."""
    return Failure("timeout", f"No answer within {limits.answer_s:g} s: raise --timeout, or ask for fewer words.")


def checked(summary: Summary, schema: str | None) -> Summary | Failure:
    """The summary, or why it is of no use."""
    if schema is not None and summary.finish == "length":
        return Failure("incomplete_json", "The answer was cut before its JSON was complete: raise --max-tokens.")
    if not summary.text.strip():
        return Failure("empty_answer", "The model gave no answer: try another prompt or model.")
    return summary


class Patience:
    """Says stop when the caller does, or when the time is up."""

    def __init__(self, seconds: float | None, should_stop: ShouldStop | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._should_stop = should_stop
        self.is_over = False

    def __call__(self) -> bool:
        if self._should_stop and self._should_stop():
            return True
        self.is_over = self._deadline is not None and time.monotonic() > self._deadline
        return self.is_over


