"""Milliseconds a token beside whatever else runs, read plainly and by recall, for the settings of OpenMP that the environment has:

    GOMP_SPINCOUNT=1000 python docs/benchmarks/beside_work.py NOVEL.txt

Each process reads its variables once, so each setting is a run of its own; take turns. The window is set to 4,096 tokens, so that recall
begins there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from selfextend_local import SelfExtendLlama
from selfextend_local.engine.default_model import model_or_default

PLAIN, RECALLED = 1024, 5120  # tokens read before each decode
DECODED = 40


def read(llm: SelfExtendLlama, tokens: Sequence[int]) -> float:
    began, held = time.perf_counter(), llm.n_tokens
    llm.prefill(list(tokens))
    return 1000 * (time.perf_counter() - began) / (llm.n_tokens - held)


def decode(llm: SelfExtendLlama, tokens: Sequence[int]) -> float:
    began = time.perf_counter()
    for token in tokens[llm.n_tokens : llm.n_tokens + DECODED]:
        llm.eval([token])
    return 1000 * (time.perf_counter() - began) / DECODED


def main() -> None:
    llm = SelfExtendLlama(str(model_or_default()), ga_mode="recall", n_ctx=8192, kv_overrides={"llama.context_length": 4096})
    tokens = llm.tokenize(Path(sys.argv[1]).read_bytes()[:60_000])
    plain = read(llm, tokens[:PLAIN]), decode(llm, tokens)
    recalled = read(llm, tokens[:RECALLED]), decode(llm, tokens)
    print("plain: prefill {:.2f}, decode {:.1f}; recall: prefill {:.2f}, decode {:.1f} ms a token".format(*plain, *recalled))


if __name__ == "__main__":
    main()
