"""Single characters: which to mend, which to drop.

Knows the odd code points that PDF producers and PDFium leave in text. Must not
know lines, pages or files. Not Unicode NFKC: that would turn x² into x2.
"""

from __future__ import annotations

import re
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
# Adobe's private-use codes for figures and small capitals that fonts name "oneoldstyle" or "Asmall" (glyphlist.txt).
_MENDED |= {0xF730 + n: str(n) for n in range(10)}
_MENDED |= {0xF761 + n: chr(ord("A") + n) for n in range(26)}
_MENDED |= {0xF7E0 + n: chr(0xC0 + n) for n in range(31) if n != 23}
_MENDED |= {
    0xF721: "!", 0xF724: "$", 0xF726: "&", 0xF73F: "?", 0xF760: "`", 0xF7A1: "¡", 0xF7A2: "¢", 0xF7A8: "¨", 0xF7AF: "¯",
    0xF7B4: "´", 0xF7B8: "¸", 0xF7BF: "¿", 0xF7FF: "Ÿ", 0xF6F9: "Ł", 0xF6FA: "Œ", 0xF6FD: "Š", 0xF6FF: "Ž", 0xF6DC: "1", 0xF6DE: "—",
    0xF6E1: ",", 0xF6E7: ".", 0xF6DF: "¢", 0xF6E0: "¢", 0xF6E2: ",", 0xF6E3: "$", 0xF6E4: "$", 0xF6E5: "-", 0xF6E6: "-", 0xF6E8: ".",
    0xF8E8: "®", 0xF8E9: "©", 0xF8EA: "™", 0xF6D9: "©", 0xF6DA: "®", 0xF6DB: "™",
}  # fmt: skip
# Characters that fonts without Unicode (Windows "symbol" fonts) put at F000 and their code; letters and figures are meant as such.
_SYMBOL = range(0xF020, 0xF07F)
_LONE_SYMBOL = re.compile(r"(?<!\S)[\uf041-\uf07e](?=\s)")  # a bullet: Wingdings has no letters
_UNKNOWN = "\ufffd"
_KEPT_CONTROLS = frozenset("\n\t")
# Format characters that shape words in some scripts; all others are dropped.
_KEPT_FORMATS = frozenset("\u200c\u200d")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn"})


def clean(text: str) -> str:
    """`text` with ligatures spelled out, odd spaces plain, and no control characters.

    Newlines and tabs stay, soft hyphens go; the function is idempotent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_cleaned, _LONE_SYMBOL.sub("•", text)))


def _cleaned(char: str) -> str:
    if " " <= char <= "~" or char in _KEPT_CONTROLS:
        return char
    mended = _MENDED.get(ord(char))
    if mended is not None:
        return mended
    if ord(char) in _SYMBOL:
        return chr(ord(char) - 0xF000)
    category = unicodedata.category(char)
    if category == "Co":
        return _UNKNOWN
    if category == "Zs":
        return " "
    if category in _DROPPED_CATEGORIES and char not in _KEPT_FORMATS:
        return ""
    return char
