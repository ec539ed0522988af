"""`selfextend env`: the plan for a model and a need, as the variables that the patched library reads.

Knows flags and how a shell quotes. The plan is the engine's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import click

from .errors import boundary
from .flags import engine
from .flags.model_names import chosen, model_options
from .terminal import output


@click.command("env", context_settings={"help_option_names": ["-h", "--help"]})
@model_options
@click.option("--need-tokens", type=click.IntRange(1), metavar="N",
              help="Tokens of the text and the answer. Default: 4 trained windows, memory allowing.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The variables, n_ctx and the plan as an object.")
@engine.engine("f16")
@boundary
def command(need_tokens: int | None, as_json: bool, **flags: Any) -> None:
    """Print what another program needs to read as far as this one would: the variables of the patched library, and n_ctx.

    \b
    Examples:
      selfextend env --model mistral.gguf --need-tokens 32000
      eval "$(selfextend env --model mistral.gguf --need-tokens 32000)"
      selfextend env --need-tokens 32000 --json

    What `selfextend tune` found is in it. The context is the program's own to ask for: n_ctx is the last line, a comment.
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.environment import NAMES, variables
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.engine.tuned import with_profile

    path = model_or_default(chosen(click.get_current_context(), flags))
    with ModelPeek(path) as peek:
        asked = replace(engine.taken(flags), need_tokens=need_tokens)
        settings = with_profile(asked, path)
        plan = peek.plan(settings)
    found = variables(plan.group_attention, settings.ga_temperature or 0.0)
    output.say(plan.describe())
    if as_json:
        click.echo(json.dumps({"variables": found, "n_ctx": plan.n_ctx, "plan": asdict(plan)}))
        return
    for name in NAMES:
        click.echo(f"export {name}={found[name]}" if name in found else f"unset {name}")
    click.echo(f"# n_ctx {plan.n_ctx}")
