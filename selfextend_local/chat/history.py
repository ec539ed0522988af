"""The chat on disk: kept after every turn, saved under a name, brought back.

Knows records and stores. A disk that refuses is a warning to the workspace's listener, never the end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfextend_local.errors import CommandError, SessionError
from selfextend_local.sessions import ChatRecord, ChatStore, DocumentReference, export_json, export_markdown
from selfextend_local.sessions.chats import UNNAMED_PREFIX
from selfextend_local.storage.identity import model_identity

from .listener import Listener
from .sources import Source, read_source

if TYPE_CHECKING:
    from selfextend_local.sessions.turn import Turn

    from .settings import ChatSettings
    from .workspace import Workspace

KEPT_SETTINGS = (
    "ga_n", "ga_w", "ga_mode", "ga_recall", "ga_temperature", "kv_type", "max_tokens", "temperature", "top_p", "top_k", "min_p",
    "repeat_penalty", "dry", "seed", "overflow",
)  # fmt: skip
"""What a chat that is continued goes on with, where the user doesn't say otherwise."""


class ChatHistory:
    """Keeps one chat.

    Attributes:
        record: the chat as it was saved last, or None before the first turn.
    """

    def __init__(self, record: ChatRecord | None = None) -> None:
        self._store = ChatStore()
        self._warned = False
        self.record = record

    def begin(self) -> None:
        """The next turn begins another chat; the one so far stays as it is."""
        self.record = None

    def keep(self, workspace: Workspace) -> None:
        """Save the chat as it is; nothing is saved before the first turn."""
        if not workspace.chat.history and self.record is None:
            return
        try:
            self.record = self._store.save(self._current(workspace))
        except SessionError as error:
            if not self._warned:
                workspace.listener.say(f"warning: {error}")
            self._warned = True

    def save_as(self, workspace: Workspace, name: str) -> str:
        """Save the chat under `name`, and keep it there from now on. Raises SessionError."""
        before = self.record
        self.record = self._store.save(self._current(workspace), name)
        if before and before.name.startswith(UNNAMED_PREFIX) and before.name != self.record.name:
            self._store.delete(before.name)
        return self.record.name

    def load(self, name: str) -> ChatRecord:
        """Raises SessionError."""
        return self._store.load(name)

    def chats(self, listener: Listener) -> tuple[ChatRecord, ...]:
        """All chats, the last one first; says which files can't be read."""
        found = self._store.list()
        _tell(self._store, listener)
        return found

    def exported(self, workspace: Workspace, *, as_json: bool) -> str:
        """The chat as Markdown or JSON."""
        record = self._current(workspace)
        return export_json(record) if as_json else export_markdown(record)

    def bring_back(self, workspace: Workspace, record: ChatRecord) -> None:
        """Go on with `record`: its documents, its system prompt, its turns. Raises the package's errors; the chat that is
        open stays then."""
        sources = read_again(record, workspace.settings, workspace.listener)
        turns: Sequence[Turn] = record.turns()
        if is_foreign(record, workspace.model_path, workspace.listener):
            turns = [workspace.chat.translated(turn) for turn in turns]
        workspace.continue_from(record.system, sources, tuple(turns))
        self.record = record

    def _current(self, workspace: Workspace) -> ChatRecord:
        path = workspace.model_path.resolve()
        record = self.record or ChatRecord(str(path), model_identity(path))
        settings: dict[str, Any] = {name: workspace.settings.get(name) for name in KEPT_SETTINGS}
        return replace(
            record,
            model_path=str(path),
            model_identity=model_identity(path),
            system=workspace.settings.system,
            documents=tuple(map(_reference, workspace.sources)),
            settings=settings | {"pages": [s.pages for s in workspace.sources]},
        ).with_turns(workspace.chat.history)


def is_foreign(record: ChatRecord, model: Path, listener: Listener) -> bool:
    """Whether a chat was with another model than this one; says so."""
    if record.model_identity == model_identity(model):
        return False
    listener.say("This chat was with another model; its answers are read as text.")
    return True


def last_chat(listener: Listener) -> ChatRecord:
    """Raises CommandError if there is none."""
    store = ChatStore()
    record = store.last()
    _tell(store, listener)
    if record is None:
        raise CommandError("There is no chat to continue yet: leave --continue out.")
    return record


def read_again(record: ChatRecord, settings: ChatSettings, listener: Listener) -> list[Source]:
    """The documents of a chat, read anew; says which have changed since. Raises DocumentError, SessionError, Interrupted."""
    if any(d.path == "-" for d in record.documents):
        raise SessionError("This chat was about a text from stdin, which is gone: save the text to a file and start anew with --doc FILE.")
    pages = record.settings.get("pages") or [None] * len(record.documents)
    sources = []
    for reference, wanted in zip(record.documents, pages, strict=False):
        source = read_source(reference.path, wanted, settings, listener)
        if source.sha256 != reference.sha256:
            listener.say(f"warning: {reference.title} has changed since this chat; its answers are about the earlier text.")
        sources.append(source)
    return sources


def _reference(source: Source) -> DocumentReference:
    if source.origin == "-":
        return DocumentReference("-", "", source.whole.title, source.whole.page_count)
    path = Path(os.path.expanduser(source.origin)).resolve()
    return DocumentReference(str(path), source.sha256, source.whole.title, source.whole.page_count)


def _tell(store: ChatStore, listener: Listener) -> None:
    for note in store.notes:
        listener.say(f"warning: {note}")
    store.notes.clear()
