"""`make bench`: what group attention costs, as ratios measured in one run against the same library without it.

Both sides of a ratio take turns, so that a noisy machine disturbs them alike. The rows and their limits are those that
the project promises; a row that misses its limit is marked and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from .errors import boundary
from .terminal import console

if TYPE_CHECKING:
    from llama_cpp import Llama

    from selfextend_local.engine.llama import SelfExtendLlama


@dataclass(frozen=True)
class Row:
    what: str
    value: float
    limit: float
    at_least: bool
    detail: str

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="GGUF model. Default: the embedded one.")
@click.option("--prefill-tokens", default=8192, show_default=True)
@click.option(
    "--plain-library",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a stock libllama to compare memory with. Default: this library with n=1.",
)
@click.option("--json", "as_json", is_flag=True)
@boundary
def command(model: Path | None, prefill_tokens: int, plain_library: Path | None, as_json: bool) -> int:
    """Measure decode, prefill, boundary steps, memory and NLL under group attention, as ratios."""
    from selfextend_local.engine.default_model import model_or_default

    path = model_or_default(model)
    rows: list[Row] = []
    measures: list[Callable[[Path], list[Row]]] = [
        _boundary_steps,
        lambda p: _memory(p, plain_library),
        _nll,
        lambda p: _prefill_and_decode(p, prefill_tokens),
        lambda p: _against_defaults(p, prefill_tokens),
    ]
    for measure in measures:
        found = measure(path)
        rows += found
        for row in found:
            console.say(f"{row.what}: {row.value:.4g} ({row.detail})")
    if as_json:
        click.echo(json.dumps([row.__dict__ | {"holds": row.holds} for row in rows]))
    else:
        click.echo(_table(rows))
    return 0 if all(row.holds for row in rows) else 1


def _table(rows: list[Row]) -> str:
    lines = ["| what | measured | limit | |", "|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        lines.append(f"| {row.what} | {row.value:.4g} ({row.detail}) | {sign} {row.limit} | {'ok' if row.holds else 'MISSED'} |")
    return "\n".join(lines)


def _open(path: Path, n_ctx: int, kv_type: str = "f16", **kwargs: Any) -> SelfExtendLlama:
    from selfextend_local.engine.llama import SelfExtendLlama

    return SelfExtendLlama(path, n_ctx=n_ctx, kv_type=kv_type, **kwargs)


def _pin(llm: SelfExtendLlama, n: int, w: int = 512, r: int = 512) -> None:
    from selfextend_local.positions import GroupAttention

    llm.pin_group_attention(GroupAttention(n, w, r))


def _forget(llm: Llama) -> None:
    llm.reset()  # type: ignore[no-untyped-call]


def _tokens(llm: Llama, count: int) -> list[int]:
    from selfextend_local.sample.logbook import month_entries

    text = "\n".join(f"{entry.date}. {entry.text}" for month in range(12) for entry in month_entries(month, 20))
    tokens = list(llm.tokenize(text.encode(), add_bos=False))
    return (tokens * (count // len(tokens) + 1))[:count]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _boundary_steps(path: Path) -> list[Row]:
    rows = []
    for kv_type in ("f16", "q8_0"):
        steps = {n_ctx: _Steps(_open(path, n_ctx, kv_type)) for n_ctx in (4096, 32_768)}
        for _ in range(15):
            for one in steps.values():
                one.measure()
        small, large = (steps[n_ctx].milliseconds for n_ctx in (4096, 32_768))
        for one in steps.values():
            one.llm.close()
        what = f"boundary step, n_ctx 32,768 against 4,096, {kv_type}"
        rows.append(Row(what, large / small, 1.5, False, f"{large:.1f} ms against {small:.1f} ms"))
    return rows


class _Steps:
    """Boundary steps with n=4, w=r=512: decodes that cross the boundary less those that don't, the least of each."""

    def __init__(self, llm: SelfExtendLlama) -> None:
        self.llm = llm
        self._tokens = _tokens(llm, 1100)
        self._crossing: list[float] = []
        self._other: list[float] = []
        _pin(llm, 4)
        llm.eval(self._tokens[:1030])

    def measure(self) -> None:
        self._crossing.append(self._decode_at(1023))  # boundary 512 -> 0
        self._crossing.append(self._decode_at(1024))  # boundary 0 -> 512
        self._other += [self._decode_at(1025), self._decode_at(1025)]

    def _decode_at(self, position: int) -> float:
        self.llm.n_tokens = position
        return _timed(lambda: self.llm.eval([self._tokens[position]]))

    @property
    def milliseconds(self) -> float:
        return 1000 * (min(self._crossing) - min(self._other))


def _memory(path: Path, plain_library: Path | None) -> list[Row]:
    plain = _peak_mib(_PLAIN_PROGRAM, path, plain_library)
    grouped = _peak_mib(_GROUPED_PROGRAM, path, None)
    against = "the stock library" if plain_library else "llama_cpp.Llama"
    return [Row(f"peak memory, n=4 against {against}", grouped / plain, 1.05, False, f"{grouped:,.0f} against {plain:,.0f} MiB")]


_PLAIN_PROGRAM = """
from llama_cpp import Llama
llm = Llama(str(path), n_ctx=16384, n_batch=512, n_ubatch=128, verbose=False)
"""

_GROUPED_PROGRAM = """
llm = bench._open(path, 16384)
bench._pin(llm, 4)
"""


def _peak_mib(program: str, path: Path, library: Path | None) -> float:
    code = (
        f"from pathlib import Path\nfrom selfextend_cli import bench, speed\npath = Path({str(path)!r})\n"
        f"{program}llm.eval(bench._tokens(llm, 3072))\n"
        "print(speed.peak_mib())"
    )
    env = os.environ | ({"LLAMA_CPP_LIB_PATH": str(library)} if library else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout)


def _mean_nll(path: Path, kv_type: str, count: int) -> float:
    from selfextend_local.evaluation.model_reader import Reader

    llm = _open(path, 4096, kv_type)
    _pin(llm, 4)
    nll = float(Reader(llm).nll(_tokens(llm, count)).mean())
    llm.close()
    return nll


def _nll(path: Path) -> list[Row]:
    f16, q8_0 = _mean_nll(path, "f16", 2048), _mean_nll(path, "q8_0", 2048)
    return [Row("NLL with q8_0 less f16 KV cache, n=4, w=512", round(abs(q8_0 - f16), 5), 0.005, False, f"{q8_0:.4f} and {f16:.4f} nats")]


def _prefill_and_decode(path: Path, count: int) -> list[Row]:
    """Two contexts side by side, plain and grouped, take turns at every micro-batch and at every decoded token.

    A neighbour's burst of work hits single micro-batches: each is done in several passes, and its least time counts.
    """
    llms = {n: _open(path, count + 512) for n in (1, 4)}
    tokens = _tokens(llms[1], count + _DECODED)
    for n, llm in llms.items():
        _pin(llm, n)
        llm.eval(tokens[:64])  # the first graph of a context is slower
    starts = range(0, count, 512)
    prefill: dict[tuple[int, int], float] = {}
    for turn, start in enumerate([*starts] * _PASSES):
        if start == 0:
            for llm in llms.values():
                _forget(llm)
        for n in _in_turn(turn + turn // len(starts)):  # in another order in the next pass
            took = _timed(partial(llms[n].eval, tokens[start : min(start + 512, count)]))
            prefill[n, start] = min(took, prefill.get((n, start), took))
    decode: dict[int, list[float]] = {1: [], 4: []}
    for turn, at in enumerate(range(count, count + _DECODED)):
        for n in _in_turn(turn):
            decode[n].append(_timed(partial(llms[n].eval, [tokens[at]])))
    for llm in llms.values():
        llm.close()
    plain, grouped = (sum(prefill[n, start] for start in starts) for n in (1, 4))
    fast, slow = 1 / median(decode[1]), 1 / median(decode[4])
    return [
        Row(
            f"prefill time of {count:,} tokens, n=4, w=512 against n=1",
            grouped / plain,
            1.05,
            False,
            f"{grouped:.1f} s against {plain:.1f} s",
        ),
        Row(
            f"decode speed at {count:,} tokens, n=4 against n=1",
            slow / fast,
            0.97,
            True,
            f"{slow:.1f} against {fast:.1f} tokens/s",
        ),
    ]


def _against_defaults(path: Path, count: int) -> list[Row]:
    """What a user gets here and from llama_cpp.Llama, each with its own defaults; micro-batches and tokens take turns."""
    from llama_cpp import Llama

    llms = {"ours": _open(path, count + 512), "theirs": Llama(str(path), n_ctx=count + 512, verbose=False)}
    tokens = _tokens(llms["ours"], count + _DECODED)
    for llm in llms.values():
        llm.eval(tokens[:64])
        _forget(llm)
    prefill = dict.fromkeys(llms, 0.0)
    decode: dict[str, list[float]] = {name: [] for name in llms}
    for turn, start in enumerate(range(0, count, 512)):
        for name in sorted(llms, reverse=turn % 2 == 1):
            prefill[name] += _timed(partial(llms[name].eval, tokens[start : min(start + 512, count)]))
    for turn, token in enumerate(tokens[count:]):
        for name in sorted(llms, reverse=turn % 2 == 1):
            decode[name].append(_timed(partial(llms[name].eval, [token])))
    for llm in llms.values():
        llm.close()
    speeds = {name: (count / prefill[name], 1 / median(decode[name])) for name in llms}
    return [
        Row(
            f"{what} speed at {count:,} tokens against llama_cpp.Llama, both with their defaults",
            ours / theirs,
            limit,
            True,
            f"{ours:.1f} against {theirs:.1f} tokens/s",
        )
        for what, limit, ours, theirs in zip(("prefill", "decode"), (1.5, 1.0), speeds["ours"], speeds["theirs"], strict=True)
    ]


_PASSES = 3
_DECODED = 256


def _in_turn(turn: int) -> tuple[int, int]:
    return (1, 4) if turn % 2 == 0 else (4, 1)


if __name__ == "__main__":
    command()
