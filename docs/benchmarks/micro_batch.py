"""Milliseconds a token by depth, for several micro-batches, with and without flash attention; contexts take turns at every 1,024 tokens.

    python docs/benchmarks/micro_batch.py TOKENS WAY...        a way: 512, 512f with flash attention, 512q also with a q8_0 cache

The last row is decoding there. LLAMA_CPP_LIB_PATH picks another build, such as one without patches.
"""

from __future__ import annotations

import random
import sys
import time
from statistics import median

from llama_cpp import GGML_TYPE_Q8_0, Llama
from psutil import cpu_count

from selfextend_local.engine.default_model import model_or_default

CHUNK, DECODED = 1024, 32


def main() -> None:
    n_tokens, ways = int(sys.argv[1]), sys.argv[2:]
    text = random.Random(0).choices(range(100, 40_000), k=n_tokens + DECODED)
    llms = [opened(way, n_tokens + DECODED) for way in ways]
    print("| depth | " + " | ".join(ways) + " |\n" + "|---" * (len(ways) + 1) + "|")
    for at in range(0, n_tokens, CHUNK):
        took = [timed(llm, text[at : min(at + CHUNK, n_tokens)]) for llm in llms]
        print(f"| {at + CHUNK:,} | " + " | ".join(f"{1000 * t:.2f}" for t in took) + " |", flush=True)
    decoded = [[timed(llm, [token]) for llm in llms] for token in text[n_tokens:]]
    print("| decode | " + " | ".join(f"{1000 * median(t):.1f}" for t in zip(*decoded, strict=True)) + " |")


def opened(way: str, n_ctx: int) -> Llama:
    size, threads = int(way.rstrip("fq")), cpu_count(logical=False)
    cache = {"type_k": GGML_TYPE_Q8_0, "type_v": GGML_TYPE_Q8_0} if way.endswith("q") else {}
    return Llama(
        str(model_or_default()), n_ctx=n_ctx, n_batch=512, n_ubatch=size, n_threads=threads, n_threads_batch=threads,
        flash_attn=way[-1] in "fq", verbose=False, **cache,
    )  # fmt: skip


def timed(llm: Llama, tokens: list[int]) -> float:
    """Seconds a token."""
    started = time.perf_counter()
    llm.eval(tokens)
    return (time.perf_counter() - started) / len(tokens)


if __name__ == "__main__":
    main()
