"""Chats on disk: JSON files that people can read, one a chat.

A chat without a name is saved under one that its start gives it, so that no new chat overwrites the last one. Knows
names, JSON and schema versions. Must not know models, states and the terminal.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import xxhash

from selfextend_local.errors import SessionError
from selfextend_local.storage.disk import replacing, sweep
from selfextend_local.storage.folders import chat_folder, make_private
from selfextend_local.storage.plain_json import loads

from .turn import Turn

SCHEMA = 1

KEEP_UNNAMED = 100
"""Chats that were not given a name, in all; the oldest beyond that are dropped."""

UNNAMED_PREFIX = "chat-"
_UNNAMED = re.compile(rf"^{UNNAMED_PREFIX}[0-9a-f]{{6}}$")
_NAME = re.compile(r"^\w[\w .+@-]{0,62}$")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)


@dataclass(frozen=True)
class DocumentReference:
    """A document of a chat: where it was, and the SHA-256 of its bytes, to tell whether it still is what was read."""

    path: str
    sha256: str
    title: str
    pages: int


@dataclass(frozen=True)
class ChatMessage:
    """What was said: `role` is "user" or "assistant"; `tokens` are the model's own, empty for a user's message."""

    role: str
    text: str
    tokens: tuple[int, ...] = ()


def now() -> str:
    """The time in UTC, as records hold it."""
    return datetime.now(timezone.utc).isoformat()


@dataclass(frozen=True)
class ChatRecord:
    """A chat as it is saved.

    Attributes:
        name: of its file; the empty string until it is saved.
        created, updated: ISO 8601 in UTC; `save` sets `updated`. `created` tells chats without a name apart.
        model_path, model_identity: the file, and `model_identity` of it: tokens mean nothing to another model.
        system: the user's system prompt, None for ours.
        settings: what else the program wants back; JSON values.
    """

    model_path: str
    model_identity: str
    name: str = ""
    created: str = field(default_factory=now)
    updated: str = ""
    system: str | None = None
    documents: tuple[DocumentReference, ...] = ()
    messages: tuple[ChatMessage, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def turns(self) -> tuple[Turn, ...]:
        """The messages as `Chat.resume` takes them."""
        pairs = zip(self.messages[::2], self.messages[1::2], strict=False)
        return tuple(Turn(asked.text, answered.text, answered.tokens) for asked, answered in pairs)

    def with_turns(self, turns: Iterable[Turn]) -> ChatRecord:
        """The record with these turns (`Chat.history`) as its messages."""
        messages = [m for t in turns for m in (ChatMessage("user", t.question), ChatMessage("assistant", t.answer, t.tokens))]
        return replace(self, messages=tuple(messages))


class ChatStore:
    """The folder of chats.

    Args:
        root: the folder; None = `chats` in the user's data folder, or in $SELFEXTEND_DATA_DIR.

    Attributes:
        notes: sentences about files that `list` and `last` had to leave out; the caller shows and clears them.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = chat_folder() if root is None else Path(root)
        self.notes: list[str] = []

    def save(self, record: ChatRecord, name: str | None = None, *, overwrite: bool = False) -> ChatRecord:
        """Save a chat under `name`, else under the name it has, else under one of its own. Returns it as it was saved.

        Raises SessionError if the name can't be a file's or another chat has it (one with another `created`; `overwrite`
        replaces it), or if the file can't be written: the one before stays then.
        """
        saved = replace(record, name=name or record.name or _own_name(record), updated=now())
        path = self._path(saved.name)
        if not overwrite and self._is_other(path, record):
            raise SessionError(f"Another chat is named {saved.name!r}. Take another name, or: selfextend sessions rm {saved.name}")
        try:
            make_private(self.root)
            with replacing(path) as temporary:
                temporary.write_bytes(_to_json(saved).encode("utf-8", "replace"))
        except OSError as error:
            raise SessionError(f"The chat can't be saved to {path} ({error.strerror or error}).") from error
        self._tidy()
        return saved

    def load(self, name: str) -> ChatRecord:
        """The chat of that name. Raises SessionError if there is none, or its file is damaged or newer than this program."""
        path = self._path(name)
        try:
            if path.exists() and not path.is_file():
                raise SessionError(f"{path} is no file. Remove it: selfextend sessions rm {name}")
            return _from_json(path.read_text(encoding="utf-8"), name)
        except FileNotFoundError as error:
            known = ", ".join(r.name for r in self.list()[:8]) or "none yet"
            raise SessionError(f"There is no chat named {name!r}. Saved chats: {known}.") from error
        except OSError as error:
            raise SessionError(f"{path} can't be read ({error.strerror or error}).") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise SessionError(f"{path} is damaged ({_reason(error)}). Mend it, or remove it: selfextend sessions rm {name}") from error

    def last(self) -> ChatRecord | None:
        """The chat that was saved last, or None if there is none."""
        return next(iter(self.list()), None)

    def list(self) -> tuple[ChatRecord, ...]:
        """All chats, the last saved first. Files that can't be read are left out, with a note."""
        found = []
        for path in self._files():
            try:
                found.append(self.load(path.stem))
            except SessionError as error:
                self.notes.append(str(error))
        return tuple(sorted(found, key=lambda r: r.updated, reverse=True))

    def delete(self, name: str) -> None:
        """Remove a chat, damaged or not. Raises SessionError if there is none of that name."""
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise SessionError(f"There is no chat named {name!r}. See: selfextend sessions list") from error
        except OSError as error:
            raise SessionError(f"{path} can't be removed ({error.strerror or error}).") from error

    def has(self, name: str) -> bool:
        """Whether there is a chat of that name, damaged or not."""
        with suppress(SessionError):
            return self._path(name).exists()
        return False

    def size(self, name: str) -> int:
        """Bytes of a chat's file; 0 if it has gone."""
        with suppress(OSError):
            return self._path(name).stat().st_size
        return 0

    def _path(self, name: str) -> Path:
        if not _NAME.match(name) or name[-1] in ". " or _RESERVED.match(name):
            raise SessionError(
                f"{name!r} can't be the name of a chat: take letters, digits and . - _ + @, up to 63, a letter or digit first."
            )
        return self.root / f"{name}.json"

    def _is_other(self, path: Path, record: ChatRecord) -> bool:
        try:
            return path.exists() and self.load(path.stem).created != record.created
        except SessionError:
            return True  # damaged: perhaps it can still be mended by hand

    def _files(self) -> Sequence[Path]:
        with suppress(OSError):
            # A pipe would keep whoever opens it.
            return sorted(p for p in self.root.glob("*.json") if _NAME.match(p.stem) and not p.name.startswith(".") and p.is_file())
        return []

    def _tidy(self) -> None:
        sweep(self.root)
        unnamed = [p for p in self._files() if _UNNAMED.match(p.stem)]
        if len(unnamed) > KEEP_UNNAMED:
            with suppress(OSError):
                for path in sorted(unnamed, key=os.path.getmtime)[:-KEEP_UNNAMED]:
                    path.unlink()


def _own_name(record: ChatRecord) -> str:
    return UNNAMED_PREFIX + xxhash.xxh3_64_hexdigest(f"{record.created} {record.model_identity}".encode())[:6]


def _to_json(record: ChatRecord) -> str:
    data = {"schema": SCHEMA, **asdict(record)}
    # A list of numbers would take a line each.
    data["messages"] = [{**m, "tokens": " ".join(map(str, m["tokens"]))} for m in data["messages"]]
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def _from_json(text: str, name: str) -> ChatRecord:
    data = loads(text)
    schema = data.pop("schema")
    if schema != SCHEMA:
        raise ValueError(f"it has schema {schema}, and this program reads {SCHEMA}")
    datetime.fromisoformat(data["updated"]).timestamp()
    messages = [ChatMessage(m["role"], m["text"], tuple(map(int, m["tokens"].split()))) for m in data.pop("messages")]
    documents = [DocumentReference(**d) for d in data.pop("documents")]
    # The file's name counts, so that a chat can be renamed by renaming its file.
    record = ChatRecord(**{**data, "name": name, "messages": tuple(messages), "documents": tuple(documents)})
    _check(record)
    return record


_OF_SETTINGS = (str, int, float, bool, type(None))


def _check(record: ChatRecord) -> None:
    """Raises ValueError where a value isn't what the program writes."""
    texts = [record.model_path, record.model_identity, record.created, record.updated]
    texts += [value for d in record.documents for value in (d.path, d.sha256, d.title)] + [m.text for m in record.messages]
    if not all(isinstance(value, str) and "\0" not in value for value in texts):
        raise ValueError("a text in it is none")
    if not isinstance(record.system, (str, type(None))) or not all(isinstance(d.pages, int) for d in record.documents):
        raise ValueError("its system prompt is no text, or a document's pages are no number")
    if not all(0 <= token < 2**31 for m in record.messages for token in m.tokens):
        raise ValueError("a token in it is none")
    if not isinstance(record.settings, dict):
        raise ValueError("its settings are no object")
    pages = record.settings.get("pages", [])
    if not isinstance(pages, list) or not all(isinstance(value, (str, type(None))) for value in pages):
        raise ValueError("its pages are no list of texts")
    if not all(isinstance(value, _OF_SETTINGS) for name, value in record.settings.items() if name != "pages"):
        raise ValueError("a setting in it is neither a text nor a number")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON at line {error.lineno}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
