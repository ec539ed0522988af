"""The chat on disk: kept after every turn, saved under a name, brought back.

Knows records and stores. Must not know commands or the input line. A disk that refuses is a warning, never the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfextend_local.errors import CommandError, SessionError

from ..terminal import console
from .options import Options
from .workspace import Source, read_source

if TYPE_CHECKING:
    from selfextend_local.chat.conversation import Turn
    from selfextend_local.sessions import ChatRecord, DocumentReference

    from .slash import Talk
    from .workspace import Desk

KEPT_OPTIONS = (
    "ga_n", "ga_w", "ga_mode", "ga_recall", "ga_temperature", "kv_type", "max_tokens", "temperature", "top_p", "top_k", "min_p",
    "repeat_penalty", "seed", "overflow",
)  # fmt: skip
"""What a chat that is continued goes on with, where the command line doesn't say otherwise."""


class Journal:
    """Keeps one chat.

    Attributes:
        record: the chat as it was saved last, or None before the first turn.
    """

    def __init__(self, record: ChatRecord | None = None) -> None:
        from selfextend_local.sessions import ChatStore

        self._store = ChatStore()
        self._warned = False
        self.record = record

    def begin(self) -> None:
        """The next turn begins another chat; the one so far stays as it is."""
        self.record = None

    def keep(self, desk: Desk) -> None:
        """Save the chat as it is; nothing is saved before the first turn."""
        if not desk.chat.history and self.record is None:
            return
        try:
            self.record = self._store.save(self._current(desk))
        except SessionError as error:
            if not self._warned:
                console.say(f"warning: {error}")
            self._warned = True

    def save_as(self, desk: Desk, name: str) -> str:
        """Save the chat under `name`, and keep it there from now on. Raises SessionError."""
        from selfextend_local.sessions.chats import UNNAMED_PREFIX

        before = self.record
        self.record = self._store.save(self._current(desk), name)
        if before and before.name.startswith(UNNAMED_PREFIX) and before.name != self.record.name:
            self._store.delete(before.name)
        return self.record.name

    def load(self, name: str) -> ChatRecord:
        """Raises SessionError."""
        return self._store.load(name)

    def chats(self) -> tuple[ChatRecord, ...]:
        """All chats, the last one first; says which files can't be read."""
        found = self._store.list()
        for note in self._store.notes:
            console.say(f"warning: {note}")
        self._store.notes.clear()
        return found

    def exported(self, desk: Desk, *, as_json: bool) -> str:
        """The chat as Markdown or JSON."""
        from selfextend_local.sessions import export_json, export_markdown

        record = self._current(desk)
        return export_json(record) if as_json else export_markdown(record)

    def bring_back(self, talk: Talk, record: ChatRecord) -> None:
        """Go on with `record`: its documents, its system prompt, its turns. Raises the package's errors; the chat that is
        open stays then."""
        talk.desk.continue_from(record.system, read_again(record, talk.desk.options), turns_for(talk.desk, record))
        self.record = record
        talk.last = None

    def resume(self, desk: Desk, record: ChatRecord) -> None:
        """Go on with `record`, whose documents are open already."""
        desk.change_documents(desk.sources, turns=turns_for(desk, record))
        self.record = record

    def retell(self, turns: Sequence[Turn]) -> None:
        """Show turns that were before."""
        for turn in turns:
            console.mutter(f"> {turn.question}")
            console.mutter(turn.answer)

    def _current(self, desk: Desk) -> ChatRecord:
        from selfextend_local.sessions import ChatRecord
        from selfextend_local.storage.identity import model_identity

        path = desk.model_path.resolve()
        record = self.record or ChatRecord(str(path), model_identity(path))
        settings: dict[str, Any] = {name: getattr(desk.options, name) for name in KEPT_OPTIONS}
        return replace(
            record,
            model_path=str(path),
            model_identity=model_identity(path),
            system=desk.options.system,
            documents=tuple(map(_reference, desk.sources)),
            settings=settings | {"pages": [s.pages for s in desk.sources]},
        ).with_turns(desk.chat.history)


def turns_for(desk: Desk, record: ChatRecord) -> tuple[Turn, ...]:
    """The turns of `record` in the tokens of the model that is open."""
    from selfextend_local.storage.identity import model_identity

    if record.model_identity == model_identity(desk.model_path):
        return record.turns()
    console.say("This chat was with another model; its answers are read as text.")
    return tuple(map(desk.chat.translated, record.turns()))


def last_chat() -> ChatRecord:
    """Raises CommandError if there is none."""
    from selfextend_local.sessions import ChatStore

    store = ChatStore()
    record = store.last()
    for note in store.notes:
        console.say(f"warning: {note}")
    if record is None:
        raise CommandError("There is no chat to continue yet: leave --continue out.")
    return record


def read_again(record: ChatRecord, options: Options) -> list[Source]:
    """The documents of a chat, read anew; says which have changed since. Raises DocumentError, SessionError."""
    if any(d.path == "-" for d in record.documents):
        raise SessionError("This chat was about a text from stdin, which is gone: save the text to a file and start anew with --doc FILE.")
    pages = record.settings.get("pages") or [None] * len(record.documents)
    sources = []
    for reference, wanted in zip(record.documents, pages, strict=False):
        source = read_source(reference.path, wanted, options)
        if source.sha256 != reference.sha256:
            console.say(f"warning: {reference.title} has changed since this chat; its answers are about the earlier text.")
        sources.append(source)
    return sources


def _reference(source: Source) -> DocumentReference:
    from selfextend_local.sessions import DocumentReference

    if source.origin == "-":
        return DocumentReference("-", "", source.whole.title, source.whole.page_count)
    path = Path(source.origin).expanduser().resolve()
    return DocumentReference(str(path), source.sha256, source.whole.title, source.whole.page_count)


