"""The commands about saved chats: /save, /load, /sessions, /export.

Knows the history. Registered by being imported.
"""

from __future__ import annotations

import os
from pathlib import Path

from selfextend_local.errors import CommandError

from ..terminal import output
from ..terminal.line_editor import PathSoFar
from .reply import show_turns
from .slash import Talk, Words, command


def _names(talk: Talk, rest: str) -> Words:
    return [(r.name, f"{len(r.messages) // 2} questions") for r in talk.history.chats(talk.workspace.listener)]


@command("/save NAME", "keep the chat under a name")
def _save(talk: Talk, rest: str) -> None:
    if not rest:
        raise CommandError("Type a name: /save contract.")
    name = talk.history.save_as(talk.workspace, rest)
    output.say(f"Saved as {name}; /load {name} brings it back.")


@command("/load NAME", "bring a chat back, with its documents", _names)
def _load(talk: Talk, rest: str) -> None:
    if not rest:
        raise CommandError("Type a name of /sessions: /load contract.")
    talk.history.bring_back(talk.workspace, talk.history.load(rest))
    talk.last = None
    turns = len(talk.workspace.chat.history)
    output.say(f"{rest}: {turns} question{'s' if turns != 1 else ''}.")
    show_turns(talk.workspace.chat.history[-1:])


@command("/sessions", "the chats that are kept")
def _sessions(talk: Talk, rest: str) -> None:
    chats = talk.history.chats(talk.workspace.listener)
    if not chats:
        output.say("No chat is kept yet.")
    for record in chats:
        titles = ", ".join(d.title for d in record.documents) or "no document"
        turns = len(record.messages) // 2
        output.say(f"{record.name:<16} {record.updated[:16].replace('T', ' ')}  {turns} question{'s' if turns != 1 else ''}  {titles}")


@command("/export FILE.md|.json", "write the chat to a file", lambda talk, rest: PathSoFar(rest))
def _export(talk: Talk, rest: str) -> None:
    if not rest:
        raise CommandError("Type a file: /export chat.md.")
    path = Path(os.path.expanduser(rest))
    if path.suffix.lower() not in (".md", ".markdown", ".json"):
        raise CommandError(f"{path.name}: the ending says which form, .md or .json.")
    if path.exists():
        raise CommandError(f"{path} is there already: take another name.")
    text = talk.history.exported(talk.workspace, as_json=path.suffix.lower() == ".json")
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror or error}): take another place.") from error
    output.say(f"Written to {path}.")
