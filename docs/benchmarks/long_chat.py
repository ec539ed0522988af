"""A chat of very many turns: does its memory stay flat, and are its answers those of a chat that begins there?

    python docs/benchmarks/long_chat.py tests/data/ruler.gguf --turns 2000

The chat is held twice in one process, and cleared in between: cells of the KV cache take memory when they are first written, so the second
time must take no more than the first. A line for every hundredth turn: tokens held, group attention, resident memory. Afterwards some
turns are asked again, each by a model that is opened anew and reads the conversation up to there. Exit code 1 if an answer differs, or
if the second time takes more than 2 % above the most of the first.
"""

from __future__ import annotations

import random
import sys

import click
import psutil

from selfextend_local import SelfExtendLlama
from selfextend_local.chat.conversation import Chat, Sampling

GROWTH = 0.02
ANSWER_TOKENS = 3
TURN_TOKENS = 18


def question(turn: int) -> str:
    return f"{chr(97 + turn % 26)}?"


def opened(model: str, mode: str, turns: int) -> tuple[SelfExtendLlama, Chat]:
    llm = SelfExtendLlama(model, need_tokens=turns * TURN_TOKENS + 64, ga_mode=mode, n_threads=1, n_threads_batch=1, verbose=False)
    return llm, Chat(llm, system="", sampling=Sampling(max_tokens=ANSWER_TOKENS, temperature=0.0))


@click.command()
@click.argument("model")
@click.option("--ga-mode", "mode", default="auto", show_default=True)
@click.option("--turns", default=2000, show_default=True)
@click.option("--again", default=10, show_default=True, help="Turns that are asked again.")
def main(model: str, mode: str, turns: int, again: int) -> None:
    llm, chat = opened(model, mode, turns)
    most, histories, forms = [], [], []
    for time in (1, 2):
        chat.clear()
        sizes = []
        for turn in range(turns):
            "".join(chat.ask(question(turn)))
            if not forms or forms[-1] != llm.group_attention.label:
                forms.append(llm.group_attention.label)
            if turn % 100 == 99:
                sizes.append(psutil.Process().memory_info().rss)
                print(f"{time}: {turn + 1:5} turns, {chat.n_used:6,} tokens, {forms[-1]}, {sizes[-1] / 1e6:.1f} MB", flush=True)
        most.append(max(sizes))
        histories.append([turn.answer for turn in chat.history])
    print(f"both times the same answers: {histories[0] == histories[1]}")
    history, capacity = chat.history, chat.capacity
    llm.close()
    grown = most[1] / most[0] - 1
    differ = 0
    for turn in sorted(random.Random(0).sample(range(1, turns), again)):
        llm, fresh = opened(model, mode, turns)
        fresh.resume(history[:turn])
        same = "".join(fresh.ask(question(turn))) == history[turn].answer
        differ += not same
        print(f"turn {turn + 1}: {fresh.n_used:,} tokens, {llm.group_attention.label}: {'the same' if same else 'differs'}", flush=True)
        llm.close()
    print(f"{turns} turns, capacity {capacity:,}; {' | '.join(forms)}; memory grew by {grown:.2%}; {differ} of {again} answers differ")
    sys.exit(differ > 0 or histories[0] != histories[1] or grown > GROWTH)


if __name__ == "__main__":
    main()
