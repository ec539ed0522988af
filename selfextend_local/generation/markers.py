"""The marks by which a chat template tells roles apart, found in a content: cut in two, so that they are characters and no mark.

A vocabulary may type its marks as user-defined tokens, which llama.cpp matches in any text, or have no token for them at all.
Knows text. Must not know messages nor models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# The forms that marks have: <|im_start|>, <start_of_turn>, </s>, <｜User｜>, [INST], [gMASK], <<SYS>>.
_FORM = r"<<?/?[^<>\s]{1,60}>>?|\[/?(?:[A-Z_]{3,40}|gMASK|sMASK)\]"
_MARK = re.compile(_FORM)
# Also of roles that a template wrote none of, and marks that it takes by name.
_IN_ANY_TEMPLATE = r"<[|｜][^<>\s]{1,60}[|｜]>|</?s>|<[be]os>|<(?:start|end)_of_turn>"


class Markers:
    """The marks of one template.

    texts: the template's source and what it writes.
    forged: of how many tokens a mark consists that a content could write just as the template does; 0 if it can't.
    """

    def __init__(self, texts: Sequence[str], forged: Callable[[str], int]) -> None:
        self._forged = forged
        self._known: dict[str, int] = {}
        self._own = {mark for text in texts for mark in _MARK.findall(text)}
        longest_first = sorted(map(re.escape, self._own), key=len, reverse=True)
        self._mark = re.compile("|".join([*longest_first, _IN_ANY_TEMPLATE]))

    def cut(self, text: str) -> list[str]:
        """`text` in parts to be tokenised one by one. One ends in the middle of each mark that is one token in any text. A mark of the
        template that is no token at all gets a space in the middle, since its halves are still the same characters."""
        parts, start = [], 0
        for found in self._mark.finditer(text):
            mark = found[0]
            if mark not in self._known:
                self._known[mark] = self._forged(mark)
            n_tokens = self._known[mark]
            if n_tokens == 1 or n_tokens > 1 and mark in self._own:
                middle = found.start() + len(mark) // 2
                parts.append(text[start:middle] + ("" if n_tokens == 1 else " "))
                start = middle
        return [*parts, text[start:]]
