"""`selfextend sessions`: what is kept on disk of chats and of the documents they read, and how to be rid of it.

Knows tables and flags. Where things lie and what they hold is in selfextend_local.sessions, imported when a command runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from .errors import boundary
from .flags.types import SizeType
from .terminal import output

if TYPE_CHECKING:
    from selfextend_local.sessions import ChatRecord, ChatStore, Entry, StateCache

_SETTINGS = {"help_option_names": ["-h", "--help"]}
_ID_LENGTH = 8


@click.group("sessions", context_settings=_SETTINGS)
def command() -> None:
    """List and remove saved chats, and the states that let a document reopen without being read again.

    \b
    Examples:
      selfextend sessions list
      selfextend sessions info chat-3f9a21
      selfextend sessions rm chat-3f9a21
      selfextend sessions prune --max-size 2G

    States lie in the cache folder and can be removed at any time: the next start reads the document again.
    """


@command.command("list", context_settings=_SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@boundary
def list_(as_json: bool) -> None:
    """Show chats and states, the last used first.

    \b
    Examples:
      selfextend sessions list
      selfextend sessions list --json
    """
    store, cache = _open()
    chats, entries = store.list(), cache.entries()
    if as_json:
        report = {
            "chats": [_chat_report(store, record) for record in chats],
            "states": [_state_report(entry) for entry in entries],
            "chat_folder": str(store.root),
            "state_folder": str(cache.root),
            "state_bytes": cache.total_bytes(),
            "max_bytes": cache.max_bytes,
        }
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        click.echo("\n".join(_listing(store, cache, chats, entries)))
    _tell(store, cache)


@command.command(context_settings=_SETTINGS)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@boundary
def info(name: str, as_json: bool) -> None:
    """Show one chat, or one state by the beginning of its id.

    \b
    Examples:
      selfextend sessions info report
      selfextend sessions info 3f9a21 --json
    """
    store, cache = _open()
    record = _chat(store, name)
    report = _chat_report(store, record) if record else _state_report(cache.find(name))
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    width = max(map(len, report))
    click.echo("\n".join(f"{key.replace('_', ' '):{width}}  {output.visible(_plain(value))}" for key, value in report.items()))


@command.command(context_settings=_SETTINGS)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@boundary
def rm(names: tuple[str, ...]) -> None:
    """Remove chats by their names, or states by the beginning of their ids.

    \b
    Examples:
      selfextend sessions rm report
      selfextend sessions rm 3f9a21 77b0
    """
    store, cache = _open()
    for name in names:
        if store.has(name):
            store.delete(name)
            output.say(f"Removed the chat {name}.")
        else:
            entry = cache.remove(name)
            output.say(f"Removed the state {entry.id[:_ID_LENGTH]} ({_size(entry.file_bytes)}).")


@command.command(context_settings=_SETTINGS)
@click.option("--max-size", type=SizeType(), help="Keep at most that much, the last used first. Default: the usual limit.")
@click.option("--all", "everything", is_flag=True, help="Remove all states.")
@boundary
def prune(max_size: int | None, everything: bool) -> None:
    """Remove states that were not used for longest, and what killed programs left behind. Chats are kept.

    \b
    Examples:
      selfextend sessions prune
      selfextend sessions prune --max-size 2G
      selfextend sessions prune --all
    """
    store, cache = _open()
    cache.entries()  # removes damaged ones
    freed = cache.prune(0 if everything else max_size)
    output.say(f"Freed {_size(freed)}; {_size(cache.total_bytes())} are kept in {cache.root}.")
    _tell(store, cache)


def _open() -> tuple[ChatStore, StateCache]:
    from selfextend_local.sessions import ChatStore, StateCache

    return ChatStore(), StateCache()


def _tell(store: ChatStore, cache: StateCache) -> None:
    for note in [*store.notes, *cache.notes]:
        output.say(f"warning: {note}")


def _chat(store: ChatStore, name: str) -> ChatRecord | None:
    return store.load(name) if store.has(name) else None


def _chat_report(store: ChatStore, record: ChatRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "created": record.created,
        "updated": record.updated,
        "questions": sum(m.role == "user" for m in record.messages),
        "documents": [d.title for d in record.documents],
        "model": record.model_path,
        "bytes": store.size(record.name),
    }


def _state_report(entry: Entry) -> dict[str, Any]:
    ga = entry.group_attention
    return {
        "id": entry.id,
        "created": _iso(entry.created),
        "used": _iso(entry.used),
        "tokens": entry.n_tokens,
        "documents": list(entry.info.documents),
        "model": entry.info.model,
        "ga_n": ga.n,
        "ga_w": ga.w,
        "library": entry.identity.library,
        "settings": dict(entry.identity.settings),
        "bytes": entry.file_bytes,
        "path": str(entry.path),
    }


def _listing(
    store: ChatStore, cache: StateCache, chats: tuple[ChatRecord, ...], entries: list[Entry]
) -> list[str]:
    lines: list[str] = []
    if chats:
        rows = [
            (r.name, _ago(datetime.fromisoformat(r.updated).timestamp()), _size(store.size(r.name)), _questions(r), _titles(r))
            for r in chats
        ]
        lines += [*_table(("CHAT", "SAVED", "SIZE", "QUESTIONS", "DOCUMENTS"), rows), ""]
    if entries:
        states = [
            (e.id[:_ID_LENGTH], _ago(e.used), _size(e.file_bytes), f"{e.n_tokens:,}", ", ".join(e.info.documents) or "-")
            for e in entries
        ]
        lines += [*_table(("STATE", "USED", "SIZE", "TOKENS", "DOCUMENTS"), states), ""]
    kept = f"{_size(cache.total_bytes())} of at most {_size(cache.max_bytes)}"
    return [*lines, f"{len(chats)} chats in {store.root}", f"{len(entries)} states, {kept}, in {cache.root}"]


def _questions(record: ChatRecord) -> str:
    return str(sum(m.role == "user" for m in record.messages))


def _titles(record: ChatRecord) -> str:
    return ", ".join(d.title for d in record.documents) or "-"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [head, *([output.visible(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head) - 1)]
    return ["  ".join([*(f"{c:{w}}" for c, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in cells]


def _size(count: int) -> str:
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:,.1f} {unit}"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name} ago"
    return "just now"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
