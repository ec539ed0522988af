"""What a user asked for on the command line of the chat.

Knows flags as values. Must not know what they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from selfextend_local.engine.plan import GroupMode

Overflow = Literal["error", "trim", "select", "summarize"]

ALL_PAGES = "all"


class NumberOrAuto(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number from `least` on, or "auto". `meaning`: what `least` stands for, for the error."""

    name = "N|auto"

    def __init__(self, least: int, meaning: str = "") -> None:
        self._least, self._meaning = least, meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        if number < self._least:
            self.fail(f"{number} is below {self._least}{self._meaning}", param, ctx)
        return number


POSITIVE_OR_AUTO = NumberOrAuto(1)
GPU_LAYERS = NumberOrAuto(-1, ", which means all")
GROUP_MODES = ("auto", "two-level", "progressive", "recall")
GROUP_MODES_HELP = (
    "progressive: the farther, the larger the group. recall: far text is fetched as it is needed. "
    "auto: as tuned, else progressive with --ga-n auto."
)
RECALL_HELP = "Far tokens that are fetched.  [default with --ga-mode recall: 2048]"
KV_TYPES = click.Choice(["auto", "f16", "q8_0", "q4_0"])

KV_TYPE_HELP = "KV cache; auto = the first of f16, q8_0 and q4_0 that fits the free memory."
GPU_LAYERS_HELP = "Layers on the GPU; -1 = all, auto = what its free memory holds."


class StopText(click.types.StringParamType):
    """A text; a line each in a variable."""

    envvar_list_splitter = "\n"


@dataclass(frozen=True)
class Options:
    """One field a flag; see `selfextend chat --help`."""

    model: Path | None
    doc: tuple[str, ...]
    pages: tuple[str, ...]
    ocr: bool
    overflow: Overflow
    prompt: str | None
    system: str | None
    resume: bool
    cache: bool
    cite: bool
    think: Literal["show", "hide"]
    plain: bool
    ga_n: Any
    ga_w: int | None
    ga_mode: GroupMode
    ga_temperature: float
    ga_recall: int | None
    kv_type: str
    threads: int | None
    gpu_layers: Any
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    seed: int
    stop: tuple[str, ...]
    schema: str | None
    as_json: bool
    as_events: bool

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
        if not all(self.stop):
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
        return self.plain or self.schema is not None

    def pages_of(self, index: int) -> str | None:
        """The pages wanted of the document at `index`; None = all."""
        wanted = self.pages[index] if index < len(self.pages) else ALL_PAGES
        return None if wanted == ALL_PAGES else wanted
