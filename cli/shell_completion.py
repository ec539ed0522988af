"""`selfextend completion SHELL`: what a shell needs to complete commands, flags, models and documents."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .errors import boundary

PROGRAMS = ("selfextend", "selfextend-chat", "selfextend-summarize")


@click.command("completion", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@boundary
def command(shell: str) -> None:
    """Print the script that completes selfextend, selfextend-chat and selfextend-summarize.

    \b
    In ~/.bashrc:                     eval "$(selfextend completion bash)"
    In ~/.zshrc, after compinit:      eval "$(selfextend completion zsh)"
    In ~/.config/fish/config.fish:    selfextend completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    for program in PROGRAMS:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        click.echo(kind(click.Command(program), {}, program, variable).source())
