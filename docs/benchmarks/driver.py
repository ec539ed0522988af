"""The Python driver against a C++ loop: decode and prefill on one context, taking turns.

    python docs/benchmarks/driver.py [--model FILE] [--json]

`decode_loop.cpp` is compiled against the library that is installed, with the headers of the pinned source, and does on the
same context what the driver does: the same sampler chain, the same tokens, the text of each. Ratios are speeds, driver over
C++; of each side the least time of all rounds counts. One thread does all the work and its CPU time is taken, so that neighbours
on the machine don't decide.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from selfextend_local import SelfExtendLlama, native
from selfextend_local.generation.prompts import ModelVocabulary, Prompts
from selfextend_local.generation.stream import Answer
from selfextend_local.generation.stream import Sampling as ChatSampling

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROMPT, DECODED = 128, 256

CHAINS: dict[str, dict[str, Any]] = {
    "greedy": dict(temp=0.0),
    "penalty 1.1, greedy": dict(temp=0.0, repeat_penalty=1.1),
    "top-k 40, top-p 0.95, min-p 0.05, temperature 0.8": dict(temp=0.8, top_k=40, top_p=0.95, min_p=0.05),
}


class CppLoop:
    """decode_loop.cpp on the context of a model."""

    def __init__(self, llm: SelfExtendLlama, library: ctypes.CDLL) -> None:
        self._llm = llm
        self._lib = library
        library.loop_prefill.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
        library.loop_decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]

    def prefill(self, tokens: list[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        _forget(self._llm)
        self._check(self._lib.loop_prefill(self._llm.ctx, array, len(tokens), self._llm.n_batch))

    def decode(self, chain: dict[str, Any], count: int) -> list[int]:
        out = (ctypes.c_int32 * count)()
        sampler = self._llm._init_sampler(**chain)
        self._check(min(0, self._lib.loop_decode(self._llm.ctx, sampler.sampler, count, out)))
        return list(out)

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            sys.exit(f"the C++ loop failed with {code}")


def compiled(folder: Path) -> ctypes.CDLL:
    """decode_loop.cpp, built against the installed library."""
    tree, target = folder / "source", folder / "decode_loop.so"
    subprocess.run([sys.executable, ROOT / "patches" / "tool.py", "prepare", tree], check=True, stdout=subprocess.DEVNULL)
    llama = tree / "vendor" / "llama.cpp"
    libraries = Path(str(native.bindings()._lib._name)).parent
    command = [os.environ.get("CXX", "c++"), "-O2", "-shared", "-fPIC", HERE / "decode_loop.cpp", "-o", target]
    command += [f"-I{llama / 'include'}", f"-I{llama / 'ggml' / 'include'}"]
    command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lllama"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


def _forget(llm: SelfExtendLlama) -> None:
    llm.reset()  # type: ignore[no-untyped-call]
    native.clear_memory(llm.ctx)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.thread_time()
    result = work()
    return time.thread_time() - started, result


def decode(llm: SelfExtendLlama, loop: CppLoop, prompt: list[int], chain: dict[str, Any], rounds: int) -> dict[str, float]:
    """Tokens/s of the C++ loop, of `generate`, and of a chat's answer with its text and stop checks."""
    prompts = Prompts(ModelVocabulary(llm))
    took: dict[str, list[float]] = {"cpp": [], "generate": [], "answer": []}

    def generated() -> list[int]:
        return list(islice(llm.generate(prompt, **chain), DECODED + 1))[:DECODED]

    def answered() -> Iterator[str]:
        sampling = ChatSampling(temperature=chain["temp"], repeat_penalty=chain.get("repeat_penalty", 1.0), max_tokens=DECODED + 1)
        answer = Answer(llm, _endless(prompts), sampling, prompt, DECODED + 1)
        return list(answer.pieces(lambda: False)) and answer.tokens[:DECODED]

    llm.set_seed(ChatSampling().seed)
    for turn in range(rounds):
        tokens = {}
        sides: list[tuple[str, Callable[[], Any]]] = [
            ("cpp", lambda: loop.decode(chain, DECODED)),
            ("generate", generated),
            ("answer", answered),
        ]
        for name, work in sides[turn % 3 :] + sides[: turn % 3]:
            _forget(llm)
            llm.prefill(prompt)
            seconds, tokens[name] = _timed(work)
            took[name].append(seconds)
        if tokens["cpp"] != tokens["generate"]:
            sys.exit("the C++ loop and the driver drew different tokens")
    return {name: DECODED / min(times) for name, times in took.items()}


def _endless(prompts: Prompts) -> Prompts:
    prompts.stop_tokens, prompts.stop_texts = frozenset(), ()
    return prompts


def prefill(llm: SelfExtendLlama, loop: CppLoop, tokens: list[int], rounds: int) -> dict[str, float]:
    """Tokens/s of the C++ loop and of `prefill` with a progress report and a stop check."""
    took: dict[str, list[float]] = {"cpp": [], "prefill": []}

    def read() -> None:
        _forget(llm)
        llm.prefill(tokens, progress=lambda done, total: None, should_stop=lambda: False)

    for turn in range(rounds):
        sides: list[tuple[str, Callable[[], Any]]] = [("cpp", lambda: loop.prefill(tokens)), ("prefill", read)]
        for name, work in sides if turn % 2 == 0 else sides[::-1]:
            took[name].append(_timed(work)[0])
    return {name: len(tokens) / min(times) for name, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "tests" / "data" / "fixture.gguf")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    llm = SelfExtendLlama(options.model, n_ctx=2048, ga_n=8, n_threads=1)
    numbers = np.random.default_rng(1).integers(3, llm.n_vocab(), 2048 - 1)
    tokens = [int(token) for token in numbers]
    with tempfile.TemporaryDirectory() as folder:
        loop = CppLoop(llm, compiled(Path(folder)))
        found = {f"decode, {name}": decode(llm, loop, tokens[:PROMPT], chain, options.rounds) for name, chain in CHAINS.items()}
        found["prefill"] = prefill(llm, loop, tokens, options.rounds)
    llm.close()
    if options.json:
        print(json.dumps(found))
        return
    print("| what | C++ loop, tokens/s | driver | ratio |\n|---|---|---|---|")
    for what, speeds in found.items():
        for side in speeds:
            if side != "cpp":
                print(f"| {what}, `{side}` | {speeds['cpp']:,.0f} | {speeds[side]:,.0f} | {speeds[side] / speeds['cpp']:.3f} |")


if __name__ == "__main__":
    main()
