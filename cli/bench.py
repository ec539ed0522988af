"""`selfextend bench`: flags, tables and pictures of selfextend_local.evaluation.speed, which is imported when there is work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import boundary
from .flags import engine
from .terminal import output

if TYPE_CHECKING:
    from selfextend_local.evaluation.speed import Bench, Report, Row

_SHORTEST = 4096


def table(report: Report) -> str:
    """Markdown: by depth the speeds with n=1 and the ratios of the others to it; then steps, start and memory."""
    from selfextend_local.evaluation.speed import Ratios

    sizes = report.workload.group_sizes
    at = {row.depth: row for row in report.depths if row.n == sizes[0]}
    ratios = Ratios.of(report)
    head = [f"prefill n={sizes[0]}", *(f"n={n}" for n in sizes[1:]), f"decode n={sizes[0]}", *(f"n={n}" for n in sizes[1:])]
    lines = ["| depth | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 1)]
    for depth in report.workload.depths:
        cells = [f"{at[depth].prefill_so_far:,.0f}", *(f"{ratios.prefill[n, depth]:.3f}" for n in sizes[1:])]
        cells += [f"{at[depth].decode:,.1f}", *(f"{ratios.decode[n, depth]:.3f}" for n in sizes[1:])]
        lines.append(f"| {depth:,} | " + " | ".join(cells) + " |")
    lines += ["", f"Speeds in tokens/s with n={sizes[0]}, the others as ratios to it; prefill from the start of the text to the depth."]
    for step in report.steps:
        of_token, of_prefill = ratios.step_in_decode[step.n], ratios.steps_in_prefill[step.n]
        lines.append(f"Boundary step, n={step.n}: {step.decode_ms:.2f} ms in a decode, {of_token:.2f} of a token's time; "
                     f"{step.prefill_ms:.2f} ms in the prefill, {of_prefill:.1%} of its time.")  # fmt: skip
    (cold, warm), all_mib = report.start_s, report.memory_mib[1]
    start = "" if ratios.start is None else f", {ratios.start:.2f} times the plain library's"
    lines.append(f"Start: {cold:.2f} s the first time, warm {warm:.2f} s{start}. "
                 f"Peak memory: {all_mib:,.0f} MiB, {ratios.memory:.3f} times that with n={sizes[0]}.")  # fmt: skip
    return "\n".join(lines)


def plot(report: Report, file: Path) -> None:
    """Prefill and decode speed against depth, one line a group size; see `check_plot`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for n in report.workload.group_sizes:
        rows = [row for row in report.depths if row.n == n]
        depths = [row.depth for row in rows]
        left.plot(depths, [row.prefill for row in rows], marker=".", label=f"n={n}")
        right.plot(depths, [row.decode for row in rows], marker=".", label=f"n={n}")
    for axes, title in ((left, "prefill"), (right, "decode")):
        axes.set(title=title, xlabel="depth (tokens)", ylabel="tokens/s", ylim=(0, None))
        axes.legend()
    figure.suptitle(f"{report.model}, {report.kv_type} KV cache, {report.devices[0] if report.devices else 'CPU'}")
    figure.savefig(file)


def promises_table(rows: Sequence[Row]) -> str:
    """Markdown: what was measured, and whether it keeps to its limit."""
    lines = ["| what | measured | limit | |", "|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        lines.append(f"| {row.what} | {row.value:.4g} ({row.detail}) | {sign} {row.limit} | {'ok' if row.holds else 'MISSED'} |")
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "model_path", type=click.Path(path_type=Path), help="GGUF model. Default: the embedded one.")
@click.option("--tokens", default=2 * _SHORTEST, show_default=True, type=click.IntRange(_SHORTEST), help="Length of the text.")
@click.option("--ga-n", "sizes", default=(4, 16), show_default=True, multiple=True, type=click.IntRange(2), help="Group sizes, against 1.")
@click.option("--ga-w", "window", default=512, show_default=True, type=click.IntRange(1), help="Neighbour window.")
@click.option("--ga-mode", "mode", type=click.Choice(engine.GROUP_MODES[1:3]), default="two-level", show_default=True,
              help="Form of the groups.")  # fmt: skip
@engine.kv_type("f16")
@engine.gpu_layers
@engine.threads
@click.option("--passes", default=2, show_default=True, type=click.IntRange(1), help="Prefills of the text for each group size.")
@click.option("--limits", is_flag=True, help="Measure instead what this project promises on a CPU; exit 1 where it misses a limit.")
@click.option("--plain-library", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="With --limits: a stock libllama to compare with. Default: this library with n=1.")  # fmt: skip
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the speeds as a picture (svg, png, pdf).")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
@boundary
def command(
    model_path: Path | None,
    tokens: int,
    sizes: tuple[int, ...],
    window: int,
    mode: str,
    kv_type: str,
    gpu_layers: Any,
    threads: int | None,
    passes: int,
    limits: bool,
    plain_library: Path | None,
    plot_file: Path | None,
    as_json: bool,
) -> int:
    """Measure prefill and decode speed by depth under group attention, against the plain model in the same run.

    \b
    Examples:
      selfextend bench
      selfextend bench --model mistral.gguf --gpu-layers -1 --tokens 32768 --ga-n 8
      selfextend bench --json --plot speed.svg
      selfextend bench --limits
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.evaluation import speed
    from selfextend_local.evaluation.plots import check_plot
    from selfextend_local.positions import default_step

    if plain_library and not limits:
        raise click.UsageError("--plain-library needs --limits.")
    if plot_file and limits:
        raise click.UsageError("--limits draws nothing: leave --plot out.")
    path = model_or_default(model_path)
    bench = speed.Bench(path, tokens, kv_type, gpu_layers, threads, plain_library)
    if limits:
        return _limits(bench, as_json)
    if plot_file:
        check_plot(plot_file)
    with ModelPeek(path) as peek:
        step = default_step(peek.info.n_ctx_train)
    work = speed.Workload(tokens, (1, *sizes), window, step, passes, progressive=mode == "progressive")
    report = speed.measure(bench, work, output.say)
    if plot_file:
        plot(report, plot_file)
    click.echo(json.dumps(asdict(report) | {"ratios": speed.Ratios.of(report).as_json()}) if as_json else table(report))
    return 0


def _limits(bench: Bench, as_json: bool) -> int:
    from selfextend_local.evaluation.speed import PROMISES

    rows = []
    for promise in PROMISES:
        for row in promise(bench):
            rows.append(row)
            output.say(f"{row.what}: {row.value:.4g} ({row.detail})")
    click.echo(json.dumps([asdict(row) | {"holds": row.holds} for row in rows]) if as_json else promises_table(rows))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    command()
