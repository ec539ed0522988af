"""`selfextend models`: the models that --model knows by a name.

Knows names, sizes and trained windows. Opens no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from .errors import boundary
from .flags import config
from .flags.model_names import models_in

_MIB = 1 << 20


@click.command("models", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models-dir", type=click.Path(file_okay=False, path_type=Path), envvar="SELFEXTEND_CHAT_MODELS_DIR", metavar="DIR",
              help="Default: models-dir of [chat] in config.toml.")  # fmt: skip
@boundary
def command(models_dir: Path | None) -> None:
    """List models by name: the aliases of config.toml, and the files of the models' folder.

    \b
    Example:
      selfextend models --models-dir ~/models
    """
    found = list(named(models_dir))
    width = max((len(name) for name, _ in found), default=0)
    for name, path in found:
        click.echo(f"{name:<{width}}  {_described(path)}")


def named(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Names and files: the aliases of config.toml, and the files of a folder; None = that of config.toml."""
    from .chat.command import command as chat

    held = config.read(click.Context(chat))
    yield from held.models.items()
    default = held.chat.get("models_dir")
    for path in models_in(folder or (Path(default) if default else None)):
        yield path.stem, path


def _described(path: Path) -> str:
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.errors import ModelError

    try:
        with ModelPeek(path) as peek:
            return f"{path.stat().st_size / _MIB:>9,.0f} MiB  trained {peek.info.n_ctx_train:>9,}  {path}"
    except ModelError:
        return f"can't be opened: {path}"
