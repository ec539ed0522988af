"""A short check of the engine on a real model: does group attention work in the library that is loaded?

A pass key that lies deep in the grouped part of a text must be found. On a stock library the first call fails with the
reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from selfextend_local import native

from .llama import SelfExtendLlama

KEY = "58213"
_LINE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_LINES = 34
_KEY_AFTER = 8


@dataclass(frozen=True)
class SelfTest:
    """The finding: tokens read, their grouping, and what the model said for the key."""

    n_tokens: int
    grouped_tokens: int
    answer: str
    passed: bool


def prompt() -> str:
    """The pass-key prompt of the paper (Mohtashami and Jaggi, 2023), about 800 tokens."""
    key = f"The pass key is {KEY}. Remember it. {KEY} is the pass key.\n"
    lines = [_LINE] * _KEY_AFTER + [key] + [_LINE] * (_LINES - _KEY_AFTER)
    return "".join(lines) + "What is the pass key? The pass key is"


def run_self_test(model: Path, progress: Callable[[int, int], None] | None = None) -> SelfTest:
    """Read the prompt with n=4, w=128 and ask for the key. Raises LibraryError on a stock library."""
    native.require_patched()
    llm = SelfExtendLlama(model, ga_n=4, ga_w=128, n_ctx=2048)
    try:
        tokens = llm.tokenize(prompt().encode(), add_bos=False)
        llm.prefill(tokens, progress=progress)
        answer = list(islice(llm.generate(tokens, temp=0.0), 8))
        text = llm.detokenize(answer).decode("utf-8", "replace").strip()
        grouped = llm.group_attention.boundary(len(tokens) - 1)
        return SelfTest(len(tokens), grouped, text, KEY in text and grouped > 0)
    finally:
        llm.close()
