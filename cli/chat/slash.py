"""The slash commands: a registry, from which help and completion are made, and the commands about the conversation.

A command is a function with `@command` on it. It gets the talk and the rest of the line, says things through the console,
and raises an error of the package where it can't. Knows the workspace. Must not know the input line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Protocol

import click

from selfextend_local.errors import CommandError

from ..terminal import output
from ..terminal.line_editor import Completions
from .settings import SETTINGS, change, describe

if TYPE_CHECKING:
    from selfextend_local.chat.history import ChatHistory
    from selfextend_local.chat.workspace import Reply, Workspace

    from .options import Options
    from .reply import Ask

Words = Iterable[tuple[str, str]]
"""Completions: a word, and what it is."""


class Talk(Protocol):
    """What a command can do something with."""

    workspace: Workspace
    history: ChatHistory
    last: Reply | None
    options: Options

    def ask(self, ask: Ask) -> None:
        """Ask, and show the answer."""


class Leave(Exception):
    """The user wants to go."""


@dataclass(frozen=True)
class Command:
    """A command: `usage` as it is typed, what it does in a few words, and the completion of what comes after its name."""

    usage: str
    summary: str
    run: Callable[[Talk, str], None]
    complete: Callable[[Talk, str], Completions]

    @property
    def name(self) -> str:
        return self.usage.split()[0]


COMMANDS: dict[str, Command] = {}
ALIASES = {"/quit": "/exit", "/?": "/help"}


def _nothing(talk: Talk, rest: str) -> Words:
    return ()


def command(
    usage: str, summary: str, complete: Callable[[Talk, str], Completions] = _nothing
) -> Callable[[Callable[[Talk, str], None]], Callable[[Talk, str], None]]:
    """Register a command."""

    def register(run: Callable[[Talk, str], None]) -> Callable[[Talk, str], None]:
        found = Command(usage, summary, run, complete)
        COMMANDS[found.name] = found
        return run

    return register


def run(talk: Talk, line: str) -> None:
    """Run the command in `line`. Raises Leave, and the package's errors."""
    name, _, rest = line.strip().partition(" ")
    name = ALIASES.get(name.lower(), name.lower())
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        raise CommandError(f"{name} is no command{f'; did you mean {near[0]}?' if near else '.'} /help lists them.")
    COMMANDS[name].run(talk, rest.strip())


def complete(talk: Talk, line: str) -> Completions:
    """What may stand at the end of `line`, which begins with a slash."""
    name, space, rest = line.partition(" ")
    if not space:
        return [(c.name, c.summary) for c in COMMANDS.values()]
    found = COMMANDS.get(ALIASES.get(name, name))
    return found.complete(talk, rest.lstrip()) if found else ()


def choice(*words: str) -> Callable[[Talk, str], Words]:
    """A completion by fixed words."""
    return lambda talk, rest: [(w, "") for w in words] if " " not in rest else ()


@command("/help", "this list")
def _help(talk: Talk, rest: str) -> None:
    width = max(len(c.usage) for c in COMMANDS.values())
    for found in COMMANDS.values():
        output.say(f"{found.usage:<{width}}  {found.summary}")
    output.say('Esc-Enter or """ … """: several lines. Ctrl-R: search what was typed.')
    output.say("A space in front keeps a line out of the history. Ctrl-C stops an answer.")


@command("/exit", "leave (Ctrl-D too)")
def _exit(talk: Talk, rest: str) -> None:
    raise Leave


@command("/clear", "forget the conversation; the documents stay")
def _clear(talk: Talk, rest: str) -> None:
    talk.workspace.chat.clear()
    talk.workspace.choose_again()
    talk.history.begin()
    talk.last = None
    output.say("The conversation is forgotten; the documents stay." if talk.workspace.documents else "The conversation is forgotten.")


@command("/regen", "another answer to the last question")
def _regen(talk: Talk, rest: str) -> None:
    chat = talk.workspace.chat
    _last_question(talk)
    before = chat.sampling
    if before.temperature == 0:
        output.say("(at temp 0.7, since temp 0 would give the same answer)")
    chat.sampling = replace(before, temperature=before.temperature or 0.7, seed=before.seed + talk.workspace.next_try())
    try:
        talk.ask(talk.workspace.stream_again)
    finally:
        chat.sampling = before


@command("/undo", "forget the last question and its answer")
def _undo(talk: Talk, rest: str) -> None:
    turn = talk.workspace.chat.undo()
    talk.history.keep(talk.workspace)
    output.say(f"Forgotten: {_first_line(turn.question)}")


@command("/edit [QUESTION]", "change the last question and ask again ($EDITOR)")
def _edit(talk: Talk, rest: str) -> None:
    question = _last_question(talk)
    if not rest:
        try:
            edited = click.edit(question + "\n", extension=".md")
        except click.ClickException as error:
            raise CommandError(f"The editor failed ({error.message}): set EDITOR, or type /edit QUESTION.") from error
        rest = (edited or "").strip()
        if not rest or rest == question.strip():
            output.say("Nothing was changed.")
            return
        output.say(f"> {rest}")
    talk.ask(partial(talk.workspace.stream_again, rest))


def _last_question(talk: Talk) -> str:
    turns = talk.workspace.chat.history
    if not turns:
        raise CommandError("Nothing has been asked yet: type a question first.")
    return turns[-1].question


@command("/system [TEXT|default]", "show or change the system prompt", choice("default"))
def _system(talk: Talk, rest: str) -> None:
    workspace = talk.workspace
    if rest:
        workspace.change_system(None if rest == "default" else rest)
        talk.history.keep(workspace)
    output.say(f"system: {workspace.chat.system or '(none)'}")
    if rest and workspace.chat.n_used:
        output.say("It stands first, so everything is read again with the next question.")


def _setting_names(talk: Talk, rest: str) -> Words:
    name, space, _ = rest.partition(" ")
    if not space:
        return [(s.name, s.meaning) for s in SETTINGS.values()]
    return [(v, "") for v in SETTINGS[name].choices] if name in SETTINGS else ()


@command("/set [NAME VALUE]", "show or change a setting", _setting_names)
def _set(talk: Talk, rest: str) -> None:
    if rest:
        talk.options = change(talk.options, rest)
    for line in describe(talk.options, rest.split()[0] if rest else None):
        output.say(line)


@command("/stats", "what the last answer took")
def _stats(talk: Talk, rest: str) -> None:
    from .reply import statistics_line

    stats = talk.workspace.chat.last_stats
    output.say(statistics_line(stats) if stats else "Nothing has been asked yet.")
    if stats:
        output.say(f"{stats.completion_tokens:,} tokens in the answer · model opened in {talk.workspace.load_s:.1f} s")


@command("/context", "what fills the context window")
def _context(talk: Talk, rest: str) -> None:
    from .context_view import Window, picture

    workspace = talk.workspace
    chat = workspace.chat
    names = [output.visible(f"{d.title}, {d.page_count} {'page' if d.page_count == 1 else 'pages'}") for d in workspace.documents]
    filling = chat.filling()
    window = Window(filling, names, len(chat.history), *chat.grouping(filling.total))
    output.say(workspace.llm.plan.describe())
    for line in picture(window, output.columns(), colour=output.draws(sys.stderr)):
        output.say_drawn(line)


@command("/copy", "the last answer to the clipboard")
def _copy(talk: Talk, rest: str) -> None:
    from ..terminal.clipboard import copy

    turns = talk.workspace.chat.history
    if not turns:
        raise CommandError("There is no answer to copy yet.")
    output.say(copy(talk.last.answer if talk.last and talk.last.answer else turns[-1].answer))


def _first_line(text: str) -> str:
    first, *more = text.strip().splitlines() or [""]
    return first[:70] + (" …" if more or len(first) > 70 else "")
