"""`selfextend bench`: prefill and decode speed by depth for several group sizes, the cost of a boundary step, start and memory.

All figures of one run come from one context whose group size is changed between passes, and the passes take turns, so
that the ratios to n=1 hold on a noisy machine too: of each piece of work the least time counts.
It knows the C functions by their names in llama_cpp and calls them itself, since Llama.eval copies logits after each token.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .chat.options import GPU_LAYERS, GPU_LAYERS_HELP, GROUP_MODES, KV_TYPE_HELP, KV_TYPES
from .errors import boundary
from .terminal import console

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

CHUNK = 2048
"""Tokens of one call of llama_decode during a prefill, and the distance of the depths that are recorded."""

Opened = TypeVar("Opened")

_DECODED = 32
_STEPS = 8


@dataclass(frozen=True)
class Workload:
    """What is measured: a text of `n_tokens` random tokens, group sizes (1 first), w and r in tokens, the form, passes of each."""

    n_tokens: int
    group_sizes: tuple[int, ...]
    window: int
    step: int
    passes: int
    progressive: bool = False

    @property
    def n_steps(self) -> int:
        """Boundary steps in a prefill of the text."""
        return max(1, (self.n_tokens - 1 - self.window) // self.step)


@dataclass(frozen=True)
class Depth:
    """Speeds in tokens/s at one depth: prefill of the chunk that ends there, all of the prefill up to there, decode."""

    n: int
    depth: int
    prefill: float
    prefill_so_far: float
    decode: float


@dataclass(frozen=True)
class Step:
    """Milliseconds of one boundary step in a decode, and what all steps of the prefill cost by its time against n=1."""

    n: int
    decode_ms: float
    prefill_ms: float


@dataclass(frozen=True)
class Report:
    """One run. `start_s`: seconds to open model and context, the first time and warm; `plain_start_s`: warm, of
    llama_cpp.Llama. Memory in MiB: the peak of the process after the passes with n=1, and after all."""

    model: str
    kv_type: str
    n_ctx: int
    devices: tuple[str, ...]
    workload: Workload
    start_s: tuple[float, float]
    memory_mib: tuple[float, float]
    depths: tuple[Depth, ...]
    steps: tuple[Step, ...]
    plain_start_s: float | None = None


@dataclass(frozen=True)
class Ratios:
    """A report as ratios to the plain model in the same run. Speeds by (n, depth): prefill from the start of the text, and
    decode. Steps by n: milliseconds over those of a decoded token, and the share of all steps in the plain prefill's time."""

    prefill: dict[tuple[int, int], float]
    decode: dict[tuple[int, int], float]
    step_in_decode: dict[int, float]
    steps_in_prefill: dict[int, float]
    start: float | None
    memory: float

    @staticmethod
    def of(report: Report) -> Ratios:
        work = report.workload
        plain = {row.depth: row for row in report.depths if row.n == work.group_sizes[0]}
        rows = [row for row in report.depths if row.n != work.group_sizes[0]]
        end = plain[work.n_tokens]
        prefill_ms = 1000 * work.n_tokens / end.prefill_so_far
        return Ratios(
            prefill={(row.n, row.depth): row.prefill_so_far / plain[row.depth].prefill_so_far for row in rows},
            decode={(row.n, row.depth): row.decode / plain[row.depth].decode for row in rows},
            step_in_decode={step.n: step.decode_ms * end.decode / 1000 for step in report.steps},
            steps_in_prefill={step.n: step.prefill_ms * work.n_steps / prefill_ms for step in report.steps},
            start=None if report.plain_start_s is None else report.start_s[1] / report.plain_start_s,
            memory=report.memory_mib[1] / report.memory_mib[0],
        )

    def as_json(self) -> dict[str, Any]:
        speeds = [{"n": n, "depth": depth, "prefill": self.prefill[n, depth], "decode": self.decode[n, depth]} for n, depth in self.prefill]
        steps = [{"n": n, "decode": self.step_in_decode[n], "prefill": self.steps_in_prefill[n]} for n in self.step_in_decode]
        return {"speeds": speeds, "steps": steps, "start": self.start, "memory": self.memory}


class Loop:
    """Decodes tokens and waits for the device, without copying logits."""

    def __init__(self, llm: SelfExtendLlama) -> None:
        from selfextend_local import native

        self._llm = llm
        self._api: Any = native.bindings()
        self._ctx: Any = llm.ctx
        self._memory: Any = self._api.llama_get_memory(self._ctx)

    def group(self, n: int, work: Workload) -> None:
        from selfextend_local.positions import GroupAttention

        self._llm.pin_group_attention(GroupAttention(n, work.window, work.step, work.progressive))

    def rewind(self, position: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, 0, position, -1)

    def seconds(self, tokens: Sequence[int]) -> float:
        """The time to decode these tokens behind those in the cache."""
        from selfextend_local.errors import ModelError

        batch = (self._api.llama_token * len(tokens))(*tokens)
        started = time.perf_counter()
        code = self._api.llama_decode(self._ctx, self._api.llama_batch_get_one(batch, len(tokens)))
        self._api.llama_synchronize(self._ctx)
        if code != 0:
            raise ModelError(f"llama_decode returned {code}. Try a smaller --tokens.")
        return time.perf_counter() - started


def measure(
    open_model: Callable[[], SelfExtendLlama], open_plain: Callable[[SelfExtendLlama], Any], work: Workload, say: Callable[[str], None]
) -> Report:
    """Run the workload. `open_plain` opens the same context with llama_cpp.Llama. Raises what opening the model raises, and
    ModelError."""
    llm, cold = _timed(open_model)
    warm, plain_start = _starts(llm, open_model, open_plain)
    loop = Loop(llm)
    tokens = list(_random_tokens(llm.n_vocab(), work.n_tokens + _DECODED + 2))
    chunks, plain_peak = _prefills(loop, tokens, work, say)
    decodes = _decodes(loop, tokens, work, say)
    total = {n: sum(chunks[n]) for n in work.group_sizes}
    steps = [
        Step(n, _step_ms(loop, tokens, work, n), 1000 * (total[n] - total[work.group_sizes[0]]) / work.n_steps)
        for n in work.group_sizes
        if n > 1
    ]
    report = Report(
        model=llm.info.name,
        kv_type=llm.plan.kv_type,
        n_ctx=llm.n_ctx(),
        devices=_devices(),
        workload=work,
        start_s=(cold, warm),
        plain_start_s=plain_start,
        memory_mib=(plain_peak, peak_mib()),
        depths=tuple(_by_depth(work, chunks, decodes)),
        steps=tuple(steps),
    )
    llm.close()
    return report


def _timed(opens: Callable[[], Opened]) -> tuple[Opened, float]:
    started = time.perf_counter()
    llm = opens()
    return llm, time.perf_counter() - started


def _starts(
    llm: SelfExtendLlama, open_model: Callable[[], SelfExtendLlama], open_plain: Callable[[SelfExtendLlama], Any]
) -> tuple[float, float]:
    """Seconds to open what is in the page cache by now, ours and the plain library's: the least of three each, in turns."""
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(3):
        for opens, took in ((open_model, ours), (lambda: open_plain(llm), plain)):
            opened, seconds = _timed(opens)
            opened.close()
            took.append(seconds)
    return min(ours), min(plain)


def _random_tokens(n_vocab: int, count: int) -> Iterator[int]:
    # speed depends on no token's value; a fixed generator makes two runs do the same
    state = 1
    for _ in range(count):
        state = state * 6364136223846793005 % (1 << 64) + 1442695040888963407
        yield 3 + (state >> 33) % (n_vocab - 3)


def _devices() -> tuple[str, ...]:
    from selfextend_local import native

    return native.probe().devices


def peak_mib() -> float:
    """The most memory that this process has taken so far, in MiB."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / (1 << 20)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def _prefills(loop: Loop, tokens: list[int], work: Workload, say: Callable[[str], None]) -> tuple[dict[int, list[float]], float]:
    """Group size -> seconds of each chunk, the least of all passes; and the peak memory after the first, plain pass."""
    starts = range(0, work.n_tokens, CHUNK)
    best: dict[int, list[float]] = {}
    plain_peak = 0.0
    loop.group(1, work)
    loop.seconds(tokens[:CHUNK])  # the first graphs of a context are slower
    for turn in range(work.passes):
        for n in work.group_sizes if turn % 2 == 0 else work.group_sizes[::-1]:
            loop.rewind(0)
            loop.group(n, work)
            took = [loop.seconds(tokens[at : min(at + CHUNK, work.n_tokens)]) for at in starts]
            best[n] = [min(pair) for pair in zip(took, best.get(n, took), strict=True)]
            plain_peak = plain_peak or peak_mib()
            say(f"prefill of {work.n_tokens:,} tokens, n={n}: {sum(took):.2f} s")
    return best, plain_peak


def _decodes(loop: Loop, tokens: list[int], work: Workload, say: Callable[[str], None]) -> dict[tuple[int, int], float]:
    """(group size, depth) -> median seconds of a decoded token, deepest first since going back needs no prefill."""
    took: dict[tuple[int, int], list[float]] = {}
    for depth in reversed(_depths(work)):
        for turn in range(2 * work.passes):
            for n in work.group_sizes if turn % 2 == 0 else work.group_sizes[::-1]:
                loop.rewind(depth)
                loop.group(n, work)
                loop.seconds(tokens[depth : depth + 1])  # moves the keys to this grouping
                times = [loop.seconds([token]) for token in tokens[depth + 1 : depth + _DECODED]]
                took.setdefault((n, depth), []).extend(times)
        say(f"decode at {depth:,}: " + ", ".join(f"n={n} {1 / median(took[n, depth]):,.1f}" for n in work.group_sizes) + " tokens/s")
        loop.rewind(depth)
    return {key: median(times) for key, times in took.items()}


def _depths(work: Workload) -> list[int]:
    return [min(at + CHUNK, work.n_tokens) for at in range(0, work.n_tokens, CHUNK)]


def _step_ms(loop: Loop, tokens: list[int], work: Workload, n: int) -> float:
    """One boundary step in a decode: tokens that cross the boundary less tokens that don't, the median of each."""
    loop.rewind(0)
    loop.group(n, work)
    crossing, other = [], []
    done = 0
    for at in range(work.window + 2 * work.step, work.n_tokens - 4, work.step)[:_STEPS]:
        loop.seconds(tokens[done : at - 3])
        for position in range(at - 3, at):  # after a prefill the first decodes are slower
            loop.seconds(tokens[position : position + 1])
        crossing.append(loop.seconds(tokens[at : at + 1]))
        other += [loop.seconds(tokens[position : position + 1]) for position in range(at + 1, at + 4)]
        done = at + 4
    return 1000 * (median(crossing) - median(other))


def _by_depth(work: Workload, chunks: dict[int, list[float]], decodes: dict[tuple[int, int], float]) -> Iterator[Depth]:
    for n in work.group_sizes:
        so_far, start = 0.0, 0
        for depth, seconds in zip(_depths(work), chunks[n], strict=True):
            so_far += seconds
            yield Depth(n, depth, (depth - start) / seconds, depth / so_far, 1 / decodes[n, depth])
            start = depth


def table(report: Report) -> str:
    """Markdown: by depth the speeds with n=1 and the ratios of the others to it; then steps, start and memory."""
    sizes = report.workload.group_sizes
    at = {row.depth: row for row in report.depths if row.n == sizes[0]}
    ratios = Ratios.of(report)
    head = [f"prefill n={sizes[0]}", *(f"n={n}" for n in sizes[1:]), f"decode n={sizes[0]}", *(f"n={n}" for n in sizes[1:])]
    lines = ["| depth | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 1)]
    for depth in _depths(report.workload):
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


@click.command()
@click.option("--model", "model_path", type=click.Path(path_type=Path), help="GGUF model. Default: the embedded one.")
@click.option("--tokens", default=4 * CHUNK, show_default=True, type=click.IntRange(2 * CHUNK), help="Length of the text.")
@click.option("--ga-n", "sizes", default=(4, 16), show_default=True, multiple=True, type=click.IntRange(2), help="Group sizes, against 1.")
@click.option("--ga-w", "window", default=512, show_default=True, type=click.IntRange(1), help="Neighbour window.")
@click.option("--ga-mode", "mode", type=click.Choice(GROUP_MODES[1:]), default="two-level", show_default=True, help="Form of the groups.")
@click.option("--kv-type", type=KV_TYPES, default="f16", show_default=True, help=KV_TYPE_HELP)
@click.option("--gpu-layers", type=GPU_LAYERS, default="auto", show_default=True, help=GPU_LAYERS_HELP)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: the physical cores.")
@click.option("--passes", default=2, show_default=True, type=click.IntRange(1), help="Prefills of the text for each group size.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the speeds as a picture (svg, png, pdf).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the table.")
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
    plot_file: Path | None,
    as_json: bool,
) -> int:
    """Measure prefill and decode speed by depth under group attention, against the plain model in the same run.

    \b
    Examples:
      selfextend bench
      selfextend bench --model mistral.gguf --gpu-layers -1 --tokens 32768 --ga-n 8
      selfextend bench --json --plot speed.svg
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.llama import ModelPeek, SelfExtendLlama
    from selfextend_local.evaluation.plots import check_plot
    from selfextend_local.positions import MICRO_BATCH, default_step

    if plot_file:
        check_plot(plot_file)
    path = model_or_default(model_path)

    def open_model() -> SelfExtendLlama:
        return SelfExtendLlama(
            path, n_ctx=tokens + MICRO_BATCH, kv_type=kv_type, n_gpu_layers=gpu_layers, n_threads=threads, n_batch=CHUNK
        )

    def open_plain(llm: SelfExtendLlama) -> Any:
        from llama_cpp import Llama

        p = llm.context_params
        same = {name: getattr(p, name) for name in ("n_ctx", "n_batch", "n_ubatch", "type_k", "type_v", "n_threads")}
        n_gpu_layers = llm.model_params.n_gpu_layers
        return Llama(str(path), flash_attn=llm.plan.flash_attn, n_gpu_layers=n_gpu_layers, verbose=False, **same)

    with ModelPeek(path) as peek:
        step = default_step(peek.info.n_ctx_train)
    work = Workload(tokens, (1, *sizes), window, step, passes, progressive=mode == "progressive")
    report = measure(open_model, open_plain, work, console.say)
    if plot_file:
        plot(report, plot_file)
    click.echo(json.dumps(asdict(report) | {"ratios": Ratios.of(report).as_json()}) if as_json else table(report))
    return 0


if __name__ == "__main__":
    command()
