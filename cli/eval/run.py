"""What the tasks of `selfextend eval` share: flags, the results file, and the way from a task to a table.

Knows flags and the order of things. What is measured is in selfextend_local.evaluation, imported when a task runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from selfextend_local.engine.plan import AUTO_KV_TYPES, Settings

from ..errors import EXIT_INTERRUPTED
from ..flags.engine import GROUP_MODES, GROUP_MODES_HELP, TEMPERATURE_HELP, gpu_layers, threads
from ..flags.types import ListOf
from ..terminal import interrupts, output, progress

if TYPE_CHECKING:
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.evaluation.methods import Method
    from selfextend_local.evaluation.results import Results, Row
    from selfextend_local.evaluation.runner import Subject
    from selfextend_local.evaluation.tasks import Task

F = TypeVar("F", bound=Callable[..., Any])
METHOD_NAMES = ("plain", "selfextend", "yarn", "ntk", "linear", "upstream")


def number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ValueError(f"{text!r} is no whole number above 0")
    return int(text)


def size(text: str) -> int | str:
    return "auto" if text == "auto" else number(text)


def temperature(text: str) -> float:
    """An attention temperature."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise ValueError(f"{text!r} is no number from 0 to 10")
    return value


def read_length(text: str) -> int | float:
    """Tokens: 4096, 16k, or a multiple of the trained window as a float: 2x."""
    try:
        if text.endswith("x"):
            value: int | float = float(text[:-1])
        else:
            value = int(float(text[:-1]) * 1024) if text.endswith("k") else int(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{text!r} is no length; write tokens (4096, 16k) or trained windows (2x)") from None
    if value <= 0:
        raise ValueError(f"{text!r} is not above 0")
    return value


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return read


@dataclass(frozen=True)
class Options:
    """The flags that all tasks share."""

    model: Path | None
    lengths: tuple[int | float, ...]
    methods: tuple[str, ...]
    ga_n: tuple[Any, ...]
    ga_w: tuple[int, ...] | None
    ga_mode: tuple[Any, ...]
    ga_temperature: tuple[float, ...] | None
    ga_recall: tuple[int | float, ...] | None
    kv_type: tuple[str, ...]
    threads: int | None
    gpu_layers: Any
    out: Path | None
    plot: Path | None
    as_json: bool

    @staticmethod
    def take(flags: dict[str, Any]) -> Options:
        """Take the shared flags out of `flags`; what the task adds stays there."""
        return Options(**{name: flags.pop(name) for name in Options.__dataclass_fields__})


_SHARED = (
    click.option("--model", type=click.Path(path_type=Path), metavar="FILE", help="GGUF model. Default: the embedded one."),
    click.option(
        "--lengths",
        type=ListOf("LENGTHS", read_length),
        default="0.5x,1x,2x",
        show_default=True,
        help="Tokens (4096, 16k) or trained windows (2x).",
    ),
    click.option(
        "--methods",
        type=ListOf("NAMES", one_of(METHOD_NAMES)),
        default="plain,selfextend",
        show_default=True,
        help="Of plain, selfextend, yarn, ntk, linear, upstream (llama.cpp's -gan schedule).",
    ),
    click.option("--ga-n", type=ListOf("N,auto", size), default="auto", show_default=True, help="Group sizes to compare."),
    click.option("--ga-w", type=ListOf("TOKENS", number), help="Neighbour windows to compare. Default: as in chat."),
    click.option(
        "--ga-mode",
        type=ListOf("MODES", one_of(GROUP_MODES)),
        default="auto",
        show_default=True,
        help=f"Of {', '.join(GROUP_MODES)}. {GROUP_MODES_HELP}",
    ),
    click.option("--ga-temperature", type=ListOf("C", temperature), help=f"{TEMPERATURE_HELP} Default: as in chat."),
    click.option("--ga-recall", type=ListOf("TOKENS", read_length),
                 help="With --ga-mode recall: far tokens fetched, or trained windows (0.25x). Default: as in chat."),  # fmt: skip
    click.option("--kv-type", type=ListOf("TYPES", one_of(AUTO_KV_TYPES)), default="f16", show_default=True, help="KV cache types."),
    threads,
    gpu_layers,
    click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: eval-TASK.jsonl."),
    click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw a PNG, SVG or PDF."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)


def shared(function: F) -> F:
    """Add the flags of Options to a task's command."""
    for option in reversed(_SHARED):
        function = option(function)
    return function


def tokens_of(length: int | float, trained: int) -> int:
    return length if isinstance(length, int) else max(1, round(length * trained))


def evaluate(task: Task | Callable[[int], Task], options: Options) -> int:
    """Run a task (or one that is made for a trained window) and show what came of it; the exit code."""
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.errors import Interrupted
    from selfextend_local.evaluation.methods import methods
    from selfextend_local.evaluation.plots import check_plot
    from selfextend_local.evaluation.results import Results

    if options.plot:
        check_plot(options.plot)
    path = model_or_default(options.model)
    with ModelPeek(path) as peek:
        trained = peek.info.n_ctx_train
        columns = methods(
            options.methods,
            options.ga_n,
            options.ga_w or (None,),
            options.ga_mode,
            options.ga_temperature or (None,),
            [tokens_of(recall, trained) for recall in options.ga_recall] if options.ga_recall else (None,),
        )
        made = task(trained) if callable(task) else task
        results = Results(options.out or Path(f"eval-{made.name}.jsonl"))
        lengths = sorted({tokens_of(length, trained) for length in options.lengths})
        try:
            rows = _rows(made, peek, columns, lengths, results, options)
        except Interrupted as stopped:
            output.say(f"{stopped} Run the same command again to go on ({results.path}).")
            return EXIT_INTERRUPTED
    _show(rows, results.path, options)
    return 0


def _rows(
    task: Task, peek: ModelPeek, columns: list[Method], lengths: list[int], results: Results, options: Options
) -> list[Row]:
    from selfextend_local.evaluation.model_reader import ModelReaders
    from selfextend_local.evaluation.runner import Cell, cells, run

    rows: list[Row] = []
    made_with = _made_with(options)
    for kv_type in options.kv_type:
        settings = Settings(kv_type=kv_type, threads=options.threads, gpu_layers=options.gpu_layers)
        planned: list[Cell] = cells(task, subject_of(peek, kv_type, options.gpu_layers), columns, lengths)
        with (
            interrupts.StopOnInterrupt() as stop,
            ModelReaders(peek.info.path, settings, should_stop=stop) as readers,
            progress.progress(f"{task.name}, {kv_type}", quiet=options.as_json, deepens=False) as update,
        ):
            rows += run(planned, results, readers, made_with=made_with, progress=update, should_stop=stop)
    return rows


def subject_of(peek: ModelPeek, kv_type: str, gpu_layers: int | str = 0) -> Subject:
    """What is evaluated, with what the automatic choice has of a profile, and what it may take with that cache there."""
    from selfextend_local.engine.machine import free_memory
    from selfextend_local.engine.plan import Shape, restricted
    from selfextend_local.engine.tuned import with_profile
    from selfextend_local.evaluation.methods import Rotary
    from selfextend_local.evaluation.prompting import PeekTokenizer
    from selfextend_local.evaluation.runner import Subject
    from selfextend_local.storage.identity import model_identity

    info = peek.info
    on_gpu = gpu_layers != 0 and free_memory().gpu > 0
    usual = restricted(Settings(), Shape(info.n_ctx_train, kv_type, int(on_gpu), flash_attn=True))
    rotary = Rotary.of(info.metadata, info.n_ctx_train, info.sliding_window, with_profile(usual, info.path))
    record = {"model": info.name, "file": info.path.name, "identity": model_identity(info.path), "trained": info.n_ctx_train}
    return Subject(PeekTokenizer(peek), rotary, {**record, "kv_type": kv_type})


def _made_with(options: Options) -> dict[str, Any]:
    from selfextend_local import __version__
    from selfextend_local.engine.machine import probe

    library = probe()
    on_gpu = options.gpu_layers != 0
    devices = [d for d in library.devices if not d.startswith("CPU")] if on_gpu else []
    return {"selfextend_local": __version__, "llama_cpp_python": library.version, "devices": devices or ["CPU"]}


def _show(rows: list[Row], path: Path, options: Options) -> None:
    from selfextend_local.evaluation.summary import groups

    found = groups(rows)
    if options.plot:
        from selfextend_local.evaluation.plots import draw

        draw(found, options.plot)
        output.say(f"Plot: {options.plot}")
    output.say(f"Results: {path}")
    if options.as_json:
        click.echo(json.dumps({"results": str(path), "groups": [group.as_json() for group in found]}, ensure_ascii=False))
    else:
        from .tables import print_results

        print_results(found)
