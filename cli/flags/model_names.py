"""--model by a short name: an alias of config.toml, or a file of the models' folder.

Knows names and folders. Must not read models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")  # of a model in several files; the first one stands for all


class ModelName(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A GGUF file, or a name for one. Stays a text until the folder and the aliases are known."""

    name = "FILE"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Folders, GGUF files, aliases and what lies in the models' folder."""
        from .config import in_use

        folder = ctx.params.get("models_dir")
        names = [*in_use(ctx).models, *(_name(path) for path in models_in(folder))]
        short = [n for n in dict.fromkeys(names) if n.startswith(incomplete)]
        # Bash shows folders only if there is nothing else.
        return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, [*short, *_files(incomplete)])]


def _files(incomplete: str) -> list[str]:
    before, slash, begun = incomplete.rpartition("/")
    folder = Path(os.path.expanduser(before or ("/" if slash else ".")))
    try:
        found = sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(".gguf") and e.name.startswith(begun))
    except OSError:
        return []
    return [f"{before}{slash}{name}" for name in found]


def models_in(folder: Path | None) -> Iterator[Path]:
    """The GGUF files of a folder and those in it, in the order of their names."""
    if folder is None:
        return
    for at, below, names in os.walk(os.path.expanduser(folder), followlinks=False):
        below.sort()
        for name in sorted(names):
            path = Path(at, name)
            if path.suffix.lower() == ".gguf" and not _LATER_PART.search(path.stem):
                yield path


def find_model(name: str, aliases: Mapping[str, Path], folder: Path | None) -> Path:
    """The file that `--model name` means: an alias, a file, else a file of the folder by its name or a part of it.

    A name that means nothing is returned as a path, so that it is refused where models are opened. Raises ModelNotFound
    where several files fit, or where an alias or a folder says that a name was meant.
    """
    from selfextend_local.errors import ModelNotFound

    if name in aliases:
        return aliases[name]
    path = Path(os.path.expanduser(name))
    if path.is_file() or "/" in name or os.sep in name:
        return path
    inside = list(models_in(folder))
    wanted = name.lower().removesuffix(".gguf")
    exact = [p for p in inside if p.stem.lower() == wanted]
    found = exact or [p for p in inside if wanted in p.stem.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelNotFound(f"--model {name} may be any of these: {', '.join(p.name for p in found)}. Write more of the name.")
    if folder is None and not aliases:
        return path
    known = [*aliases, *map(_name, inside)]
    raise ModelNotFound(f"There is no model {name}, neither a file nor a name. Known: {', '.join(known) or 'none'}.")


def _name(path: Path) -> str:
    return path.stem


def model_options(command: F) -> F:
    """--model and --models-dir; `chosen` takes both out of the flags."""
    model = click.option("--model", type=ModelName(), metavar="FILE|NAME", help="GGUF model. Default: the embedded one.")
    folder = click.option("--models-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                          help="Where --model NAME is looked up.")  # fmt: skip
    return model(folder(command))


def chosen(context: click.Context, flags: dict[str, Any]) -> Path | None:
    """Take `model` and `models_dir` out of the flags; the model's file, or None for the default one. Raises ModelNotFound."""
    from .config import aliases, in_use

    name, folder = flags.pop("model"), flags.pop("models_dir")
    config = in_use(context)
    return None if name is None else find_model(name, aliases() if config.path is None else config.models, folder)
