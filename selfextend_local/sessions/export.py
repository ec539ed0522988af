"""A chat as a text to keep or send: Markdown for people, JSON for programs. Knows records, and prints nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

from selfextend_local.sessions.chats import ChatRecord

_SPEAKER = {"user": "Question", "assistant": "Answer", "system": "System"}


def export_markdown(record: ChatRecord) -> str:
    """The chat with a heading for each message; the text of messages is passed on as it is."""
    lines = [f"# {record.name or 'Chat'}", ""]
    lines += [f"- Model: {record.model_path}", f"- Date: {record.created}"]
    lines += [f"- Document: {d.title} ({d.path}, {_pages(d.pages)})" for d in record.documents]
    if record.system:
        lines += ["", "## System", "", record.system]
    for message in record.messages:
        lines += ["", f"## {_SPEAKER.get(message.role, message.role)}", "", message.text.strip()]
    return "\n".join(lines) + "\n"


def export_json(record: ChatRecord) -> str:
    """The chat as one JSON object, without the tokens, which only this program with this model can read."""
    data = asdict(record)
    for message in data["messages"]:
        del message["tokens"]
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def _pages(count: int) -> str:
    return "1 page" if count == 1 else f"{count:,} pages"
