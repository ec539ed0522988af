"""What a user asked for on the command line of the chat.

Knows flags as values. Must not know what they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import click

from selfextend_local.chat.settings import ChatSettings

from ..flags import engine, sampling

ALL_PAGES = "all"


@dataclass(frozen=True)
class Options:
    """What the flags of `selfextend chat` say; those of the conversation itself are in `chat`."""

    doc: tuple[str, ...]
    pages: tuple[str, ...]
    prompt: str | None
    resume: bool
    cite: bool
    think: Literal["show", "hide"]
    plain: bool
    as_json: bool
    as_events: bool
    chat: ChatSettings

    @staticmethod
    def taken(flags: dict[str, Any]) -> Options:
        """The options that these flags are."""
        rest = dict(flags)
        chat = ChatSettings(
            engine=engine.taken(rest),
            sampling=sampling.taken(rest),
            **{f.name: rest.pop(f.name) for f in fields(ChatSettings) if f.name not in ("engine", "sampling")},
        )
        return Options(**rest, chat=chat)

    def get(self, name: str) -> Any:
        """The value of an option, or of a setting of the chat."""
        return getattr(self, name) if name in _OWN else self.chat.get(name)

    def changed(self, **values: Any) -> Options:
        """These options with other values, each named as for `get`."""
        own = {name: value for name, value in values.items() if name in _OWN}
        return replace(self, **own, chat=self.chat.changed(**{n: v for n, v in values.items() if n not in own}))

    def check(self) -> None:
        """Raises click.UsageError where flags contradict each other."""
        if self.as_json and self.as_events:
            raise click.UsageError("Take either --json or --jsonl.")
        if self.as_json and self.prompt is None:
            raise click.UsageError("--json needs a question: add -p QUESTION.")
        if self.prompt is not None and not self.prompt.strip():
            raise click.UsageError("The question is empty.")
        asks_stdin = self.prompt == "-" or (self.as_events and self.prompt is None)
        if self.doc.count("-") + asks_stdin > 1:
            raise click.UsageError("stdin can be read once: as a document (--doc -) or for questions (-p -, or --jsonl without -p).")
        if not all(self.chat.sampling.stop):
            raise click.UsageError("A --stop text is empty.")
        if self.pages and len(self.pages) != len(self.doc):
            raise click.UsageError(
                f"--pages is given {len(self.pages)} times and --doc {len(self.doc)} times: give one --pages for each document, "
                f"in the same order ({ALL_PAGES} = all of it)."
            )
        if self.resume and self.prompt is None and self.doc:
            raise click.UsageError("--continue brings the documents of the last chat: leave --doc out, and add others with /doc add.")

    @property
    def for_programs(self) -> bool:
        """Whether stdout is read by a program."""
        return self.as_json or self.as_events

    @property
    def as_text(self) -> bool:
        """Whether an answer is shown as it is; JSON isn't Markdown."""
        return self.plain or self.chat.sampling.schema is not None

    def pages_of(self, index: int) -> str | None:
        """The pages wanted of the document at `index`; None = all."""
        wanted = self.pages[index] if index < len(self.pages) else ALL_PAGES
        return None if wanted == ALL_PAGES else wanted


_OWN = frozenset(f.name for f in fields(Options)) - {"chat"}
