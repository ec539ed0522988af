"""`selfextend summarize` against the raw engine, and short documents side by side against one at a time.

    python docs/benchmarks/batch.py [--rounds N] [--max-words N] [--together 1,2,4,8]

The readable documents of the sample folder are summarised by the whole command, in a process of its own, with each number of
documents side by side. Between these runs the engine alone does what the run with one at a time did: for each document as many
tokens of prefill in its micro-batches and as many of greedy decode, with no text, prompt, file or process. Tokens are those
that were evaluated or written; of each way the least time of all rounds counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfextend_local import SelfExtendLlama, native
from selfextend_local.engine.default_model import model_or_default
from selfextend_local.sample.folder import write_folder


def whole_run(folder: Path, together: int, max_words: int) -> tuple[float, list[tuple[int, int, int]], list[str]]:
    """Seconds of the command; (prompt, cached, written) tokens of each document in the order done; answers by name."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.jsonl"
        started = time.perf_counter()
        command = [sys.executable, "-c", "from selfextend_cli.summarize.command import main; main()", str(folder), "-o", str(out)]
        subprocess.run([*command, "--max-words", str(max_words), "--together", str(together)], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    usages = [line["response"]["body"]["usage"] for line in lines]
    counts = [(u["prompt_tokens"], u["prompt_tokens_details"]["cached_tokens"], u["completion_tokens"]) for u in usages]
    answers = sorted(line["custom_id"] + line["response"]["body"]["choices"][0]["message"]["content"] for line in lines)
    return seconds, counts, answers


def raw_run(counts: list[tuple[int, int, int]]) -> float:
    """Seconds that the engine alone takes for the same tokens."""
    llm = SelfExtendLlama(model_or_default(), n_ctx=2048, ga_n=1)
    decoder = native.Decoder(llm.ctx)
    chain = llm._init_sampler(temp=0.0)
    started = time.perf_counter()
    for prompt, cached, written in counts:
        native.drop_positions(llm.ctx, cached)
        for place in range(cached, prompt, llm.n_batch):
            decoder.many(list(range(1000 + place, 1000 + min(prompt, place + llm.n_batch))), place)
        for place in range(prompt, prompt + written):
            decoder.one(decoder.draw(chain.sampler), place)
    seconds = time.perf_counter() - started
    llm.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-words", type=int, default=40)
    parser.add_argument("--together", default="1,2,4,8")
    arguments = parser.parse_args()
    ways = [int(n) for n in arguments.together.split(",")]
    least: dict[str, float] = {}
    evaluated: dict[str, int] = {}

    def note(way: str, seconds: float, tokens: int) -> None:
        least[way], evaluated[way] = min(seconds, least.get(way, seconds)), tokens
        print(f"{way}: {seconds:.1f} s", file=sys.stderr)

    with tempfile.TemporaryDirectory() as place:
        for path in write_folder(place):
            if path.name.startswith("broken"):
                path.unlink()
        for _ in range(arguments.rounds):
            first: list[str] = []
            for together in ways:
                seconds, counts, answers = whole_run(Path(place), together, arguments.max_words)
                note(f"together {together}", seconds, sum(p - c + w for p, c, w in counts))
                first = first or answers
                if answers != first:
                    print("the answers differ", file=sys.stderr)
                if together == ways[0]:
                    note("engine alone", raw_run(counts), sum(p - c + w for p, c, w in counts))
    base = evaluated["engine alone"] / least["engine alone"]
    for way, seconds in least.items():
        rate = evaluated[way] / seconds
        print(f"{way:<14} {seconds:6.1f} s {evaluated[way]:7,} tokens {rate:6.1f} tokens/s  {rate / base:.2f} of the engine alone")


if __name__ == "__main__":
    main()
