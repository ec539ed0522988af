"""Single characters: which to mend, which to drop.

Knows the odd code points that PDF producers and PDFium leave in text. Must not
know lines, pages or files. Not Unicode NFKC: that would turn x² into x2.
"""

from __future__ import annotations

import unicodedata

# A hyphen at the end of a line, whose status is open until the lines are joined.
SOFT_HYPHEN = "\u00ad"

# PDFium writes U+0002 or U+FFFE where a word is divided at the end of a line.
HYPHEN_MARKS = frozenset({"\u0002", "\ufffe", SOFT_HYPHEN})

_MENDED: dict[int, str] = {
    0xFB00: "ff",
    0xFB01: "fi",
    0xFB02: "fl",
    0xFB03: "ffi",
    0xFB04: "ffl",
    0xFB05: "st",
    0xFB06: "st",
    # Bullets of the Symbol and Wingdings fonts, as Word writes them.
    0xF0B7: "•",
    0xF0A7: "•",
    0x2010: "-",
    0x2011: "-",
    0x2028: "\n",
    0x2029: "\n\n",
}
_KEPT_CONTROLS = frozenset("\n\t")
# Format characters that shape words in some scripts; all others are dropped.
_KEPT_FORMATS = frozenset("\u200c\u200d")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def clean(text: str) -> str:
    """`text` with ligatures spelled out, odd spaces plain, and no control characters.

    Newlines and tabs stay, soft hyphens go; the function is idempotent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_cleaned, text))


def _cleaned(char: str) -> str:
    if " " <= char <= "~" or char in _KEPT_CONTROLS:
        return char
    mended = _MENDED.get(ord(char))
    if mended is not None:
        return mended
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    if category in _DROPPED_CATEGORIES and char not in _KEPT_FORMATS:
        return ""
    return char
