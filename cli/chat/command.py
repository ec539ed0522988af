"""`selfextend-chat`: a conversation about documents in a terminal, or one question with -p.

Knows flags and the order of things: read documents, open the workspace, ask. What they mean is in selfextend_local,
which is imported when a question is asked, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local import __version__
from selfextend_local.chat.settings import ChatSettings

from ..errors import boundary
from ..flags import config, engine, sampling
from ..flags.model_names import chosen, model_options
from ..flags.reading import read_limits
from ..terminal import interrupts, output
from .events import errors_reported
from .listener import ConsoleListener
from .options import Options

if TYPE_CHECKING:
    from selfextend_local.chat.listener import Listener
    from selfextend_local.chat.sources import Source
    from selfextend_local.chat.workspace import Workspace
    from selfextend_local.sessions import ChatRecord


def _configured(context: click.Context, parameter: click.Parameter, profile: str | None) -> None:
    config.use(context, profile)


class ChatCommand(click.Command):
    """Gives each flag its variable, the same one for `selfextend-chat` and `selfextend chat`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in self.params:
            if isinstance(option, click.Option) and (option.expose_value or option.name == "profile"):
                option.envvar = f"SELFEXTEND_CHAT_{config.flag_name(option).replace('-', '_').upper()}"


@click.command("chat", cls=ChatCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--profile", metavar="NAME", is_eager=True, expose_value=False, callback=_configured,
              help="Take the flags of [profiles.NAME] in config.toml.")  # fmt: skip
@model_options
@click.option("--doc", type=click.Path(), multiple=True, metavar="FILE", help="Document to read, - for stdin. Can be given several times.")
@click.option("--pages", multiple=True, metavar="3-7,iv", help="Pages to read: one --pages for each --doc, or none.")
@click.option("--ocr", is_flag=True, help="Recognise the text of scanned pages.")
@click.option("--keep-headers", is_flag=True, help="Leave running heads and page numbers of a PDF on every page.")
@read_limits(ChatSettings.read_timeout, ChatSettings.read_memory)
@click.option("--overflow", type=click.Choice(["error", "trim", "select", "summarize"]), default="error", show_default=True,
              help="If it doesn't fit: refuse, read the beginning, read what matches the question, or read it in parts.")  # fmt: skip
@click.option("-p", "--prompt", metavar="QUESTION", help="Ask one question and leave; - reads it from stdin.")
@click.option("--system", metavar="TEXT", help="System prompt, instead of ours.")
@click.option("--continue", "resume", is_flag=True, help="Go on with the last chat.")
@click.option("--cache/--no-cache", default=True, help="Keep on disk what the model has read.  [default: cache]")
@click.option("--cite/--no-cite", default=True, help="Check the pages that an answer names.  [default: cite]")
@click.option("--think", type=click.Choice(["show", "hide"]), default="show", show_default=True, help="A reasoning model's thoughts.")
@click.option("--plain", is_flag=True, help="No Markdown, no colours.")
@engine.engine()
@sampling.sampling
@click.option("--json", "as_json", is_flag=True, help="With -p: print one JSON object.")
@click.option("--jsonl", "as_events", is_flag=True, help="Print events, one JSON object a line; without -p, stdin is a question a line.")
@click.version_option(__version__, prog_name="selfextend-chat")
@click.pass_context
@boundary
def command(context: click.Context, /, **flags: Any) -> int:
    """Chat with documents, also with those longer than the model's trained window.

    \b
    Examples:
      selfextend-chat --doc report.pdf
      selfextend-chat --model mistral.gguf --doc report.pdf --pages 3-7
      selfextend-chat --doc report.pdf -p "What was decided on page 3?" --json
      curl -L example.org/a.txt | selfextend-chat --doc - -p "Who signed?"
      selfextend-chat --continue

    /help lists what can be typed besides questions. /cite shows the pages of a PDF that an answer names, with the passage
    marked: in terminals that show pictures (kitty, iTerm2, sixels), elsewhere as a file whose path it says.

    The answer goes to stdout, everything else to stderr. Each flag has a variable, SELFEXTEND_CHAT_MAX_TOKENS for
    --max-tokens, and a key in config.toml (SELFEXTEND_CONFIG names another file). A flag overrides a variable, that a
    profile, that [chat]. Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.
    """
    with errors_reported(flags["as_events"]):
        return _run(context, flags)


def _run(context: click.Context, flags: dict[str, Any]) -> int:
    flags["model"] = chosen(context, flags)
    options = Options.taken(flags)
    options.check()
    question = _question(options)
    listener = ConsoleListener(options)
    record = None
    if options.resume:
        from selfextend_local.chat.history import last_chat

        record = last_chat(listener)
        options = _as_before(context, options, record)
    open_workspace = partial(_workspace, options, listener, _sources(options, record, listener), question, record)
    if question is not None:
        from .one_shot import answer

        return answer(open_workspace(), options, question, record)
    if options.as_events:
        from .one_shot import answer_lines

        return answer_lines(open_workspace(), options, sys.stdin, record)
    _keys_from_the_terminal(options)
    return _converse(open_workspace(), options, record)


def _question(options: Options) -> str | None:
    question = sys.stdin.read().strip() if options.prompt == "-" else options.prompt
    if question is not None and not question.strip():
        raise click.UsageError("The question is empty.")
    return question


def _as_before(context: click.Context, options: Options, record: ChatRecord) -> Options:
    """The options of a chat that is continued: its own, where the command line doesn't say otherwise."""
    from selfextend_local.chat.history import KEPT_SETTINGS

    def given(name: str) -> bool:
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.DEFAULT_MAP:
            return name in config.in_use(context).profile
        return source not in (None, click.core.ParameterSource.DEFAULT)

    kept = {n: record.settings[n] for n in KEPT_SETTINGS if n in record.settings and not given(n)}
    if not given("model") and Path(record.model_path).is_file():
        kept["model"] = Path(record.model_path)
    return options.changed(system=options.chat.system if given("system") else record.system, **kept)


def _sources(options: Options, record: ChatRecord | None, listener: Listener) -> list[Source]:
    from selfextend_local.chat.history import read_again
    from selfextend_local.chat.sources import read_source

    chat = options.chat
    before = [] if record is None else read_again(record, chat, listener)
    return before + [
        read_source(origin, options.pages_of(i), chat, listener)
        for i, origin in enumerate(options.doc)
    ]


def _workspace(
    options: Options, listener: Listener, sources: list[Source], question: str | None, record: ChatRecord | None
) -> Workspace:
    from selfextend_local.chat.history import is_foreign
    from selfextend_local.chat.workspace import Workspace, model_path

    turns = record.turns() if record else ()
    with interrupts.StopOnInterrupt() as stop:
        path = model_path(options.chat, listener)
        foreign = record is not None and is_foreign(record, path, listener)
        settings = replace(options.chat, model=path)
        workspace = Workspace(sources, settings, listener, history=turns, translate=foreign, question=question)
    if stop.requested:
        raise KeyboardInterrupt
    return workspace


def _keys_from_the_terminal(options: Options) -> None:
    """Where stdin was a document, the keys come from the terminal itself."""
    if "-" not in options.doc:
        return
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError as error:
        raise click.UsageError("--doc - takes stdin, and there is no terminal to type at: add -p QUESTION.") from error
    os.dup2(terminal, 0)
    os.close(terminal)
    sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115 (open to the end)


def _converse(workspace: Workspace, options: Options, record: ChatRecord | None) -> int:
    from selfextend_local.chat.history import ChatHistory

    from .repl import Repl
    from .reply import show_turns

    repl = Repl(workspace, options, ChatHistory(record))
    if record is not None:
        show_turns(workspace.chat.history[-1:])
    try:
        return repl.run()
    finally:
        workspace.close()


def main() -> None:
    output.harmless_streams()
    command(prog_name="selfextend-chat")
