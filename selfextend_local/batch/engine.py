"""One model on one machine, answering one item after the other; loaded when it is first needed.

The context is as long as the longest text so far needs, and loaded anew, longer, when a text asks for it. Knows how an
item becomes prompts. Must not know where items come from nor where results go.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from selfextend_local.batch.job import Job
from selfextend_local.batch.outcome import Failure, failure
from selfextend_local.chat_template import Role
from selfextend_local.completion import LocalModel, Progress, Prompt, Sampling, ShouldStop, TextModel
from selfextend_local.documents import Document
from selfextend_local.errors import Interrupted, MemoryBudgetError, SelfExtendError
from selfextend_local.prompts import PeekVocabulary, Prompts
from selfextend_local.summarize import Summary, Usage, document_prompt, need, summarize_with

if TYPE_CHECKING:
    from selfextend_local.model import SelfExtendLlama

Material = Document | dict[str, Any]
"""What an item holds when it is read: a document, or the body of a chat request."""

_SMALLEST_CONTEXT = 2048
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def prompt_of(body: dict[str, Any]) -> tuple[Prompt, Sampling]:
    """A chat request as a prompt. Raises SelfExtendError for what isn't supported here."""
    messages: list[tuple[Role, str]] = []
    for message in body["messages"]:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if isinstance(content, list):
            content = "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)) or None
        if role not in _ROLES or not isinstance(content, str):
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
    if form.get("type") == "json_schema":
        schema = json.dumps(form["json_schema"]["schema"])
    elif form.get("type") == "json_object":
        schema = '{"type": "object"}'
    try:
        return Sampling(
            max_tokens=max(1, int(body.get("max_completion_tokens") or body.get("max_tokens") or 512)),
            schema=schema,
            temperature=float(body.get("temperature") or 0.0),
            top_p=float(body.get("top_p") or 0.95),
            seed=int(body.get("seed") or 0),
        )
    except (TypeError, ValueError) as error:
        raise SelfExtendError(f"A setting of the request is no number ({error}): correct it.") from error


def carry_out(
    model: TextModel, job: Job, material: Material, progress: Progress | None = None, should_stop: ShouldStop | None = None
) -> Summary | Failure:
    """Answer one item with a model; what goes wrong with it is a Failure.

    Raises Interrupted only if `should_stop` said so.
    """
    patience = _Patience(job.limits.answer_s, should_stop)
    try:
        if isinstance(material, Document):
            summary = summarize_with(model, material, job.instruction, progress=progress, should_stop=patience)
        else:
            prompt, sampling = prompt_of(material)
            answer = model.answer(prompt, sampling, progress=progress, should_stop=patience)
            summary = Summary(answer.text, "whole", (), 0, Usage().plus(answer), answer.finish, answer.ga_n, answer.ga_w)
    except Interrupted:
        if not patience.is_over:
            raise
        return Failure("timeout", f"No answer within {job.limits.answer_s:g} s: raise --timeout, or ask for fewer words.")
    except Exception as error:  # One item's failure must not be the end of the others.
        return failure(error)
    return _checked(summary, job.instruction.schema)


def _checked(summary: Summary, schema: str | None) -> Summary | Failure:
    if schema is not None and summary.finish == "length":
        return Failure("incomplete_json", "The answer was cut before its JSON was complete: raise --max-tokens.")
    if not summary.text.strip():
        return Failure("empty_answer", "The model gave no answer: try another prompt or model.")
    return summary


class _Patience:
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


class Engine:
    """The local model of a job.

    Args:
        on_load: called with the plan in one line, each time a context is made.

    Raises ModelNotFound, ModelError, LibraryError, GroupAttentionError, MemoryBudgetError.
    """

    def __init__(self, job: Job, on_load: Callable[[str], None] | None = None) -> None:
        from selfextend_local.model import ModelPeek

        self._job = job
        self._on_load = on_load
        self._peek = ModelPeek(job.model.path)
        self.largest = self._largest()
        self.name = self._peek.info.name
        prompts = Prompts(PeekVocabulary(self._peek))
        self.warning = prompts.warning
        self._sizes = _Sizes(prompts)
        self._llm: SelfExtendLlama | None = None
        self._model: LocalModel | None = None

    def _largest(self) -> int:
        """Tokens of the longest context that the settings allow and the free memory holds."""
        from selfextend_local.plan import Settings

        m = self._job.model
        return self._peek.plan(Settings(ga_n=m.ga_n, ga_w=m.ga_w, n_ctx=m.context, kv_type=m.kv_type, gpu_layers=m.gpu_layers)).capacity

    def need(self, material: Material) -> int:
        """Tokens that the context would have to hold to read this item whole. Needs no weights."""
        with suppress(SelfExtendError, AttributeError, KeyError, TypeError):  # carry_out will say what is wrong
            if isinstance(material, Document):
                return need(self._sizes, document_prompt(self._job.instruction, [material]), self._job.instruction)
            prompt, sampling = prompt_of(material)
            return self._sizes.size(prompt) + sampling.max_tokens
        return 1

    def make_room(self, tokens: int) -> None:
        """Have a context of at least that many tokens, or of the largest size there can be."""
        if self._llm is not None and self._llm.capacity >= min(tokens, self.largest):
            return
        self.unload()
        size = _SMALLEST_CONTEXT
        while size < tokens:
            size *= 2
        try:
            self._load(min(size, self.largest))
        except MemoryBudgetError:
            # Others have taken memory since: what doesn't fit any more is read in parts.
            self.largest = self._largest()
            self._load(min(size, self.largest))

    def _load(self, n_ctx: int) -> None:
        from selfextend_local.model import SelfExtendLlama

        m = self._job.model
        self._llm = SelfExtendLlama(
            m.path,
            ga_n=m.ga_n,
            ga_w=m.ga_w,
            n_ctx=n_ctx,
            kv_type=m.kv_type,
            n_threads=m.threads,
            n_gpu_layers=m.gpu_layers,
        )
        self._model = LocalModel(self._llm)
        if self._on_load:
            self._on_load(self._llm.plan.describe())

    def run(
        self, material: Material, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Summary | Failure:
        """Raises Interrupted if `should_stop` said so, and what loading the model raises."""
        self.make_room(self.need(material))
        assert self._model is not None
        return carry_out(self._model, self._job, material, progress, should_stop)

    def unload(self) -> None:
        """Free the weights and the context."""
        if self._llm is not None:
            self._llm.close()
            self._llm, self._model = None, None

    def close(self) -> None:
        self.unload()
        self._peek.close()


class _Sizes:
    """Counts as the model would, from its vocabulary alone."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts

    def count(self, text: str) -> int:
        return self._prompts.count(text)

    def size(self, prompt: Prompt) -> int:
        return len(self._prompts.tokens([self._prompts.message(role, text) for role, text in prompt.messages]))

