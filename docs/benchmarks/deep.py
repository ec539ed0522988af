"""Recall deep in a text without reading it as slowly each time: a cheap form of recall reads it once, later runs start from that state.

    python docs/benchmarks/deep.py MODEL.gguf TEXT.txt STATE fill
    LLAMA_CPP_LIB_PATH=DIR python docs/benchmarks/deep.py MODEL.gguf TEXT.txt STATE [DEPTH ...]

Prints milliseconds a token of prefill (1,024 tokens) and of decoding (32) up to each depth. Keys are those that the cheap form read: good
for time, for nothing else.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import llama_cpp as api
from recall import Reader

LONGEST = 131_072
AS_AUTO = "recall:w=640,fetched=1024"
CHEAP = "recall:w=64,r=512,sinks=32,fetched=256,stretch=512,each=2,first=512"


def main() -> None:
    model, text, state, *rest = sys.argv[1:]
    fills = rest == ["fill"]
    reader = Reader(model, CHEAP if fills else AS_AUTO, LONGEST + 2048, 2, 0)
    words = reader.tokens(Path(text).read_text(encoding="utf-8"))[: LONGEST + 2048]
    if fills:
        n = LONGEST - 1024
        reader.read(words[:n], 0)
        assert api.llama_state_save_file(reader.ctx, state.encode(), (ctypes.c_int32 * n)(*words[:n]), n)
        return
    held, count = (ctypes.c_int32 * LONGEST)(), ctypes.c_size_t()
    assert api.llama_state_load_file(reader.ctx, state.encode(), held, LONGEST, ctypes.byref(count))
    for depth in sorted(map(int, rest or ("4096", "32768", "65536", str(LONGEST))), reverse=True):
        at = depth - 1536
        reader.forget(at)
        reader.read(words[at : at + 512], at)  # and the means of all spans
        begin = time.perf_counter()
        reader.read(words[at + 512 : depth], at + 512)
        prefill = (time.perf_counter() - begin) / 1024
        reader.read(words[depth : depth + 4], depth)
        begin = time.perf_counter()
        for i in range(depth + 4, depth + 36):
            reader.read(words[i : i + 1], i)
        print(f"{depth}: prefill {1e3 * prefill:.2f}, decode {1e3 * (time.perf_counter() - begin) / 32:.1f} ms a token", flush=True)


main()
