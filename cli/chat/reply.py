"""One answer on the screen: progress while the prompt is read, the text, then a line about what it took and its citations.

Knows the order of these. Must not know commands, flags or how the text is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING

from ..terminal import interrupts, output, progress

if TYPE_CHECKING:
    from selfextend_local.chat.conversation import TurnStats
    from selfextend_local.chat.looked import LookedAt
    from selfextend_local.chat.workspace import Reply, Workspace
    from selfextend_local.documents.citations import Citation
    from selfextend_local.generation.thinking import Part
    from selfextend_local.sessions.turn import Turn

    from ..terminal.views import View

Ask = Callable[..., Iterator[str]]
"""`Workspace.stream` or `stream_again` with its question: takes `progress` and `should_stop`."""


def show(workspace: Workspace, ask: Ask, view: View, *, report: progress.Update | None = None, cite: bool = False) -> Reply:
    """Ask, and show the answer as it comes, with `report` in place of the bar. The first Ctrl-C ends it early; a second
    one raises KeyboardInterrupt. With `cite` the pages that the answer names are checked.

    Raises Interrupted when stopped before the answer begins, and what `ask` raises.
    """
    from selfextend_local.chat.workspace import Reply
    from selfextend_local.generation.thinking import parts

    before = workspace.chat.last_stats
    shown: list[Part] = []
    with interrupts.StopOnInterrupt() as stop:
        with nullcontext(report) if report else progress.progress("Reading the prompt") as update:
            pieces = ask(progress=update, should_stop=_ticking(stop, update))
            first = next(pieces, None)
        if first is not None:
            for part in parts(chain([first], pieces), open=workspace.thinks_first):
                shown.append(part)
                view.write(part)
    texts = {thought: "".join(p.text for p in shown if p.thought is thought).strip() for thought in (False, True)}
    stats = None if workspace.chat.last_stats is before else workspace.chat.last_stats
    if stats is None or not cite:
        return Reply(texts[False], texts[True], stats)
    return Reply(texts[False], texts[True], stats, tuple(workspace.citations(texts[False])), workspace.chat.looked())


def _ticking(stop: interrupts.StopOnInterrupt, update: progress.Update) -> Callable[[], bool]:
    """`stop`, which the model polls hundreds of times a second, keeps the progress moving."""
    if not isinstance(update, progress.Bar):
        return stop

    def polled() -> bool:
        update.tick()
        return stop()

    return polled


_ENDINGS = {
    "interrupted": "(stopped)",
    "length": "(cut: --max-tokens is reached)",
    "context": "(cut: the context is full)",
    "loop": "(stopped: it went round in circles; ask for less at once, raise --dry, or take a larger model)",
}


def say_what_it_took(reply: Reply) -> None:
    """The lines below an answer."""
    if reply.stats is None:
        return
    if reply.stats.stop_reason in _ENDINGS:
        output.say(_ENDINGS[reply.stats.stop_reason])
    if reply.thinking and not reply.answer:
        output.say("(It thought and gave no answer: raise --max-tokens, or show the thoughts with --think show.)")
    for line in dict.fromkeys(map(citation_line, reply.citations)):
        output.say_dim(line)
    output.say_dim(statistics_line(reply.stats))


def show_turns(turns: Sequence[Turn]) -> None:
    """Show turns that were before."""
    for turn in turns:
        output.say_dim(f"> {turn.question}")
        output.say_dim(turn.answer)


def citation_line(citation: Citation) -> str:
    """A citation and whether it holds, in one line."""
    found = f"; it stands on page {citation.elsewhere}" if citation.elsewhere else ""
    return f"[page {citation.label}] {citation.status.value}{found}"


def looked_line(looked: Sequence[LookedAt]) -> str:
    """The pages that the model looked at, in one line."""
    several = len({id(one.document) for one in looked}) > 1
    pages = (f"{one.document.title}, {one.page.label}" if several else one.page.label for one in looked)
    return f"looked at page{'s' if len(looked) > 1 else ''} {'; '.join(pages) if several else ', '.join(pages)}"


def statistics_line(stats: TurnStats) -> str:
    """What an answer took, in one line."""
    origin = " from disk" if stats.restored_tokens else ""
    kept = f" ({stats.cached_tokens:,} kept{origin})" if stats.cached_tokens else ""
    return (
        f"{stats.prompt_tokens:,} prompt tokens{kept} at {stats.prefill_tps:,.0f}/s · first token {stats.ttft_s:.1f} s · "
        f"{stats.decode_tps:.1f} tokens/s · {stats.group_attention.label} · {stats.n_used:,} of {stats.capacity:,}"
    )
