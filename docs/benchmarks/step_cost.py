"""What boundary steps cost in a prefill: whole prefills of random tokens, fed as the package feeds them, in turns.

    python docs/benchmarks/step_cost.py MODEL.gguf 32768 --rounds 2 --gpu-layers 99 \\
        --form n=8,w=1024,r=512 --form n=8,w=4096,r=2048 --form n=16,w=1024,r=512,progressive

Prints for each form the least time, and that as times the plain model's. The plain model comes first and last: what lies between the
two is noise.
"""

from __future__ import annotations

import argparse

import numpy as np

from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.evaluation.speed import Loop
from selfextend_local.positions import MICRO_BATCH, PLAIN, GroupAttention


def form(text: str) -> GroupAttention:
    sizes = dict(part.split("=") for part in text.split(",") if "=" in part)
    return GroupAttention(int(sizes["n"]), int(sizes["w"]), int(sizes["r"]), "progressive" in text)


def seconds(loop: Loop[SelfExtendLlama], ga: GroupAttention, text: list[int]) -> float:
    """Of one prefill."""
    loop.llm.pin_group_attention(PLAIN)
    loop.rewind(0)
    loop.llm.pin_group_attention(ga)
    return loop.seconds(text, MICRO_BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("tokens", type=int)
    parser.add_argument("--form", action="append", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gpu-layers", type=int, default=0)
    options = parser.parse_args()

    llm = SelfExtendLlama(options.model, n_ctx=options.tokens + MICRO_BATCH, n_gpu_layers=options.gpu_layers)
    loop = Loop(llm)
    text = np.random.default_rng(1).integers(3, llm.n_vocab(), options.tokens).tolist()
    forms = [("plain", PLAIN), *((name, form(name)) for name in options.form), ("plain again", PLAIN)]
    seconds(loop, PLAIN, text)
    least: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, ga in forms:
            least[name] = min(least.get(name, float("inf")), seconds(loop, ga, text))
    for name, taken in least.items():
        print(f"{name:34} {taken:8.3f} s  {taken / least['plain']:.4f}")


main()
