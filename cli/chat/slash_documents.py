"""The commands about documents: /doc, /pages, /find, /cite.

Knows the workspace and the documents package. Registered by being imported.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfextend_local.errors import CommandError

from ..terminal import output
from ..terminal.line_editor import Completions, PathSoFar
from .options import ALL_PAGES
from .slash import Talk, command

if TYPE_CHECKING:
    from selfextend_local.chat.sources import Source
    from selfextend_local.documents.citations import Citation
    from selfextend_local.documents.passages import Passage

FOUND = 5
"""Passages that /find shows."""
PICTURES = 3
"""Pages that /cite draws at once."""


def _doc_words(talk: Talk, rest: str) -> Completions:
    verb, space, rest = rest.partition(" ")
    if not space:
        return [("add", "read another document"), ("list", "what is open"), ("rm", "take one away")]
    if verb == "add":
        return PathSoFar(rest.lstrip())
    if verb == "rm":
        return [(str(i), s.whole.title) for i, s in enumerate(talk.workspace.sources, start=1)]
    return ()


@command("/doc add FILE | list | rm N", "the documents to talk about", _doc_words)
def _doc(talk: Talk, rest: str) -> None:
    verb, _, rest = rest.partition(" ")
    if verb in ("", "list"):
        _list(talk)
    elif verb == "add" and rest.strip():
        _add(talk, rest.strip())
    elif verb in ("rm", "remove") and rest.strip():
        _remove(talk, rest.strip())
    else:
        raise CommandError("Type /doc add FILE, /doc list, or /doc rm N.")


def _list(talk: Talk) -> None:
    if not talk.workspace.sources:
        output.say("No document is open: /doc add FILE reads one.")
    tokens = dict(zip(talk.workspace.documents, talk.workspace.chat.filling().documents, strict=True)) if talk.workspace.documents else {}
    for number, source in enumerate(talk.workspace.sources, start=1):
        size = next((f", {n:,} tokens" for d, n in tokens.items() if d.path == source.whole.path), "")
        output.say(f"{number}  {source.whole.title}: {_pages(source)}{size}  ({source.origin})")


def _pages(source: Source) -> str:
    count = source.whole.page_count
    pages = f"{count} page{'s' if count != 1 else ''}"
    return pages if source.pages is None else f"pages {source.pages} of {pages}"


def _add(talk: Talk, text: str) -> None:
    sources = [talk.workspace.read(path) for path in _paths(text)]
    talk.workspace.change_documents([*talk.workspace.sources, *sources])
    talk.history.keep(talk.workspace)
    _list(talk)


def _paths(text: str) -> list[str]:
    """The rest of the line as one path, if there is such a file; else as a shell would read it (a file that was dropped
    onto the window comes quoted)."""
    if text == "-":
        raise CommandError("stdin is where you type: name a file.")
    if Path(os.path.expanduser(text)).exists():
        return [text]
    try:
        return shlex.split(text) or [text]
    except ValueError:
        return [text]


def _remove(talk: Talk, which: str) -> None:
    source = talk.workspace.sources[_index(talk, which)]
    talk.workspace.change_documents([s for s in talk.workspace.sources if s is not source])
    talk.history.keep(talk.workspace)
    output.say(f"Taken away: {source.whole.title}. What stood before it stays read.")


def _index(talk: Talk, which: str) -> int:
    """The place of the document that is named by its number, or by a part of its name that no other has."""
    sources = talk.workspace.sources
    if which.isdecimal() and len(which) < 10 and 1 <= int(which) <= len(sources):
        return int(which) - 1
    wanted = which.casefold()
    found = [i for i, s in enumerate(sources) if wanted in s.whole.title.casefold() or wanted in s.origin.casefold()]
    if len(found) != 1:
        raise CommandError(f"{'Several documents are' if found else 'No document is'} called {which!r}: take a number of /doc list.")
    return found[0]


@command("/pages [N:] 3-7,iv | all", "read only these pages of a document")
def _select(talk: Talk, rest: str) -> None:
    sources = talk.workspace.sources
    if not sources:
        raise CommandError("No document is open: /doc add FILE reads one.")
    if not rest:
        _list(talk)
        return
    which, colon, pages = rest.partition(":")
    if not colon and len(sources) > 1:
        raise CommandError(f"{len(sources)} documents are open: say which, as in /pages 2: {rest}")
    place = _index(talk, which.strip()) if colon else 0
    wanted = pages.strip() if colon else rest
    chosen = replace(sources[place], pages=None if wanted == ALL_PAGES else wanted)
    talk.workspace.change_documents([chosen if i == place else s for i, s in enumerate(sources)])
    talk.history.keep(talk.workspace)
    _list(talk)


@command("/find TEXT", "passages with these words")
def _find(talk: Talk, rest: str) -> None:
    from selfextend_local.documents.search import PassageIndex

    if not rest:
        raise CommandError("Type what to look for: /find the north vault.")
    if not talk.workspace.sources:
        raise CommandError("No document is open: /doc add FILE reads one.")
    with PassageIndex([s.whole for s in talk.workspace.sources]) as index:
        found = index.find(rest, FOUND)
    if not found:
        output.say(f"Nothing found for {rest}.")
    for passage in found:
        show_passage(talk, passage)


@command("/cite [N]", "pages that the answer names or looked at, drawn")
def _cite(talk: Talk, rest: str) -> None:
    from .reply import citation_line, looked_line

    if not talk.workspace.chat.history:
        raise CommandError("There is no answer yet.")
    found = talk.workspace.citations(talk.last.answer if talk.last else talk.workspace.chat.history[-1].answer)
    if looked := talk.workspace.chat.looked():
        output.say_dim(looked_line(looked))
    if not found:
        output.say("The last answer names no page.")
        return
    chosen = _chosen(found, rest)
    drawn: set[object] = set()
    for citation in chosen:
        output.say(citation_line(citation))
        if citation.passage:
            show_passage(talk, citation.passage)
            place = (citation.passage.document.path, citation.passage.label, citation.passage.offset)
            if place not in drawn and len(drawn) < PICTURES:
                drawn.add(place)
                _show_page(talk, citation)
    if len(chosen) > 1 and len({c.passage for c in chosen if c.passage}) > PICTURES:
        output.say(f"/cite N shows the page of one of these {len(chosen)} as a picture, as in /cite {len(chosen)}.")


def _chosen(found: list[Citation], which: str) -> list[Citation]:
    if not which:
        return found
    if not which.isdecimal() or len(which) > 9 or not 1 <= int(which) <= len(found):
        places = f"{len(found)} place{'s' if len(found) != 1 else ''}"
        raise CommandError(f"The last answer names {places}: type /cite, or /cite and its number.")
    return [found[int(which) - 1]]


def _show_page(talk: Talk, citation: Citation) -> None:
    from selfextend_local.documents.reader import ReadLimits

    from .cited_pages import show_page

    settings = talk.workspace.settings
    show_page(citation, ReadLimits(settings.read_timeout, settings.read_memory))


def show_passage(talk: Talk, passage: Passage) -> None:
    """A passage under the page that it is from."""
    several = len(talk.workspace.sources) > 1
    place = f"page {passage.label}" if passage.document.paged else passage.document.title
    output.say(f"[{passage.document.title}, {place}]" if several and passage.document.paged else f"[{place}]")
    for line in passage.text.splitlines():
        output.say_dim(f"  {line}")
