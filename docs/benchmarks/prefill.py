"""Prefill speed of `llama_cpp.Llama` with one choice of micro-batch and flash attention; one process a choice, so that they can take turns.

    python docs/benchmarks/prefill.py TOKENS MICRO_BATCH [flash]        (LLAMA_CPP_LIB_PATH picks another build)
"""

from __future__ import annotations

import random
import sys
import time

from llama_cpp import Llama
from psutil import cpu_count

from selfextend_local.default_model import model_or_default


def main() -> None:
    n_tokens, micro_batch, flash = int(sys.argv[1]), int(sys.argv[2]), "flash" in sys.argv[3:]
    threads = cpu_count(logical=False)
    llm = Llama(
        str(model_or_default()),
        n_ctx=n_tokens + 64,
        n_batch=512,
        n_ubatch=micro_batch,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=flash,
        verbose=False,
    )
    tokens = random.Random(0).choices(range(100, 40_000), k=n_tokens)
    started = time.perf_counter()
    llm.eval(tokens)
    print(f"{n_tokens:,} tokens, micro-batch {micro_batch}, flash {flash}: {n_tokens / (time.perf_counter() - started):.1f} tokens/s")


if __name__ == "__main__":
    main()
