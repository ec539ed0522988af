"""`selfextend-chat`: a conversation about documents in a terminal, or one question with -p.

Knows flags and the order of things: read documents, open the desk, ask. What they mean is in selfextend_local,
which is imported when a question is asked, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local import __version__

from ..errors import boundary
from ..flags import config
from ..flags.model_names import ModelName, chosen
from ..flags.schema import SchemaFile
from ..terminal import console
from .events import errors_reported
from .options import (
    GPU_LAYERS,
    GPU_LAYERS_HELP,
    GROUP_MODES,
    GROUP_MODES_HELP,
    KV_TYPE_HELP,
    KV_TYPES,
    POSITIVE_OR_AUTO,
    RECALL_HELP,
    Options,
    StopText,
)

if TYPE_CHECKING:
    from selfextend_local.sessions import ChatRecord

    from .workspace import Desk, Source


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
@click.option("--model", type=ModelName(), metavar="FILE|NAME", help="GGUF model. Default: the embedded one.")
@click.option("--models-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Where --model NAME is looked up.")
@click.option("--doc", type=click.Path(), multiple=True, metavar="FILE", help="Document to read, - for stdin. Can be given several times.")
@click.option("--pages", multiple=True, metavar="3-7,iv", help="Pages to read: one --pages for each --doc, or none.")
@click.option("--ocr", is_flag=True, help="Recognise the text of scanned pages.")
@click.option("--overflow", type=click.Choice(["error", "trim", "select", "summarize"]), default="error", show_default=True,
              help="If it doesn't fit: refuse, read the beginning, read what matches the question, or read it in parts.")  # fmt: skip
@click.option("-p", "--prompt", metavar="QUESTION", help="Ask one question and leave; - reads it from stdin.")
@click.option("--system", metavar="TEXT", help="System prompt, instead of ours.")
@click.option("--continue", "resume", is_flag=True, help="Go on with the last chat.")
@click.option("--cache/--no-cache", default=True, help="Keep on disk what the model has read.  [default: cache]")
@click.option("--cite/--no-cite", default=True, help="Check the pages that an answer names.  [default: cite]")
@click.option("--think", type=click.Choice(["show", "hide"]), default="show", show_default=True, help="A reasoning model's thoughts.")
@click.option("--plain", is_flag=True, help="No Markdown, no colours.")
@click.option("--ga-n", type=POSITIVE_OR_AUTO, default="auto", show_default=True, help="Group size of SelfExtend.")
@click.option("--ga-w", type=click.IntRange(1), metavar="TOKENS", help="Neighbour window. Default: 1/8 of the trained one.")
@click.option("--ga-mode", type=click.Choice(GROUP_MODES), default="auto", show_default=True, help=GROUP_MODES_HELP)
@click.option("--ga-temperature", metavar="C", type=click.FloatRange(0, 10), default=0.0, show_default=True,
              help="Sharpen attention beyond the trained window L: queries at i times 1 + C ln(i/L).")  # fmt: skip
@click.option("--ga-recall", type=click.IntRange(1), metavar="TOKENS", help=RECALL_HELP)
@click.option("--kv-type", type=KV_TYPES, default="auto", show_default=True, help=KV_TYPE_HELP)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores.")
@click.option("--gpu-layers", type=GPU_LAYERS, default="auto", show_default=True, help=GPU_LAYERS_HELP)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, metavar="N", help="Of an answer.")
@click.option("--temperature", "--temp", metavar="X", type=click.FloatRange(0), default=0.0, show_default=True,
              help="0 = the likeliest answer.")  # fmt: skip
@click.option("--top-p", metavar="X", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@click.option("--top-k", metavar="N", type=click.IntRange(0), default=40, show_default=True)
@click.option("--min-p", metavar="X", type=click.FloatRange(0, 1), default=0.05, show_default=True)
@click.option("--repeat-penalty", metavar="X", type=click.FloatRange(0.1, 3), default=1.0, show_default=True,
              help="Above 1: words said lately become less likely. Small models that go round in circles need 1.1.")  # fmt: skip
@click.option("--seed", metavar="N", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True)
@click.option("--stop", type=StopText(), multiple=True, metavar="TEXT", help="Ends the answer. Can be given several times.")
@click.option("--schema", type=SchemaFile(), metavar="FILE", help="A JSON schema that each answer has to follow.")
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

    The answer goes to stdout, everything else to stderr. Each flag has a variable, SELFEXTEND_CHAT_MAX_TOKENS for
    --max-tokens, and a key in config.toml (SELFEXTEND_CONFIG names another file). A flag overrides a variable, that a
    profile, that [chat]. Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.
    """
    with errors_reported(flags["as_events"]):
        return _run(context, flags)


def _run(context: click.Context, flags: dict[str, Any]) -> int:
    options = Options(model=chosen(context, flags), **flags)
    options.check()
    question = _question(options)
    record = None
    if options.resume:
        from .history import last_chat

        record = last_chat()
        options = _as_before(context, options, record)
    sources = _sources(options, record)
    if question is not None:
        from .one_shot import answer

        return answer(_desk(options, sources, question), question, record)
    if options.as_events:
        from .one_shot import answer_lines

        return answer_lines(_desk(options, sources, None), sys.stdin, record)
    _keys_from_the_terminal(options)
    return _converse(_desk(options, sources, None), record)


def _question(options: Options) -> str | None:
    question = sys.stdin.read().strip() if options.prompt == "-" else options.prompt
    if question is not None and not question.strip():
        raise click.UsageError("The question is empty.")
    return question


def _as_before(context: click.Context, options: Options, record: ChatRecord) -> Options:
    """The options of a chat that is continued: its own, where the command line doesn't say otherwise."""
    from .history import KEPT_OPTIONS

    def given(name: str) -> bool:
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.DEFAULT_MAP:
            return name in config.in_use(context).profile
        return source not in (None, click.core.ParameterSource.DEFAULT)

    kept = {n: record.settings[n] for n in KEPT_OPTIONS if n in record.settings and not given(n)}
    if not given("model") and Path(record.model_path).is_file():
        kept["model"] = Path(record.model_path)
    return replace(options, system=options.system if given("system") else record.system, **kept)


def _sources(options: Options, record: ChatRecord | None) -> list[Source]:
    from .history import read_again
    from .workspace import read_source

    before = [] if record is None else read_again(record, options)
    return before + [read_source(origin, options.pages_of(i), options) for i, origin in enumerate(options.doc)]


def _desk(options: Options, sources: list[Source], question: str | None) -> Desk:
    from .workspace import Desk

    with console.StopOnInterrupt() as stop:
        desk = Desk(options, sources, question)
    if stop.requested:
        raise KeyboardInterrupt
    return desk


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


def _converse(desk: Desk, record: ChatRecord | None) -> int:
    from .history import Journal
    from .repl import Repl

    journal = Journal(record)
    talk = Repl(desk, journal)
    if record is not None:
        journal.resume(desk, record)
        journal.retell(desk.chat.history[-1:])
    try:
        return talk.run()
    finally:
        desk.close()


def main() -> None:
    console.harmless_streams()
    command(prog_name="selfextend-chat")
