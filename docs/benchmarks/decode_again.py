"""Decoding under recall right after its text was read: run it with several libraries in turns.

    GOMP_SPINCOUNT=1000 LLAMA_CPP_LIB_PATH=DIR python docs/benchmarks/decode_again.py MODEL.gguf TEXT.txt [DEPTH]

Prints milliseconds a token of 64: mean, median, least, most.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from recall import Reader


def main() -> None:
    model, text, *rest = sys.argv[1:]
    depth = int(rest[0]) if rest else 4096
    reader = Reader(model, "recall", depth + 2048, 2, 0)
    words = reader.tokens(Path(text).read_text(encoding="utf-8"))[: depth + 68]
    reader.read(words[:depth], 0)
    reader.read(words[depth : depth + 4], depth)
    ms = []
    for i in range(depth + 4, depth + 68):
        begin = time.perf_counter()
        reader.read(words[i : i + 1], i)
        ms.append(1e3 * (time.perf_counter() - begin))
    print(f"{np.mean(ms):.1f} mean, {np.median(ms):.1f} median, {min(ms):.1f} least, {max(ms):.1f} most", flush=True)


main()
