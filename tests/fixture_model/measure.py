"""Counts the pass keys that the fixture model finds, by length of the text and by method, and prints a table.

    cd tests && python -m fixture_model.measure --prompts 40 --windows 1 2 4
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fixture_model import FIXTURE_MODEL, WINDOW, passkey_prompt  # noqa: E402

from selfextend_local.engine.llama import SelfExtendLlama  # noqa: E402
from selfextend_local.engine.plan import GroupSize  # noqa: E402
from selfextend_local.errors import ContextOverflow  # noqa: E402
from selfextend_local.positions import PLAIN  # noqa: E402

METHODS: tuple[tuple[str, GroupSize, str], ...] = (
    ("plain", "auto", "f16"), ("auto", "auto", "f16"), ("auto", "auto", "q8_0"),
    ("n=2", 2, "f16"), ("n=4", 4, "f16"), ("n=8", 8, "f16"),
)


def found(name: str, ga_n: GroupSize, kv_type: str, n_tokens: int, prompts: int) -> str:
    """How many keys are found, as "39/40", depths spread evenly; a dash where the setting can't hold the text."""
    try:
        llm = SelfExtendLlama(FIXTURE_MODEL, ga_n=ga_n, kv_type=kv_type, need_tokens=n_tokens + n_tokens // 10)
    except ContextOverflow:
        return "-"
    if name == "plain":
        llm.pin_group_attention(PLAIN)
    right = 0
    for i in range(prompts):
        prompt, key = passkey_prompt(1000 + i, n_tokens, i / max(1, prompts - 1))
        answer = llm.create_completion(prompt, max_tokens=8, temperature=0)["choices"][0]["text"]
        right += key in answer
    llm.close()
    return f"{right}/{prompts}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--windows", type=float, nargs="+", default=[1, 2, 4, 8])
    args = parser.parse_args()
    for windows in args.windows:
        # A margin of 40 tokens: the lengths are estimates, and the answer has to fit the window too.
        n_tokens = int(windows * WINDOW) - 40
        for name, ga_n, kv_type in METHODS:
            print(f"| {windows:g}× | {name} | {kv_type} | {found(name, ga_n, kv_type, n_tokens, args.prompts)} |", flush=True)


if __name__ == "__main__":
    main()
