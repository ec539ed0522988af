"""Questions without a conversation: -p as text, as JSON or as events, and questions as lines of stdin.

Knows the report. Must not know the conversation's commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.chat.history import ChatHistory
from selfextend_local.errors import Interrupted, SelfExtendError

from ..errors import EXIT_ERROR, EXIT_INTERRUPTED
from ..flags.schema import is_whole, parsed
from ..terminal import interrupts, output, progress
from ..terminal.views import SilentView, view
from . import events
from .reply import say_what_it_took, show

if TYPE_CHECKING:
    from selfextend_local.chat.settings import ChatSettings
    from selfextend_local.chat.workspace import Reply, Workspace
    from selfextend_local.documents.citations import Citation
    from selfextend_local.sessions import ChatRecord

    from .options import Options


def answer(workspace: Workspace, options: Options, question: str, record: ChatRecord | None) -> int:
    """Ask and show; returns the exit code. The chat is kept if it continues one (`record`)."""
    history = ChatHistory(record)
    try:
        if workspace.fit.in_parts:
            return _answer_in_parts(workspace, options, question)
        reply = _show(workspace, options, question)
    except Interrupted as error:
        output.say(str(error))
        return events.failed(error) if options.as_events else EXIT_INTERRUPTED
    finally:
        _flush(workspace)
    code = _report(workspace, options, reply)
    if record is not None:
        history.keep(workspace)
    return code


def answer_lines(workspace: Workspace, options: Options, lines: Iterable[str], record: ChatRecord | None) -> int:
    """A conversation in events: a question a line. A question that fails is an event, and the next one is asked; returns
    the exit code of the last that failed, or 0."""
    history = ChatHistory(record)
    code = 0
    for question in filter(None, map(str.strip, lines)):
        try:
            failed = _report(workspace, options, _show(workspace, options, question))
        except SelfExtendError as error:
            output.say(f"error: {error}")
            failed = events.failed(error)
        finally:
            _flush(workspace)
        history.keep(workspace)
        if failed == EXIT_INTERRUPTED:
            return failed
        code = failed or code
    return code


def _show(workspace: Workspace, options: Options, question: str) -> Reply:
    ask = partial(workspace.stream, question)
    if options.as_events:
        return show(workspace, ask, events.EventView(), report=events.prefill(), cite=options.cite)
    if options.as_json:
        return show(workspace, ask, SilentView(), report=progress.unseen, cite=options.cite)
    with view(plain=options.as_text, thoughts=options.think == "show") as shown:
        return show(workspace, ask, shown, cite=options.cite)


def _flush(workspace: Workspace) -> None:
    workspace.tell_notes()
    workspace.chat.flush()


def _report(workspace: Workspace, options: Options, reply: Reply) -> int:
    """The report, or the lines below an answer; returns the exit code."""
    if options.for_programs:
        publish(options, report(workspace, reply))
    else:
        say_what_it_took(reply)
    return EXIT_INTERRUPTED if reply.stopped else checked(options, reply.answer)


def _answer_in_parts(workspace: Workspace, options: Options, question: str) -> int:
    """Answer from all of the documents, a part at a time; returns the exit code."""
    unseen = events.prefill() if options.as_events else progress.unseen if options.as_json else None
    bar = nullcontext(unseen) if unseen else progress.progress("Reading in parts")
    with interrupts.StopOnInterrupt() as stop, bar as update:
        summary = workspace.answer_in_parts(question, progress=update, should_stop=stop)
    text = summary.text
    if not options.for_programs:
        output.write_answer(text + "\n")
        output.say_dim(f"read in {len(summary.parts) or 1} parts, {summary.usage.prompt_tokens:,} tokens in all")
        return checked(options, text)
    usage = summary.usage
    found = {
        "answer": text,
        **_structured(options.chat, text),
        **_counts(workspace, usage.prompt_tokens, usage.completion_tokens, (summary.ga_n, summary.ga_w, summary.ga_mode)),
        "timings": {"load_s": round(workspace.load_s, 3), "prefill_s": round(usage.prefill_s, 3)},
        "stop_reason": summary.finish,
        "citations": [citation_report(c) for c in workspace.citations(text)] if options.cite else [],
        "looked_at": [],
        "overflow": {**(overflow_report(workspace) or {}), "parts": [[p.first, p.last] for p in summary.parts]},
    }
    if options.as_events:
        events.emit("token", text=text)
    publish(options, found)
    return checked(options, text)


def publish(options: Options, found: dict[str, Any]) -> None:
    """A report on stdout: one object, or the event "answer"."""
    if options.as_events:
        events.emit("answer", **found)
    else:
        click.echo(json.dumps(found, ensure_ascii=False))


def checked(options: Options, answer: str) -> int:
    """The exit code of an answer: 1, with a word, where --schema was given and the JSON isn't whole."""
    if options.chat.sampling.schema is None or is_whole(answer):
        return 0
    output.say("error: The answer was cut before its JSON was complete: raise --max-tokens.")
    return EXIT_ERROR


def _structured(settings: ChatSettings, answer: str) -> dict[str, Any]:
    """With --schema, the field "parsed"."""
    return {} if settings.sampling.schema is None else {"parsed": parsed(answer)}


def report(workspace: Workspace, reply: Reply) -> dict[str, Any]:
    """The answer and how it came about, for programs. Fields are added, never renamed."""
    stats = reply.stats
    assert stats is not None
    group = stats.group_attention
    return {
        "answer": reply.answer,
        **({"thinking": reply.thinking} if reply.thinking else {}),
        **_structured(workspace.settings, reply.answer),
        **_counts(workspace, stats.prompt_tokens, stats.completion_tokens, (group.n, group.w, group.mode)),
        "timings": {
            "load_s": round(workspace.load_s, 3),
            "prefill_s": round(stats.prefill_s, 3),
            "prefill_tps": round(stats.prefill_tps, 1),
            "ttft_s": round(stats.ttft_s, 3),
            "decode_tps": round(stats.decode_tps, 1),
        },
        "stop_reason": stats.stop_reason,
        "citations": [citation_report(c) for c in reply.citations],
        "looked_at": [
            {"page": one.page.label, "document": str(one.document.path), "weight": round(one.weight, 3)} for one in reply.looked
        ],
        "overflow": overflow_report(workspace),
    }


def _counts(workspace: Workspace, prompt_tokens: int, completion_tokens: int, group: tuple[int, int, str]) -> dict[str, Any]:
    plan, fit = workspace.llm.plan, workspace.fit
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "ga_n": group[0],
        "ga_w": group[1],
        "ga_mode": group[2],
        "n_ctx": plan.n_ctx,
        "n_ctx_train": plan.n_ctx_train,
        "documents": [
            {"path": str(document.path), "pages": document.page_count, "tokens": tokens}
            for document, tokens in zip(fit.documents, fit.size.documents, strict=True)
        ],
    }


def citation_report(citation: Citation) -> dict[str, Any]:
    """A citation and what its page says to it."""
    return {
        "page": citation.label,
        "document": None if citation.document is None else str(citation.document.path),
        "status": citation.status.name.lower(),
        "claim": citation.claim,
        "passage": None if citation.passage is None else citation.passage.text,
        "elsewhere": citation.elsewhere,
    }


def overflow_report(workspace: Workspace) -> dict[str, Any] | None:
    """What was done since the documents didn't fit; None if they did."""
    if not workspace.fit.note and not workspace.fit.in_parts:
        return None
    return {"mode": workspace.settings.overflow, "note": workspace.fit.note}
