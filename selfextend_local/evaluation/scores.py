"""Grades of an answer: exact match, F1, ROUGE-L, sets of numbers, orders. Pure functions of strings.

Normalisation and F1 are SQuAD's, which LongBench uses too; ROUGE-L is the F-measure of the longest common subsequence of
words (Lin 2004), unstemmed. Own code because the usual package, rouge-score, has no wheels and pulls in nltk.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def words(text: str) -> list[str]:
    """Lower case, without punctuation and English articles."""
    plain = "".join(" " if c in string.punctuation else c for c in text.lower())
    return [word for word in plain.split() if word not in ("a", "an", "the")]


def exact_match(answer: str, reference: str) -> float:
    return float(words(answer) == words(reference))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, repeated words counted."""
    said, wanted = words(answer), words(reference)
    return _f_measure(sum((Counter(said) & Counter(wanted)).values()), len(said), len(wanted))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words."""
    said, wanted = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, reference))
    return _f_measure(_longest_common(said, wanted), len(said), len(wanted))


def _f_measure(common: int, said: int, wanted: int) -> float:
    if not said or not wanted:
        return float(said == wanted)
    return 2 * common / (said + wanted)


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for index, y in enumerate(b, 1):
            before, row[index] = row[index], before + 1 if x == y else max(row[index], row[index - 1])
    return row[-1]


def best(score: Callable[[str, str], float], answer: str, references: Iterable[str]) -> float:
    """The score against the reference that fits best."""
    return max((score(answer, reference) for reference in references), default=0.0)
