"""The slash commands: a registry, from which help and completion are made, and the commands about the conversation.

A command is a function with `@command` on it. It gets the talk and the rest of the line, says things through the console,
and raises an error of the package where it can't. Knows the desk. Must not know the input line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

import click

from selfextend_local.errors import CommandError

from ..terminal import console
from ..terminal.line_editor import Completions
from .settings import SETTINGS, change, describe

if TYPE_CHECKING:
    from .history import Journal
    from .reply import Ask, Reply
    from .workspace import Desk

Words = Iterable[tuple[str, str]]
"""Completions: a word, and what it is."""


class Talk(Protocol):
    """What a command can do something with."""

    desk: Desk
    journal: Journal
    last: Reply | None

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
        console.say(f"{found.usage:<{width}}  {found.summary}")
    console.say('Esc-Enter or """ … """: several lines. Ctrl-R: search what was typed.')
    console.say("A space in front keeps a line out of the history. Ctrl-C stops an answer.")


@command("/exit", "leave (Ctrl-D too)")
def _exit(talk: Talk, rest: str) -> None:
    raise Leave


@command("/clear", "forget the conversation; the documents stay")
def _clear(talk: Talk, rest: str) -> None:
    talk.desk.chat.clear()
    talk.desk.choose_again()
    talk.journal.begin()
    talk.last = None
    console.say("The conversation is forgotten; the documents stay." if talk.desk.documents else "The conversation is forgotten.")


@command("/regen", "another answer to the last question")
def _regen(talk: Talk, rest: str) -> None:
    chat = talk.desk.chat
    _last_question(talk)
    before = chat.sampling
    if before.temperature == 0:
        console.say("(at temp 0.7, since temp 0 would give the same answer)")
    chat.sampling = replace(before, temperature=before.temperature or 0.7, seed=before.seed + talk.desk.next_try())
    try:
        talk.ask(chat.ask_again)
    finally:
        chat.sampling = before


@command("/undo", "forget the last question and its answer")
def _undo(talk: Talk, rest: str) -> None:
    turn = talk.desk.chat.undo()
    talk.journal.keep(talk.desk)
    console.say(f"Forgotten: {_first_line(turn.question)}")


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
            console.say("Nothing was changed.")
            return
        console.say(f"> {rest}")
    talk.ask(lambda **how: talk.desk.chat.ask_again(rest, **how))


def _last_question(talk: Talk) -> str:
    turns = talk.desk.chat.history
    if not turns:
        raise CommandError("Nothing has been asked yet: type a question first.")
    return turns[-1].question


@command("/system [TEXT|default]", "show or change the system prompt", choice("default"))
def _system(talk: Talk, rest: str) -> None:
    desk = talk.desk
    if rest:
        desk.change_system(None if rest == "default" else rest)
        talk.journal.keep(desk)
    console.say(f"system: {desk.chat.system or '(none)'}")
    if rest and desk.chat.n_used:
        console.say("It stands first, so everything is read again with the next question.")


def _setting_names(talk: Talk, rest: str) -> Words:
    name, space, _ = rest.partition(" ")
    if not space:
        return [(s.name, s.meaning) for s in SETTINGS.values()]
    return [(v, "") for v in SETTINGS[name].choices] if name in SETTINGS else ()


@command("/set [NAME VALUE]", "show or change a setting", _setting_names)
def _set(talk: Talk, rest: str) -> None:
    desk = talk.desk
    if rest:
        desk.change_options(change(desk.options, rest))
    for line in describe(desk.options, rest.split()[0] if rest else None):
        console.say(line)


@command("/stats", "what the last answer took")
def _stats(talk: Talk, rest: str) -> None:
    from .reply import statistics_line

    stats = talk.desk.chat.last_stats
    console.say(statistics_line(stats) if stats else "Nothing has been asked yet.")
    if stats:
        console.say(f"{stats.completion_tokens:,} tokens in the answer · model opened in {talk.desk.load_s:.1f} s")


@command("/context", "what fills the context window")
def _context(talk: Talk, rest: str) -> None:
    from .context_view import Window, picture

    desk = talk.desk
    chat = desk.chat
    names = [console.visible(f"{d.title}, {d.page_count} {'page' if d.page_count == 1 else 'pages'}") for d in desk.documents]
    filling = chat.filling()
    window = Window(filling, names, len(chat.history), *chat.grouping(filling.total))
    console.say(desk.llm.plan.describe())
    for line in picture(window, console.columns(), colour=console.draws(sys.stderr)):
        console.say_drawn(line)


@command("/copy", "the last answer to the clipboard")
def _copy(talk: Talk, rest: str) -> None:
    from ..terminal.clipboard import copy

    turns = talk.desk.chat.history
    if not turns:
        raise CommandError("There is no answer to copy yet.")
    console.say(copy(talk.last.answer if talk.last and talk.last.answer else turns[-1].answer))


def _first_line(text: str) -> str:
    first, *more = text.strip().splitlines() or [""]
    return first[:70] + (" …" if more or len(first) > 70 else "")
