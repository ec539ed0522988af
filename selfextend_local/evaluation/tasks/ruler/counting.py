"""cwe: the ten words that a numbered list holds most often. fwe: the most frequent words of a coded text."""

from __future__ import annotations

import random
from string import ascii_lowercase

from .samples import Material, Sample
from .words import all_words

COMMON = 10
# From so many tokens: other words of the example; how often its common words and its others stand; the same of the list.
_FORMS: tuple[tuple[int, int, tuple[int, int], tuple[int, int]], ...] = (
    (4096, 30, (10, 3), (30, 3)), (2048, 10, (3, 1), (6, 1)), (0, 5, (2, 1), (4, 1)),
)
# Sum of 1/k² over all k, the zeta distribution's norm for alpha = 2.
_ZETA_2 = 1.6449340668482264


def common_words(rng: random.Random, size: int, material: Material) -> Sample:
    """`size` words that aren't common. The ten stand 30 times and the others 3 times; below 4,096 tokens 6 times and once, and
    below 2,048, where RULER has no form, 4 times and once.
    """
    _, others, shown_often, often = next(form for form in _FORMS if material.length >= form[0])
    example, asked = _list(rng, others, *shown_often), _list(rng, size, *often)
    shown = f"{example.text}\n{example.question} {example.cue} {_numbered(example.wanted)}\n\n"
    return Sample(shown + asked.text, asked.question, asked.cue, asked.wanted, 120, "numbered")


def _list(rng: random.Random, others: int, often: int, seldom: int) -> Sample:
    words = rng.sample(all_words(), COMMON + min(others, len(all_words()) - COMMON))
    listed = words[:COMMON] * often + words[COMMON:] * seldom
    rng.shuffle(listed)
    text = (
        "Below is a numbered list of words. In these words, some appear more often than others. "
        f"Memorize the ones that appear most often.\n{_numbered(listed)}"
    )
    question = "Question: What are the 10 most common words in the above list?"
    return Sample(text, question, "Answer: The top 10 words that appear most often in the list are:", tuple(words[:COMMON]), 120)


def _numbered(words: list[str] | tuple[str, ...]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))


def frequent_words(rng: random.Random, size: int, material: Material) -> Sample:
    """`size` coded words; counts follow the zeta distribution with alpha = 2 over a vocabulary of a fiftieth of the length."""
    codes: dict[str, None] = {}
    while len(codes) < max(4, material.length // 50):
        codes["".join(rng.choices(ascii_lowercase, k=6))] = None
    words = ["...", *list(codes)[1:]]
    text = [word for rank, word in enumerate(words, 1) for _ in range(round(size / _ZETA_2 / rank**2))]
    rng.shuffle(text)
    start = (
        "Read the following coded text and track the frequency of each coded word. "
        "Find the three most frequently appeared coded words. "
    )
    question = (
        "Question: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text?"
    )
    cue = "Answer: According to the coded text above, the three most frequently appeared words are:"
    return Sample(start + " ".join(text), question, cue, tuple(words[1:4]), 50)
