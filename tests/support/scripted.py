"""Stand-ins for the evaluation's tests: a vocabulary of words, and readers that answer what a test tells them to.

Knows the evaluation's protocols. Loads no library.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

import numpy as np

from selfextend_local.evaluation.methods import Rotary, Setup
from selfextend_local.evaluation.runner import Subject

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


_PIECE = re.compile(r"<\|?\w+\|?>|[^\W\d]+|\d|\s+|[^\w\s]|_")


@lru_cache(128)  # the runner asks for the sizes of the same texts again and again
def _pieces(text: str) -> list[str]:
    return _PIECE.findall(text)


class Words:
    """A token is a word, a digit, a mark or a run of spaces; ids are given as they come, and text can be had back."""

    def __init__(self, *, chat: bool = False) -> None:
        self.metadata = {"tokenizer.ggml.model": "gpt2"} | ({"tokenizer.chat_template": CHAT_TEMPLATE} if chat else {})
        self._ids: defaultdict[str, int] = defaultdict(count().__next__)

    def opening_tokens(self) -> list[int]:
        return self.tokenize("<s>")

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return list(map(self._ids.__getitem__, _pieces(text)))

    def text(self, tokens: Sequence[int]) -> str:
        pieces = list(self._ids)
        return "".join(map(pieces.__getitem__, tokens))


@dataclass
class Scripted:
    """A reader whose answers come from a function of the prompt's text and the setup; every token costs one nat, a token of
    a passage that stands in the text already a tenth of that."""

    words: Words
    say: Callable[[str, Setup, int], str]
    setup: Setup = field(default_factory=Setup)
    progress: Callable[[int], None] = lambda done: None
    prompts: list[tuple[int, ...]] = field(default_factory=list)

    def read(self, tokens: Sequence[int]) -> None:
        self.progress(len(tokens))

    def answer(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_tokens: Collection[int],
        stop_text: str = "",
        enough: Callable[[str], bool] | None = None,
    ) -> str:
        self.prompts.append(tuple(prompt))
        self.progress(len(prompt))
        return self.say(self.words.text(prompt), self.setup, len(prompt))

    def nll(self, tokens: Sequence[int], start: int = 1) -> np.ndarray:
        self.prompts.append(tuple(tokens))
        passage = " ".join(map(str, tokens[start:]))
        seen = passage in " ".join(map(str, tokens[:start]))
        return np.full(len(tokens) - start, 0.1 if seen else 1.0)


@dataclass
class ScriptedReaders:
    """Hands out one reader and remembers under which setups and with how much room."""

    made: Scripted
    asked: list[tuple[Setup, int]] = field(default_factory=list)

    def reader(self, setup: Setup, n_ctx: int) -> Scripted:
        self.asked.append((setup, n_ctx))
        self.made.setup = setup
        return self.made


def subject(words: Words, window: int = 512) -> Subject:
    return Subject(words, Rotary(window, 10_000.0, 64), {"model": "words", "trained": window, "kv_type": "f16"})
