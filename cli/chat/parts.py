"""--overflow summarize: documents that don't fit are read in parts; an answer, or notes, are made of them.

Knows the summariser. Must not know the conversation's commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from selfextend_local.documents import Document, Page
from selfextend_local.errors import Interrupted

from ..errors import EXIT_INTERRUPTED
from ..terminal import console
from . import events

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.summarize import Instruction, Summary

    from .workspace import Desk

NOTES = "Write down the main points of this part"


def answer_in_parts(desk: Desk, question: str) -> int:
    """Answer from all of the documents, a part at a time; returns the exit code."""
    from selfextend_local.summarize import Instruction

    from .one_shot import checked, citation_report, documents_report, overflow_report, publish, structured

    options = desk.options
    instruction = Instruction(
        question, max_tokens=options.max_tokens, schema=options.schema, temperature=options.temperature, seed=options.seed
    )
    progress = events.prefill() if options.as_events else console.unseen if options.as_json else None
    try:
        summary = _read(desk.llm, desk.fit.documents, instruction, progress)
    except Interrupted as error:
        console.say(str(error))
        return events.failed(error) if options.as_events else EXIT_INTERRUPTED
    text = _before_stop(summary.text, options.stop)
    if not options.for_programs:
        console.write_answer(text + "\n")
        console.mutter(f"read in {len(summary.parts) or 1} parts, {summary.usage.prompt_tokens:,} tokens in all")
        return checked(options, text)
    citations = [citation_report(c) for c in desk.citations(text)] if options.cite else []
    usage, plan = summary.usage, desk.llm.plan
    found = {
        "answer": text,
        **structured(options, text),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "ga_n": summary.ga_n,
        "ga_w": summary.ga_w,
        "ga_mode": summary.ga_mode,
        "n_ctx": plan.n_ctx,
        "n_ctx_train": plan.n_ctx_train,
        "documents": documents_report(desk),
        "timings": {"load_s": round(desk.load_s, 3), "prefill_s": round(usage.prefill_s, 3)},
        "stop_reason": summary.finish,
        "citations": citations,
        "overflow": {**(overflow_report(desk) or {}), "parts": [[p.first, p.last] for p in summary.parts]},
    }
    if options.as_events:
        events.emit("token", text=text)
    publish(options, found)
    return checked(options, text)


def _before_stop(text: str, stops: Sequence[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))].rstrip()


def notes_on(llm: SelfExtendLlama, documents: Sequence[Document]) -> Document:
    """Notes on all of the documents, under the pages that they are on, to talk about in their place. Raises Interrupted."""
    from selfextend_local.summarize import Instruction

    console.say("overflow: the documents don't fit; notes are taken, a part at a time, and read in their place.")
    summary = _read(llm, documents, Instruction(NOTES), None)
    pages = tuple(
        Page(number, f"{part.first}-{part.last}" if part.first != part.last else part.first or str(number), part.text)
        for number, part in enumerate(summary.parts, start=1)
    )
    title = f"Notes on {', '.join(d.title for d in documents)}"
    return Document(documents[0].path, title, pages, (), paged=all(d.paged for d in documents))


def _read(
    llm: SelfExtendLlama, documents: Sequence[Document], instruction: Instruction, progress: console.Update | None
) -> Summary:
    from selfextend_local.summarize import summarize_document

    bar = nullcontext(progress) if progress else console.progress("Reading in parts")
    with console.StopOnInterrupt() as stop, bar as update:
        return summarize_document(llm, documents, instruction, progress=update, should_stop=stop)
