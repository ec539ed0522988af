"""What a long prompt takes on a CPU: this package against llama-cpp-python's own defaults on a library without patches.

    python patches/tool.py prepare --upto 0 /tmp/stock      # and build it, see docs/benchmarks.md
    python docs/benchmarks/prefill.py --stock /tmp/stock-build/bin [--tokens 4096 --tokens 8192] [--rounds 3] [--model F]

Each measurement is a process of its own. They take turns, and of each the best round counts: the machine is noisy, and only ever makes
things slower.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import click

from selfextend_local.engine.default_model import model_or_default

DECODED = 32
WAYS = ("defaults", "patched, defaults", "ours", "ours, q8_0 cache", "ours, n=8")


@click.command()
@click.option("--stock", type=click.Path(exists=True, file_okay=False), required=True, help="Folder of the library without patches.")
@click.option("--tokens", type=int, multiple=True, default=[4096, 8192], show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--model", type=click.Path(exists=True, dir_okay=False))
def main(stock: str, tokens: tuple[int, ...], rounds: int, model: str | None) -> None:
    print("| tokens | way | prefill, tokens/s | times | decode there, tokens/s | times |\n|---|---|---|---|---|---|")
    for n_tokens in tokens:
        best: dict[str, list[float]] = {way: [0.0, 0.0] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                speeds = _measured(way, n_tokens, stock, str(model or model_or_default()))
                best[way] = [max(pair) for pair in zip(best[way], speeds, strict=True)]
        first = best["defaults"]
        for way, (prefill, decode) in best.items():
            columns = f"{prefill:.0f} | {prefill / first[0]:.2f} | {decode:.1f} | {decode / first[1]:.2f}"
            print(f"| {n_tokens:,} | {way} | {columns} |", flush=True)


def _measured(way: str, n_tokens: int, stock: str, model: str) -> list[float]:
    environment = os.environ | ({"LLAMA_CPP_LIB_PATH": stock} if way == "defaults" else {})
    command = [sys.executable, __file__, way, str(n_tokens), model]
    return list(json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout))


def _measure(way: str, n_tokens: int, model: str) -> list[float]:
    from llama_cpp import Llama

    from selfextend_local import SelfExtendLlama

    text = random.Random(0).choices(range(100, 40_000), k=n_tokens + DECODED)
    if "defaults" in way:
        llm = Llama(model, n_ctx=n_tokens + DECODED, verbose=False)
    else:
        llm = SelfExtendLlama(
            Path(model), need_tokens=n_tokens + DECODED, kv_type="q8_0" if "q8_0" in way else "f16", ga_n=8 if "n=8" in way else "auto"
        )
    started = time.perf_counter()
    if isinstance(llm, SelfExtendLlama):
        llm.prefill(text[:n_tokens])
    else:
        llm.eval(text[:n_tokens])
    between = time.perf_counter()
    for token in text[n_tokens:]:
        llm.eval([token])
    return [n_tokens / (between - started), DECODED / (time.perf_counter() - between)]


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in WAYS:
        print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
    else:
        main()
