"""`selfextend plan`: how a model reads texts of some lengths, and why.

Knows flags and a table. What is chosen, and the reasons, are the engine's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .errors import boundary
from .eval.run import read_length, tokens_of
from .flags import engine
from .flags.model_names import chosen, model_options
from .flags.types import ListOf
from .terminal import output

if TYPE_CHECKING:
    from pathlib import Path


@click.command("plan", context_settings={"help_option_names": ["-h", "--help"]})
@model_options
@click.option(
    "--tokens",
    type=ListOf("LENGTHS", read_length),
    default="0.25x,0.5x,1x,2x,4x,8x,16x",
    show_default=True,
    help="Of the text and the answer: tokens (4096, 16k) or trained windows (2x).",
)
@click.option("--why", is_flag=True, help="Say why, for each length.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@engine.engine()
@boundary
def command(tokens: tuple[int | float, ...], why: bool, as_json: bool, **flags: Any) -> None:
    """How a model reads texts of these lengths: plain, in groups or by recall.

    \b
    Examples:
      selfextend plan --why
      selfextend plan --model mistral.gguf --tokens 12k,60k --kv-type q8_0 --gpu-layers -1 --why
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek

    path: Path = model_or_default(chosen(click.get_current_context(), flags))
    settings = engine.taken(flags)
    with ModelPeek(path) as peek:
        window = peek.info.n_ctx_train
        rows = []
        for length in sorted({tokens_of(length, window) for length in tokens}):
            plan = peek.plan(replace(settings, need_tokens=length))
            reason = peek.why(replace(settings, groups_only=plan.groups_only), length)
            reads = plan.group_attention.label
            rows.append({"tokens": length, "reads": reads, "tuned": plan.tuned, "plan": plan.describe(), "why": reason})
    if as_json:
        click.echo(json.dumps({"model": str(path), "trained": window, "lengths": rows}, ensure_ascii=False))
        return
    output.say(f"{path.name}, trained for {window:,} tokens")
    width = max(len(str(row["reads"])) for row in rows)
    for row in rows:
        line = f"{row['tokens']:>11,}  {row['reads']:{width}}"
        click.echo(f"{line}  {row['why']}" if why else line.rstrip())
    if why:
        output.say("The figures are in docs/results.md; selfextend eval measures your model, selfextend tune keeps what it finds.")
