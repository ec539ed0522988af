"""Text layers of nonsense: what a PDF gives as letters may not be those that it shows.

Knows how often letters occur in languages (charset-normalizer's tables), which are vowels, and counts. Must not know files. A font with a
wrong or missing table of characters (ToUnicode) shows "The water board" and gives "7KHZDWHUERDUG".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]{3,}")
_KNOWN = 0.5  # of a page's words that legible pages of the same document have, for it to be legible: source code, lists of names
_LEAST = 200  # letters; fewer say nothing
_MOST = 4000  # characters that are looked at
_COHERENT = 0.5  # of the most frequent letters in a language's order; prose has 0.8 and more, tables 0.6
_VOWELS = frozenset("aeiouyæœøıаеиоуыэюяёіїєўαεηιουω")
_CONSONANTS = 5 * "c"
_SAYABLE = 0.8  # of the words; nearly all prose has 0.9, letters changed at random 0.6
_FEWEST = 20  # words
_UNSPACED = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]+")
_UNKNOWN = 0.2  # share of characters without a meaning


def nonsense_among(texts: Sequence[str]) -> list[int]:
    """The indices of those pages of a document that are nonsense. Their words don't occur on its other pages."""
    suspects = [i for i, text in enumerate(texts) if is_nonsense(text)]
    if not suspects:
        return []
    suspected = frozenset(suspects)
    known = {word for i, text in enumerate(texts) if i not in suspected for word in _words(text)}
    return [i for i in suspects if not _are_known(_words(texts[i]), known)]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _are_known(words: Sequence[str], known: set[str]) -> bool:
    return sum(word in known for word in words) >= _KNOWN * len(words) > 0


def is_nonsense(text: str) -> bool:
    """Whether `text` is long enough to tell, and its letters are those of no language."""
    shown = [c for c in text[:_MOST] if not c.isspace()]
    if len(shown) > _LEAST // 4 and shown.count("\ufffd") > _UNKNOWN * len(shown):
        return True
    letters = [c for c in shown if c.isalpha()]
    alphabetic = sum(c < "\u0600" for c in letters)
    if len(letters) < _LEAST or alphabetic < 0.7 * len(letters):
        return False
    # Chinese and Japanese among them would hide how often letters come.
    text = _UNSPACED.sub(" ", text[:_MOST])
    if _said_aloud(text):
        return False
    from charset_normalizer.cd import coherence_ratio

    ratios = coherence_ratio(text, 0.1, None)
    return not ratios or max(ratio for _, ratio in ratios) < _COHERENT


def _said_aloud(text: str) -> bool:
    """Whether nearly all words have a vowel, and no run of consonants that nobody can say: tables, names, transliterations."""
    words = [word for word in _words(text) if word < "\u0530"]
    shapes = ["".join("v" if unicodedata.normalize("NFD", c)[0] in _VOWELS else "c" for c in word) for word in words]
    sayable = sum("v" in shape and _CONSONANTS not in shape for shape in shapes)
    return sayable >= _SAYABLE * len(words) and len(words) >= _FEWEST
