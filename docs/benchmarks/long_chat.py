"""A chat of very many turns: does its memory stay flat, and are its answers those of a chat that begins there?

    python docs/benchmarks/long_chat.py tests/data/fixture.gguf --turns 2000

Prints a line for every hundredth turn: tokens held, group attention, resident memory, and that less the written cells of the KV cache
(cells take memory when they are written). Afterwards some turns are asked again, each by a model that is opened anew and reads the
conversation up to there. Exit code 1 if an answer differs, or if the memory less the cells grew by more than 2 % after the first
hundred turns.
"""

from __future__ import annotations

import random
import sys

import click
import psutil

from selfextend_local import SelfExtendLlama
from selfextend_local.chat.conversation import Chat, Sampling

WORDS = (
    "harbour", "winter", "lantern", "ticket", "orchard", "violin", "captain", "garden", "letter", "bridge", "market", "island", "doctor",
    "window", "railway",
)  # fmt: skip
GROWTH = 1.02
ANSWER_TOKENS = 6
TURN_TOKENS = 36


def question(turn: int) -> str:
    first, second, third = random.Random(turn).sample(WORDS, 3)
    return f"{turn}: {first} {second}, {third}?"


def opened(model: str, turns: int) -> tuple[SelfExtendLlama, Chat]:
    llm = SelfExtendLlama(model, need_tokens=turns * TURN_TOKENS, n_threads=1, n_threads_batch=1, verbose=False)
    return llm, Chat(llm, system="", sampling=Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0))


@click.command()
@click.argument("model")
@click.option("--turns", default=2000, show_default=True)
@click.option("--again", default=10, show_default=True, help="Turns that are asked again.")
def main(model: str, turns: int, again: int) -> None:
    llm, chat = opened(model, turns)
    cell = (llm.plan.kv_bytes or 0) / llm.plan.n_ctx
    forms: list[str] = []
    sizes: list[float] = []
    for turn in range(turns):
        "".join(chat.ask(question(turn)))
        if not forms or forms[-1] != llm.group_attention.label:
            forms.append(llm.group_attention.label)
        if turn % 100 == 99:
            resident = psutil.Process().memory_info().rss
            sizes.append(resident - cell * chat.n_used)
            held = f"{resident / 1e6:.1f} MB, {sizes[-1] / 1e6:.1f} MB without cells"
            print(f"{turn + 1:5} turns, {chat.n_used:6,} tokens, {forms[-1]}, {held}", flush=True)
    history, capacity = chat.history, chat.capacity
    llm.close()
    grown = max(sizes) / sizes[0] - 1
    differ = 0
    for turn in sorted(random.Random(0).sample(range(1, turns), again)):
        llm, fresh = opened(model, turns)
        fresh.resume(history[:turn])
        same = "".join(fresh.ask(question(turn))) == history[turn].answer
        differ += not same
        print(f"turn {turn + 1}: {fresh.n_used:,} tokens, {llm.group_attention.label}: {'the same' if same else 'differs'}", flush=True)
        llm.close()
    print(f"{turns} turns, capacity {capacity:,}; {' | '.join(forms)}; memory grew by {grown:.2%}; {differ} of {again} answers differ")
    sys.exit(differ > 0 or grown > GROWTH - 1)


if __name__ == "__main__":
    main()
