"""`selfextend serve`: an HTTP server with OpenAI's chat interface.

Knows flags and the order of things: plan, listen, serve. What they mean is in selfextend_local.server, which is imported when the
command runs, so that --help answers at once.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.chat.settings import ChatSettings

from ..errors import boundary
from ..flags import engine
from ..flags.model_names import chosen, model_options
from ..flags.reading import read_limits
from ..flags.types import SizeType
from ..terminal import output

if TYPE_CHECKING:
    from selfextend_local.server.model import ServedModel
    from selfextend_local.server.slots import LlamaServer

_EXTRA = "`selfextend serve` needs packages that aren't installed ({}): pip install 'selfextend-local[serve]'"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@model_options
@click.option("--need-tokens", type=click.IntRange(1), metavar="N",
              help="Tokens of a request, its documents and its answer. Default: 4 trained windows, memory allowing.")  # fmt: skip
@engine.engine()
@click.option("--parallel", type=click.IntRange(1, 64), metavar="N",
              help="Answer N requests without documents at once, by llama-server; with tools. `make llama-server` builds it.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen. One that other machines reach needs a key.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 = one that is free.")
@click.option("--api-key", metavar="KEY", help="Asked for under /v1. Others see it in the list of processes: better take")
@click.option("--api-key-file", type=_FILE, metavar="FILE", help="a file that holds it.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="One more name that the server is called by, behind a proxy say.")
@click.option("--allow-origin", multiple=True, metavar="URL", help="Pages of this origin may ask, such as https://example.org.")
@click.option("--max-tokens", type=click.IntRange(1), default=2048, show_default=True, metavar="N",
              help="Of an answer whose request doesn't say.")  # fmt: skip
@click.option("--max-body", type=SizeType(), default="16M", show_default=True, help="Of a question.")
@click.option("--max-upload", type=SizeType(), default="256M", show_default=True, help="Of a document's file.")
@click.option("--ocr", is_flag=True, help="Recognise the text of scanned pages.")
@read_limits(ChatSettings.read_timeout, ChatSettings.read_memory)
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=3600.0, show_default=True, metavar="S",
              help="Stop an answer, or the reading ahead of a document, after so many seconds of work.")  # fmt: skip
@click.option("--cache/--no-cache", default=True, help="Keep what the model reads on disk, so that it is read once.")
@boundary
def command(
    need_tokens: int | None,
    parallel: int | None,
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    max_tokens: int,
    max_body: int,
    max_upload: int,
    ocr: bool,
    read_timeout: float,
    read_memory: int,
    timeout: float,
    cache: bool,
    **flags: Any,
) -> None:
    """Answer over HTTP, with OpenAI's chat interface, and read each document once.

    \b
    Examples:
      selfextend serve
      selfextend serve --model mistral.gguf --need-tokens 32000
      selfextend serve --need-tokens 8000 --parallel 4
      selfextend serve --host 0.0.0.0 --api-key-file key.txt
      curl http://127.0.0.1:8080/v1/models

    One request is answered at a time, the others wait; but see --parallel. Ctrl-C stops the server and keeps what was read.

    Exit codes: 0 stopped, 1 error, 2 wrong usage.
    """
    if api_key is not None and api_key_file is not None:
        raise click.UsageError("Take either --api-key or --api-key-file.")
    if api_key_file is not None:
        api_key = api_key_file.read_text(encoding="utf-8").strip()
    try:
        from selfextend_local.documents.reader import ReadLimits
        from selfextend_local.server.app import Limits
        from selfextend_local.server.guard import Access
        from selfextend_local.server.serving import Serving, listening
        from selfextend_local.server.shelf import Shelf
    except ImportError as error:
        raise click.ClickException(_EXTRA.format((error.name or "").partition(".")[0])) from error
    with listening(host, port, api_key) as listener:
        model, slots = _planned(need_tokens, parallel, max_tokens, cache, flags)
        access = Access(host, api_key, allow_host, allow_origin)
        limits = Limits(max_body, max_upload, timeout, max_tokens, ReadLimits(read_timeout, read_memory))
        ready = partial(output.say, f"Ready: {_address(listener)}")
        Serving(model, listener, Shelf(), access, limits, ready, ocr=ocr, slots=slots).run()
    output.say("Stopped; what was read is kept.")


def _planned(
    need_tokens: int | None, parallel: int | None, max_tokens: int, cache: bool, flags: dict[str, Any]
) -> tuple[ServedModel, LlamaServer | None]:
    from selfextend_local.chat.workspace import model_path
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.server import slots
    from selfextend_local.server.model import ServedModel
    from selfextend_local.sessions import StateCache

    from ..chat.listener import SayingListener

    program = slots.program() if parallel else None
    file = chosen(click.get_current_context(), flags)
    settings = replace(engine.taken(flags), need_tokens=need_tokens)
    path = model_path(ChatSettings(model=file), SayingListener())
    with ModelPeek(path) as peek:
        plan = peek.plan(settings)
        beside = slots.slots_plan(peek, settings, parallel, plan) if parallel else None
    output.say(plan.describe())
    model = ServedModel(path, settings, plan, StateCache() if cache else None, output.say)
    if program is None or beside is None:
        return model, None
    output.say(beside.describe())
    command = [str(program), *slots.arguments(path, model.name, beside, settings.threads, max_tokens)]
    return model, slots.LlamaServer(command, slots.environment(beside))


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
