"""A whole book read by the product: seconds, milliseconds a token by depth, and those of a decoded token at the end and at 4,096.

By depth: the median of the micro-batches up to SPAN tokens before and behind it, so that a moment of other work doesn't count.

    python docs/benchmarks/novel.py BOOK.pdf [--model MODEL.gguf] [--threads N]

Prints one JSON object.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import click

from selfextend_local import SelfExtendLlama, Workspace
from selfextend_local.chat.settings import ChatSettings
from selfextend_local.engine.plan import Settings
from selfextend_local.generation.sampling import Sampling

DEPTHS = (4096, 8192, 16_384, 32_768, 65_536, 131_072)
SPAN = 2048
DECODED = 32


def decode_ms(llm: SelfExtendLlama) -> float:
    token = llm.token_nl()
    llm.eval([token])
    begin = time.perf_counter()
    for _ in range(DECODED):
        llm.eval([token])
    return 1e3 * (time.perf_counter() - begin) / DECODED


@click.command()
@click.argument("book")
@click.option("--model", type=Path)
@click.option("--threads", type=int)
def main(book: str, model: Path | None, threads: int | None) -> None:
    marks: list[tuple[int, float]] = []

    def told(done: int, total: int) -> None:
        marks.append((done, time.perf_counter()))
        click.echo(f"{done} of {total}: {marks[-1][1] - marks[0][1]:.1f} s", err=True)

    engine = Settings(threads=threads)
    settings = ChatSettings(model=model, engine=engine, sampling=Sampling(max_tokens=DECODED, temperature=0.0), cache=False)
    begin = time.perf_counter()
    with Workspace([book], settings) as workspace:
        opened = time.perf_counter() - begin
        answer = "".join(workspace.stream("Who is Mr. Darcy?", progress=told))
        llm = workspace.llm
        ms = {}
        for depth in DEPTHS:
            if depth <= marks[-1][0]:
                steps = [(a, b) for a, b in pairwise(marks) if depth - SPAN <= a[0] and b[0] <= depth + SPAN]
                ms[depth] = 1e3 * median((b[1] - a[1]) / (b[0] - a[0]) for a, b in steps)
        n_tokens, ga = int(llm.n_tokens), llm.group_attention
        decode = {n_tokens: decode_ms(llm)}
        llm.pin_group_attention(ga)
        llm.prefill(list(llm.cached_tokens()[: DEPTHS[0]]))
        decode[DEPTHS[0]] = decode_ms(llm)
        row = {"tokens": n_tokens, "form": ga.label, "threads": llm.n_threads, "open_s": opened, "read_s": marks[-1][1] - marks[0][1]}
        print(json.dumps(row | {"prefill_ms": ms, "decode_ms": decode, "answer": answer}))


if __name__ == "__main__":
    main()
