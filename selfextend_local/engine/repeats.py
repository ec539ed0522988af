"""What an answer shouldn't say again: DRY (Don't Repeat Yourself), in words instead of tokens, and by how often something was said.

llama.cpp's sampler counts tokens and takes the longest repeat alone. With it a name of three tokens can come out garbled, a number that
is said again as another one, and a phrase of three words costs the fourth time what it cost the second. Here a word may always be ended
as it was begun, only words of letters cost anything and none with a capital (so that a name is never another one), a repeat begins anew
behind numbers, bullets, bars, colons and quotes (so that lists and tables stay as they are), and each time that something was said counts.

Pure arithmetic on the tokens of the answer alone: quoting the prompt is free. It knows no model.
"""

from __future__ import annotations

from collections.abc import Callable

BASE, ALLOWED = 1.75, 2
"""A word that would follow so many words as it followed them before costs strength * BASE^(words - ALLOWED), for each time that it did."""

LONGEST, COUNTED = 8, 4
"""Words of a repeat, and times that it was said, that are counted: the last ones."""

_SPACED_SCRIPTS = "\u2e80"
"""From here on a letter is a word by itself."""

_APOSTROPHES = ("'", "\u2019")

_PASSED = frozenset(".,;!?…。、，！？")
"""Marks that a repeat goes across, as it does across line ends."""

_LONGEST_WORD = 64
"""Letters that tell words apart."""

_MARK = ""
"""Stands for a number or another mark."""


class Repeats:
    """One answer in the making. `piece`: the text of a token."""

    def __init__(self, piece: Callable[[int], str], strength: float) -> None:
        self._piece, self._strength = piece, strength
        self._words: list[str] = []
        self._first: list[int] = []  # the token that begins each
        self._places: dict[str, list[int]] = {}
        self._ending = ""

    def drawn(self, token: int) -> int:
        """The token that was drawn, given back."""
        if self._strength > 0:
            self._take(token)
        return token

    def _take(self, token: int) -> None:
        text = self._piece(token)
        if self._words and self._goes_on(text):
            begun = self._words[-1]
            self._words[-1] = (begun + text)[:_LONGEST_WORD] if begun and not _has_digit(text) else _MARK
        elif not set(text.strip()) <= _PASSED:
            if self._words and self._words[-1]:
                self._places.setdefault(self._words[-1], []).append(len(self._words) - 1)
            self._words.append(_word(text))
            self._first.append(token)
        self._ending = text or self._ending

    def costs(self) -> dict[int, float]:
        """What to take from the logits of the tokens that would go on with something that was said."""
        words, found = self._words, dict[int, float]()
        if not words or not words[-1]:
            return found
        for place in self._places.get(words[-1], ())[-COUNTED:]:
            length = 1
            while length < min(LONGEST, place + 1) and words[place - length] and words[place - length] == words[-1 - length]:
                length += 1
            token = self._first[place + 1]
            text = self._piece(token)
            if length >= ALLOWED and _may_cost(words[place + 1]) and not self._goes_on(text):
                found[token] = found.get(token, 0.0) + self._strength * BASE ** (length - ALLOWED)
        return found

    def _goes_on(self, text: str) -> bool:
        """Whether a text is, or may be, part of the word that was begun."""
        return not text or (_joins(self._ending[-1:]) and _joins(text[0]))


def _may_cost(word: str) -> bool:
    return bool(word) and not word[0].isupper()


def _joins(letter: str) -> bool:
    return (letter.isalnum() and letter < _SPACED_SCRIPTS) or letter in _APOSTROPHES


def _word(text: str) -> str:
    word = text.strip()
    return word[:_LONGEST_WORD] if any(map(str.isalpha, word)) and not _has_digit(word) else _MARK


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))
