"""What group attention costs in time and memory: by depth for several group sizes, and as ratios that this project promises.

Both sides of a ratio take turns in one run, and of each piece of work the least time counts: a noisy machine only ever makes
things slower. Knows the model and, through the native boundary, llama_decode itself, since Llama.eval copies logits after each
token. It prints nothing.

A new promise is a function from a Bench to rows, and a line in PROMISES.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

from llama_cpp import Llama

from selfextend_local import native
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.engine.plan import GpuLayers
from selfextend_local.errors import ModelError
from selfextend_local.positions import MICRO_BATCH, GroupAttention

CHUNK = 2048
"""Tokens of one call of llama_decode during a prefill, and the distance of the depths that are recorded."""

Say = Callable[[str], None]
Model = TypeVar("Model", bound=Llama)

_DECODED = 32
_STEPS = 8
_TURNS = 4


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

    @property
    def depths(self) -> list[int]:
        """Where speeds are recorded."""
        return [min(at + CHUNK, self.n_tokens) for at in range(0, self.n_tokens, CHUNK)]

    def sizes_in_turn(self, turn: int) -> tuple[int, ...]:
        """The group sizes, in the other order every second time."""
        return self.group_sizes if turn % 2 == 0 else self.group_sizes[::-1]

    def group(self, n: int) -> GroupAttention:
        return GroupAttention(n, self.window, self.step, self.progressive)


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


@dataclass(frozen=True)
class Bench:
    """Which model is measured, where, and on what text. `plain_library`: the folder of a stock libllama to compare with; None =
    this library with n=1."""

    model: Path
    tokens: int
    kv_type: str = "f16"
    gpu_layers: GpuLayers = 0
    threads: int | None = None
    plain_library: Path | None = None

    def open(self, n_ctx: int, kv_type: str | None = None, n_batch: int = MICRO_BATCH) -> SelfExtendLlama:
        return SelfExtendLlama(
            self.model, n_ctx=n_ctx, kv_type=kv_type or self.kv_type, n_gpu_layers=self.gpu_layers, n_threads=self.threads, n_batch=n_batch
        )

    def open_plain(self, llm: SelfExtendLlama, flash_attn: bool | None = None) -> Llama:
        """The same context as `llm`'s with llama_cpp.Llama; None = with flash attention if `llm` has it."""
        p = llm.context_params
        same = {name: getattr(p, name) for name in ("n_ctx", "n_batch", "n_ubatch", "type_k", "type_v", "n_threads")}
        layers = llm.model_params.n_gpu_layers
        flash_attn = llm.plan.flash_attn if flash_attn is None else flash_attn
        return Llama(str(self.model), flash_attn=flash_attn, n_gpu_layers=layers, verbose=False, **same)


class Loop(Generic[Model]):
    """Decodes tokens and waits for the device, without copying logits."""

    def __init__(self, llm: Model) -> None:
        self.llm = llm
        self._api: Any = native.bindings()
        self._memory: Any = self._api.llama_get_memory(llm.ctx)

    def rewind(self, position: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, 0, position, -1)

    def seconds(self, tokens: Sequence[int], batch: int | None = None) -> float:
        """The time to decode these tokens behind those in the cache, `batch` in one call, by default as many as the context takes.
        The device is waited for at the end only. Raises ModelError."""
        batch = min(batch or self.llm.n_batch, self.llm.n_batch)
        parts = [tokens[at : at + batch] for at in range(0, len(tokens), batch)]
        arrays = [(self._api.llama_token * len(part))(*part) for part in parts]
        started = time.perf_counter()
        codes = [self._api.llama_decode(self.llm.ctx, self._api.llama_batch_get_one(array, len(array))) for array in arrays]
        self._api.llama_synchronize(self.llm.ctx)
        if any(codes):
            raise ModelError(f"llama_decode returned {max(codes)}. Try a smaller --tokens.")
        return time.perf_counter() - started


class Eval:
    """A model as its user drives it: Llama.eval."""

    def __init__(self, llm: Llama) -> None:
        self.llm = llm

    def rewind(self, position: int) -> None:
        self.llm.n_tokens = position

    def seconds(self, tokens: Sequence[int]) -> float:
        started = time.perf_counter()
        self.llm.eval(tokens)
        return time.perf_counter() - started


def measure(bench: Bench, work: Workload, say: Say) -> Report:
    """Speeds by depth, boundary steps, start and memory. Raises what opening the model raises, and ModelError."""
    opens = partial(bench.open, work.n_tokens + MICRO_BATCH, n_batch=CHUNK)
    started = time.perf_counter()
    with closing(opens()) as llm:
        cold = time.perf_counter() - started
        warm, plain_start = _starts(opens, partial(bench.open_plain, llm))
        loop = Loop(llm)
        tokens = list(random_tokens(llm.n_vocab(), work.n_tokens + _DECODED + 2))
        chunks, plain_peak = _prefills(loop, tokens, work, say)
        decodes = _decodes(loop, tokens, work, say)
        total = {n: sum(chunks[n]) for n in work.group_sizes}
        more_ms = {n: 1000 * (total[n] - total[work.group_sizes[0]]) / work.n_steps for n in work.group_sizes}
        return Report(
            model=llm.info.name,
            kv_type=llm.plan.kv_type,
            n_ctx=llm.n_ctx(),
            devices=tuple(native.probe().devices),
            workload=work,
            start_s=(cold, warm),
            plain_start_s=plain_start,
            memory_mib=(plain_peak, peak_mib()),
            depths=tuple(_by_depth(work, chunks, decodes)),
            steps=tuple(Step(n, _step_ms(loop, tokens, work, n), more_ms[n]) for n in work.group_sizes if n > 1),
        )


def _starts(*opens: Callable[[], Any]) -> tuple[float, ...]:
    """Seconds to open what is in the page cache by now: the least of three each, in turns."""
    took: list[list[float]] = [[] for _ in opens]
    for _ in range(3):
        for one, times in zip(opens, took, strict=True):
            started = time.perf_counter()
            opened = one()
            times.append(time.perf_counter() - started)
            opened.close()
    return tuple(map(min, took))


def random_tokens(n_vocab: int, count: int) -> Iterator[int]:
    """Speed depends on no token's value; a fixed generator makes two runs do the same."""
    state = 1
    for _ in range(count):
        state = state * 6364136223846793005 % (1 << 64) + 1442695040888963407
        yield 3 + (state >> 33) % (n_vocab - 3)


def peak_mib() -> float:
    """The most memory that this process has taken so far, in MiB."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / (1 << 20)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def _prefills(loop: Loop[SelfExtendLlama], tokens: list[int], work: Workload, say: Say) -> tuple[dict[int, list[float]], float]:
    """Group size -> seconds of each chunk, the least of all passes; and the peak memory after the first, plain pass."""
    best: dict[int, list[float]] = {}
    plain_peak = 0.0
    loop.llm.pin_group_attention(work.group(1))
    loop.seconds(tokens[:CHUNK])  # the first graphs of a context are slower
    for turn in range(work.passes):
        for n in work.sizes_in_turn(turn):
            loop.rewind(0)
            loop.llm.pin_group_attention(work.group(n))
            took = [loop.seconds(tokens[at : min(at + CHUNK, work.n_tokens)]) for at in range(0, work.n_tokens, CHUNK)]
            best[n] = [min(pair) for pair in zip(took, best.get(n, took), strict=True)]
            plain_peak = plain_peak or peak_mib()
            say(f"prefill of {work.n_tokens:,} tokens, n={n}: {sum(took):.2f} s")
    return best, plain_peak


def _decodes(loop: Loop[SelfExtendLlama], tokens: list[int], work: Workload, say: Say) -> dict[tuple[int, int], float]:
    """(group size, depth) -> median seconds of a decoded token, deepest first since going back needs no prefill."""
    took: dict[tuple[int, int], list[float]] = {}
    for depth in reversed(work.depths):
        for turn in range(2 * work.passes):
            for n in work.sizes_in_turn(turn):
                loop.rewind(depth)
                loop.llm.pin_group_attention(work.group(n))
                loop.seconds(tokens[depth : depth + 1])  # moves the keys to this grouping
                times = [loop.seconds([token]) for token in tokens[depth + 1 : depth + _DECODED]]
                took.setdefault((n, depth), []).extend(times)
        say(f"decode at {depth:,}: " + ", ".join(f"n={n} {1 / median(took[n, depth]):,.1f}" for n in work.group_sizes) + " tokens/s")
        loop.rewind(depth)
    return {key: median(times) for key, times in took.items()}


def _step_ms(loop: Loop[SelfExtendLlama], tokens: list[int], work: Workload, n: int) -> float:
    """One boundary step in a decode: tokens that cross the boundary less tokens that don't, the median of each."""
    loop.rewind(0)
    loop.llm.pin_group_attention(work.group(n))
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
        for depth, seconds in zip(work.depths, chunks[n], strict=True):
            so_far += seconds
            yield Depth(n, depth, (depth - start) / seconds, depth / so_far, 1 / decodes[n, depth])
            start = depth


@dataclass(frozen=True)
class Row:
    """One promise: a ratio, or a difference in nats, and its limit."""

    what: str
    value: float
    limit: float
    at_least: bool
    detail: str

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def boundary_steps(bench: Bench) -> Iterator[Row]:
    """A step takes the time of the keys that move, whatever the size of the context."""
    work = Workload(1100, (1, 4), 512, 512, 1)
    for kv_type in ("f16", "q8_0"):
        small, large = loops = [Loop(bench.open(n_ctx, kv_type)) for n_ctx in (4096, 32_768)]
        tokens = list(random_tokens(small.llm.n_vocab(), work.n_tokens))
        crossing: dict[Loop[SelfExtendLlama], list[float]] = {loop: [] for loop in loops}
        other: dict[Loop[SelfExtendLlama], list[float]] = {loop: [] for loop in loops}
        for loop in loops:
            loop.llm.pin_group_attention(work.group(4))
            loop.seconds(tokens[:1030])
        for _ in range(15):
            for loop in loops:
                for position, times in ((1023, crossing), (1024, crossing), (1025, other), (1025, other)):
                    loop.rewind(position)  # the boundary moves from 512 to 0, and back
                    times[loop].append(loop.seconds([tokens[position]]))
        ms = {loop: 1000 * (min(crossing[loop]) - min(other[loop])) for loop in loops}
        for loop in loops:
            loop.llm.close()
        detail = f"{ms[large]:.1f} ms against {ms[small]:.1f} ms"
        yield Row(f"boundary step, n_ctx 32,768 against 4,096, {kv_type}", ms[large] / ms[small], 1.5, False, detail)


def memory(bench: Bench) -> Iterator[Row]:
    """Each in a process of its own, after 3,072 tokens in a context of 16,384."""
    plain = float(_elsewhere(bench, "llama_cpp.Llama", _MEMORY))
    grouped = float(_elsewhere(bench, "ours", _MEMORY))
    detail = f"{grouped:,.0f} against {plain:,.0f} MiB"
    yield Row(f"peak memory, n=4 against {_theirs(bench)}", grouped / plain, 1.05, False, detail)


def likelihood(bench: Bench) -> Iterator[Row]:
    from selfextend_local.evaluation.model_reader import ModelReader
    from selfextend_local.sample.report import log_text

    text = log_text(20)
    nll = {}
    for kv_type in ("f16", "q8_0"):
        with closing(bench.open(4096, kv_type)) as llm:
            llm.pin_group_attention(GroupAttention(4, 512, 512))
            nll[kv_type] = float(ModelReader(llm).nll(llm.tokenize(text.encode(), add_bos=False)[:2048]).mean())
    apart = round(abs(nll["q8_0"] - nll["f16"]), 5)
    yield Row("NLL with q8_0 less f16 KV cache, n=4, w=512", apart, 0.005, False, f"{nll['q8_0']:.4f} and {nll['f16']:.4f} nats")


def plain_and_grouped(bench: Bench) -> Iterator[Row]:
    """Two contexts side by side take turns at every micro-batch and at every decoded token: a burst of other work hits both."""
    work = Workload(bench.tokens, (1, 4), 512, 512, 3)
    loops = {n: Loop(bench.open(bench.tokens + 512)) for n in work.group_sizes}
    tokens = list(random_tokens(loops[1].llm.n_vocab(), bench.tokens + 256))
    for n, loop in loops.items():
        loop.llm.pin_group_attention(work.group(n))
    prefill, decode = _in_turns({str(n): loop for n, loop in loops.items()}, tokens, bench.tokens, work.passes)
    at = f"at {bench.tokens:,} tokens, n=4"
    seconds = f"{prefill['4']:.1f} s against {prefill['1']:.1f} s"
    yield Row(f"prefill time of {bench.tokens:,} tokens, n=4, w=512 against n=1", prefill["4"] / prefill["1"], 1.05, False, seconds)
    speeds = f"{1 / decode['4']:.1f} against {1 / decode['1']:.1f} tokens/s"
    yield Row(f"decode speed {at} against n=1", decode["1"] / decode["4"], 0.97, True, speeds)


def decode_by_flash_attention(bench: Bench) -> Iterator[Row]:
    """A token decoded at depth with group attention through our kernel, against the plain model without flash attention, and plain
    through ours against ggml's kernel: of a stock library where there is one, else of this one."""
    loops = {kv_type: Loop(bench.open(bench.tokens + 512, kv_type)) for kv_type in ("f16", "q8_0")}
    for loop in loops.values():
        loop.llm.pin_group_attention(GroupAttention(4, 512, 512))
    same = bench.open_plain(loops["f16"].llm, flash_attn=False)
    threads = same.n_threads
    tokens = list(random_tokens(same.n_vocab(), bench.tokens + 64))
    _, took = _in_turns({**loops, "none": Loop(same)}, tokens, bench.tokens, 1)
    for kv_type in loops:
        detail = f"{1000 * took[kv_type]:.1f} against {1000 * took['none']:.1f} ms"
        name = f"decode time at {bench.tokens:,} tokens, {kv_type} cache, n=4, against n=1, f16, without flash attention"
        yield Row(name, took[kv_type] / took["none"], 0.95, False, detail)
    for kv_type in loops:
        ours, theirs = _least_in_turns(bench, ("ours", "ggml's"), _DECODE.format(kv_type=kv_type, threads=threads))
        detail = f"{1000 * ours:.1f} against {1000 * theirs:.1f} ms"
        yield Row(f"decode time at {bench.tokens:,} tokens, {kv_type} cache, against ggml's kernel", ours / theirs, 0.8, False, detail)


def against_defaults(bench: Bench) -> Iterator[Row]:
    """What a user gets here and from llama_cpp.Llama, each with its own defaults. Two libraries can't share a process: then
    processes take turns, and the best of two rounds counts."""
    if bench.plain_library is None:
        loops = {"ours": Eval(bench.open(bench.tokens + 512)), "theirs": Eval(_defaults(bench))}
        tokens = list(random_tokens(loops["ours"].llm.n_vocab(), bench.tokens + 256))
        took = _in_turns(loops, tokens, bench.tokens, 1)
    else:
        rounds = [{who: _elsewhere(bench, who, _SPEEDS).split() for who in ("ours", "llama_cpp.Llama")} for _ in range(2)]
        best = {who: [min(float(r[who][i]) for r in rounds) for i in (0, 1)] for who in rounds[0]}
        prefill, decode = ({"ours": best["ours"][i], "theirs": best["llama_cpp.Llama"][i]} for i in (0, 1))
        took = prefill, decode
    for what, limit, times, count in (("prefill", 1.5, took[0], bench.tokens), ("decode", 1.0, took[1], 1)):
        detail = f"{count / times['ours']:.1f} against {count / times['theirs']:.1f} tokens/s"
        name = f"{what} speed at {bench.tokens:,} tokens against {_theirs(bench)}, both with their defaults"
        yield Row(name, times["theirs"] / times["ours"], limit, True, detail)


PROMISES: tuple[Callable[[Bench], Iterable[Row]], ...] = (
    boundary_steps, memory, likelihood, plain_and_grouped, decode_by_flash_attention, against_defaults,
)  # fmt: skip
"""What `make bench` measures. Each yields rows as it knows them."""


def _theirs(bench: Bench) -> str:
    return "llama_cpp.Llama on the stock library" if bench.plain_library else "llama_cpp.Llama"


def _defaults(bench: Bench) -> Llama:
    return Llama(str(bench.model), n_ctx=bench.tokens + 512, verbose=False)


def _in_turns(
    loops: Mapping[str, Loop[Any] | Eval], tokens: Sequence[int], count: int, passes: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the prefill of `count` tokens, the least of all passes for each micro-batch, and of a decoded token, the median.
    Closes the models."""
    for loop in loops.values():
        loop.seconds(tokens[:64])  # the first graph of a context is slower
    prefill: dict[tuple[str, int], float] = {}
    decode: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(passes):
        for loop in loops.values():
            loop.rewind(0)
        for at in range(0, count, MICRO_BATCH):
            for name in sorted(loops, reverse=(turn + at // MICRO_BATCH) % 2 == 1):
                took = loops[name].seconds(tokens[at : min(at + MICRO_BATCH, count)])
                prefill[name, at] = min(took, prefill.get((name, at), took))
    for turn, token in enumerate(tokens[count:]):
        for name in sorted(loops, reverse=turn % 2 == 1):
            decode[name].append(loops[name].seconds([token]))
    for loop in loops.values():
        loop.llm.close()
    read = {name: sum(seconds for (whose, _), seconds in prefill.items() if whose == name) for name in loops}
    return read, {name: median(times) for name, times in decode.items()}


_MEMORY = """
llm = bench.open(16384) if ours else speed.Llama(str(bench.model), n_ctx=16384, n_batch=512, n_ubatch=128, verbose=False)
if ours:
    llm.pin_group_attention(speed.GroupAttention(4, 512, 512))
llm.eval(list(speed.random_tokens(llm.n_vocab(), 3072)))
print(speed.peak_mib())
"""

_SPEEDS = """
loop = speed.Eval(bench.open(bench.tokens + 512) if ours else speed._defaults(bench))
tokens = list(speed.random_tokens(loop.llm.n_vocab(), bench.tokens + 32))
print(*(times[""] for times in speed._in_turns({"": loop}, tokens, bench.tokens, 1)))
"""


_DECODE = """
import sys
from llama_cpp import GGML_TYPE_F16, GGML_TYPE_Q8_0
kind = GGML_TYPE_Q8_0 if "{kv_type}" == "q8_0" else GGML_TYPE_F16
llm = speed.Llama(str(bench.model), n_ctx=bench.tokens + 512, n_batch=512, n_ubatch=512, flash_attn=True, type_k=kind, type_v=kind,
                  n_threads={threads}, verbose=False)
tokens = list(speed.random_tokens(llm.n_vocab(), bench.tokens + 64))
loop = speed.Loop(llm)
loop.seconds(tokens[: bench.tokens])
print("ready", flush=True)
for _ in sys.stdin:
    loop.rewind(bench.tokens)
    print(speed.median(loop.seconds([token]) for token in tokens[bench.tokens :]), flush=True)
"""


def _least_in_turns(bench: Bench, whose: Sequence[str], program: str) -> list[float]:
    """The least of what each one's process prints, which prints once it is ready and once for each line that it is sent."""
    with ExitStack() as stack:
        children: list[subprocess.Popen[str]] = []
        for who in whose:
            command, env = _command(bench, who, program)
            child = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            children.append(stack.enter_context(child))
            _said(children[-1])
        took: list[list[float]] = [[] for _ in children]
        pairs = list(zip(children, took, strict=True))
        for turn in range(_TURNS):
            for child, times in pairs[:: -1 if turn % 2 else 1]:
                assert child.stdin
                print(file=child.stdin, flush=True)
                times.append(float(_said(child)))
    return [min(times) for times in took]


def _said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    if line := child.stdout.readline():
        return line
    raise subprocess.CalledProcessError(child.wait(), child.args)


def _elsewhere(bench: Bench, who: str, program: str) -> str:
    """What a program prints in a process of its own."""
    command, env = _command(bench, who, program)
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def _command(bench: Bench, who: str, program: str) -> tuple[list[str], dict[str, str]]:
    """A program in a process of its own, and its environment: with the stock library unless it is ours, or with ggml's kernels."""
    ours = who == "ours"
    names = f"from pathlib import *\nfrom selfextend_local.evaluation import speed\nBench = speed.Bench\nbench, ours = {bench!r}, {ours}\n"
    env = os.environ | ({"LLAMA_CPP_LIB_PATH": str(bench.plain_library)} if bench.plain_library and not ours else {})
    env |= {"GGML_CPU_OWN_KERNELS": "0"} if who == "ggml's" else {}
    return [sys.executable, "-c", names + program], env
