"""`selfextend`: the group of commands. Loads a command's module when the command is asked for, nothing else.

A new command is one line in COMMANDS.
"""

from __future__ import annotations

from importlib import import_module

import click

from selfextend_local import __version__

from .terminal import output

COMMANDS = {
    "chat": "selfextend_cli.chat.command:command",
    "bench": "selfextend_cli.bench:command",
    "doctor": "selfextend_cli.doctor:command",
    "env": "selfextend_cli.env:command",
    "serve": "selfextend_cli.serve.command:command",
    "sessions": "selfextend_cli.sessions:command",
    "summarize": "selfextend_cli.summarize.command:command",
    "eval": "selfextend_cli.eval.command:command",
    "tune": "selfextend_cli.eval.tune:command",
    "plan": "selfextend_cli.plan:command",
    "pages": "selfextend_cli.pages:command",
    "completion": "selfextend_cli.shell_completion:command",
    "models": "selfextend_cli.models:command",
}


class LazyGroup(click.Group):
    """Commands by name, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(module), name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="selfextend")
def group() -> None:
    """Read documents longer than a model's trained window, on this machine.

    \b
    Examples:
      selfextend chat --doc report.pdf
      selfextend summarize reports/ -o summaries.jsonl
      selfextend doctor --self-test
    """


def main() -> None:
    output.harmless_streams()
    group(prog_name="selfextend", auto_envvar_prefix="SELFEXTEND")
