"""One question, one answer: -p, as text or as JSON.

Knows the report. Must not know the conversation's commands.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.errors import Interrupted

from . import console
from .edge import EXIT_INTERRUPTED
from .render import SilentView, view
from .reply import Reply, say_what_it_took, show

if TYPE_CHECKING:
    from selfextend_local.documents.citations import Citation
    from selfextend_local.sessions import ChatRecord

    from .desk import Desk


def answer(desk: Desk, question: str, record: ChatRecord | None) -> int:
    """Ask and show; returns the exit code. The chat is kept if it continues one (`record`)."""
    from .journal import Journal

    options = desk.options
    journal = Journal(record)
    if record is not None:
        journal.resume(desk, record)
    try:
        if desk.fit.in_parts:
            from .parts import answer_in_parts

            return answer_in_parts(desk, question)
        reply = _ask(desk, question)
    except Interrupted as error:
        console.say(str(error))
        return EXIT_INTERRUPTED
    finally:
        for note in desk.notes():
            console.say(note)
        desk.chat.flush()
    citations = desk.citations(reply.answer) if options.cite else []
    if options.as_json:
        click.echo(json.dumps(report(desk, reply, citations), ensure_ascii=False))
    else:
        say_what_it_took(reply, citations)
    if record is not None:
        journal.keep(desk)
    return EXIT_INTERRUPTED if reply.stopped else 0


def _ask(desk: Desk, question: str) -> Reply:
    options = desk.options

    def ask(**how: Any) -> Any:
        return desk.chat.ask(question, **how)

    if options.as_json:
        return show(desk.chat, ask, SilentView(), quiet=True)
    with view(plain=options.plain, thoughts=options.think == "show") as shown:
        return show(desk.chat, ask, shown)


def report(desk: Desk, reply: Reply, citations: list[Citation]) -> dict[str, Any]:
    """The answer and how it came about, for programs. Fields are added, never renamed."""
    stats, plan = reply.stats, desk.llm.plan
    assert stats is not None
    thinking = {"thinking": reply.thinking} if reply.thinking else {}
    return {
        "answer": reply.answer,
        **thinking,
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "ga_n": stats.ga_n,
        "ga_w": stats.ga_w,
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
