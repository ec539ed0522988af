"""Decode speed of several sequences together against one, each with a KV cache of its own, and whether the logits are the same.

    python docs/benchmarks/together.py [--model FILE] [--gpu-layers N] [--depth TOKENS] [--steps N] [--counts 1,2,4,8]

The numbers of sequences take turns; of each the best of three rounds counts. Logits are held against those of one sequence.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np

from selfextend_local import SelfExtendLlama, native
from selfextend_local.engine.default_model import model_or_default


def decode(llm: SelfExtendLlama, count: int, depth: int, steps: int) -> tuple[float, float, np.ndarray]:
    """Tokens per second of prefill and of decode, and the last logits of sequence 0."""
    sequences = native.Sequences(llm._model.model, llm.context_params, count, depth + steps)
    tokens = [random.Random(i).choices(range(100, 30_000), k=depth + steps) for i in range(count)]
    started = time.perf_counter()
    for i, text in enumerate(tokens):
        for place in range(0, depth, llm.n_batch):
            sequences.read(i, text[place : min(depth, place + llm.n_batch)], place)
    logits = native.bindings().llama_get_logits_ith
    logits(sequences.context, -1)  # waits for a GPU
    read = time.perf_counter()
    for place in range(depth, depth + steps):
        sequences.step([(i, text[place], place) for i, text in enumerate(tokens)])
        last = np.ctypeslib.as_array(logits(sequences.context, 0), (llm.n_vocab(),))
    written = time.perf_counter()
    last = last.copy()
    sequences.close()
    return count * depth / (read - started), count * steps / (written - read), last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--counts", default="1,2,4,8")
    arguments = parser.parse_args()
    llm = SelfExtendLlama(arguments.model or model_or_default(), ga_n=1, n_ctx=512, n_gpu_layers=arguments.gpu_layers)
    counts = [int(n) for n in arguments.counts.split(",")]
    rounds = [{n: decode(llm, n, arguments.depth, arguments.steps) for n in counts} for _ in range(3)]
    alone = rounds[0][counts[0]][2]
    base = max(r[counts[0]][1] for r in rounds)
    for n in counts:
        prefill, rate = (max(r[n][i] for r in rounds) for i in (0, 1))
        apart = float(np.abs(rounds[0][n][2] - alone).max())
        print(f"{n:3} sequences: prefill {prefill:8.1f}, decode {rate:7.1f} tokens/s ({rate / base:.2f}); logits differ by {apart:.2g}")


if __name__ == "__main__":
    main()
