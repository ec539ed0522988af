"""Questions without a conversation: -p as text, as JSON or as events, and questions as lines of stdin.

Knows the report. Must not know the conversation's commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.errors import Interrupted, SelfExtendError

from ..errors import EXIT_ERROR, EXIT_INTERRUPTED
from ..flags.schema import parsed
from ..terminal import console
from ..terminal.views import SilentView, view
from . import events
from .history import Journal
from .reply import Ask, Reply, say_what_it_took, show

if TYPE_CHECKING:
    from selfextend_local.documents.citations import Citation
    from selfextend_local.sessions import ChatRecord

    from .options import Options
    from .workspace import Desk


def answer(desk: Desk, question: str, record: ChatRecord | None) -> int:
    """Ask and show; returns the exit code. The chat is kept if it continues one (`record`)."""
    journal = Journal(record)
    if record is not None:
        journal.resume(desk, record)
    try:
        if desk.fit.in_parts:
            from .parts import answer_in_parts

            return answer_in_parts(desk, question)
        reply = _show(desk, lambda **how: desk.chat.ask(question, **how))
    except Interrupted as error:
        console.say(str(error))
        return events.failed(error) if desk.options.as_events else EXIT_INTERRUPTED
    finally:
        _end(desk)
    code = _tell(desk, reply)
    if record is not None:
        journal.keep(desk)
    return code


def answer_lines(desk: Desk, lines: Iterable[str], record: ChatRecord | None) -> int:
    """A conversation in events: a question a line. A question that fails is an event, and the next one is asked; returns
    the exit code of the last that failed, or 0."""
    journal = Journal(record)
    if record is not None:
        journal.resume(desk, record)
    code = 0
    for question in filter(None, map(str.strip, lines)):
        try:
            failed = _tell(desk, desk.asked(question, lambda ask: _show(desk, ask)))
        except SelfExtendError as error:
            console.say(f"error: {error}")
            failed = events.failed(error)
        finally:
            _end(desk)
        journal.keep(desk)
        if failed == EXIT_INTERRUPTED:
            return failed
        code = failed or code
    return code


def _show(desk: Desk, ask: Ask) -> Reply:
    options = desk.options
    if options.as_events:
        return show(desk.chat, ask, events.EventView(), progress=events.prefill())
    if options.as_json:
        return show(desk.chat, ask, SilentView(), progress=console.unseen)
    with view(plain=options.as_text, thoughts=options.think == "show") as shown:
        return show(desk.chat, ask, shown)


def _end(desk: Desk) -> None:
    for note in desk.notes():
        console.say(note)
    desk.chat.flush()


def _tell(desk: Desk, reply: Reply) -> int:
    """The report, or the lines below an answer; returns the exit code."""
    options = desk.options
    citations = desk.citations(reply.answer) if options.cite else []
    if options.for_programs:
        publish(options, report(desk, reply, citations))
    else:
        say_what_it_took(reply, citations)
    return EXIT_INTERRUPTED if reply.stopped else checked(options, reply.answer)


def publish(options: Options, found: dict[str, Any]) -> None:
    """A report on stdout: one object, or the event "answer"."""
    if options.as_events:
        events.emit("answer", **found)
    else:
        click.echo(json.dumps(found, ensure_ascii=False))


def checked(options: Options, answer: str) -> int:
    """The exit code of an answer: 1, with a word, where --schema was given and the JSON isn't whole."""
    if options.schema is None or parsed(answer) is not None or answer.strip() == "null":
        return 0
    console.say("error: The answer was cut before its JSON was complete: raise --max-tokens.")
    return EXIT_ERROR


def structured(options: Options, answer: str) -> dict[str, Any]:
    """With --schema, the field "parsed"."""
    return {} if options.schema is None else {"parsed": parsed(answer)}


def report(desk: Desk, reply: Reply, citations: list[Citation]) -> dict[str, Any]:
    """The answer and how it came about, for programs. Fields are added, never renamed."""
    stats, plan = reply.stats, desk.llm.plan
    assert stats is not None
    thinking = {"thinking": reply.thinking} if reply.thinking else {}
    return {
        "answer": reply.answer,
        **thinking,
        **structured(desk.options, reply.answer),
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "ga_n": stats.group_attention.n,
        "ga_w": stats.group_attention.w,
        "ga_mode": stats.group_attention.mode,
        "n_ctx": plan.n_ctx,
        "n_ctx_train": plan.n_ctx_train,
        "documents": documents_report(desk),
        "timings": {
            "load_s": round(desk.load_s, 3),
            "prefill_s": round(stats.prefill_s, 3),
            "prefill_tps": round(stats.prefill_tps, 1),
            "ttft_s": round(stats.ttft_s, 3),
            "decode_tps": round(stats.decode_tps, 1),
        },
        "stop_reason": stats.stop_reason,
        "citations": [citation_report(c) for c in citations],
        "overflow": overflow_report(desk),
    }


def documents_report(desk: Desk) -> list[dict[str, Any]]:
    """What was read of each document."""
    return [
        {"path": str(document.path), "pages": document.page_count, "tokens": tokens}
        for document, tokens in zip(desk.fit.documents, desk.fit.size.documents, strict=True)
    ]


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


def overflow_report(desk: Desk) -> dict[str, Any] | None:
    """What was done since the documents didn't fit; None if they did."""
    if not desk.fit.note and not desk.fit.in_parts:
        return None
    return {"mode": desk.options.overflow, "note": desk.fit.note}
