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
from selfextend_local.positions import MAX_GROUP_SIZE, fixed

from .llama import SelfExtendLlama
from .peek import ModelPeek

KEY = "58213"
_LINE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_LINES = 34
_KEY_AFTER = 8
_NEAR, _SMALLEST_GROUP = 128, 4
_ANSWER = 8


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
    """Read the prompt in groups of four, larger ones with a small window, and ask for the key. Raises LibraryError on a stock library."""
    native.require_patched()
    with ModelPeek(model) as peek:
        tokens, window = peek.tokenize(prompt()), peek.info.n_ctx_train
    need, near = len(tokens) + _ANSWER, max(1, min(_NEAR, window // 4))
    n = _SMALLEST_GROUP
    while n < MAX_GROUP_SIZE and fixed(n, near, window).capacity(window) < need:
        n *= 2
    llm = SelfExtendLlama(model, ga_n=n, ga_w=near, need_tokens=need)
    try:
        llm.prefill(tokens, progress=progress)
        answer = list(islice(llm.generate(tokens, temp=0.0), _ANSWER))
        text = llm.detokenize(answer).decode("utf-8", "replace").strip()
        grouped = llm.group_attention.boundary(len(tokens) - 1)
        return SelfTest(len(tokens), grouped, text, KEY in text and grouped > 0)
    finally:
        llm.close()
