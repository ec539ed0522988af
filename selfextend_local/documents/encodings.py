"""From bytes to text: which encoding a file is in, where it says so and where it doesn't.

Knows byte order marks, UTF-8 with damage, and the code pages of the world (charset-normalizer tells them apart). A guess is
told. Must not know file formats or pages.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_JUNK_SHARE = 0.003  # control characters in text; random bytes have 0.1
_SOUND_PER_DAMAGED = 4  # characters beyond ASCII that are right in UTF-8, for each that isn't
_FOREIGN_SHARE = 0.3  # letters beyond ASCII; more than that is no Latin script
_TURKISH, _ICELANDIC = frozenset("ðþý"), frozenset("áíóúæ")
_SAMPLE = 256 * 1024  # bytes that tell an encoding
# Code pages of Latin scripts, the likeliest first.
_LATIN = ("cp1252", "cp1250", "mac_roman", "iso8859_15", "cp1257", "cp1254", "cp850", "cp852")
_LATIN_FAMILY = re.compile(
    r"cp125[02478]|iso8859_(1|2|3|4|9|10|13|14|15|16)|latin_1|mac_(roman|latin2|iceland|turkish)|cp(437|85\d|775|860|861|863|865)|hp_roman8"
)
_NAMES = {"cp932": "Shift-JIS", "cp949": "EUC-KR", "mac_roman": "Mac Roman", "latin-1": "Latin-1", "big5": "Big5"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and a remark if its encoding was guessed or some of its bytes were left out, else ""."""

    text: str
    note: str = ""


class NotText(Exception):
    """Too many control characters for text in any encoding."""


def decode(data: bytes, declared: str = "") -> Decoded:
    """`data` as text: by its byte order mark, else as UTF-8, else by the encoding that it declares, else by a guess.

    Raises NotText.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _marked(data, encoding)
    if wide := _wide(data):
        return _marked(data, wide)
    # ISO-2022 is written in ASCII characters, so UTF-8 would always fit. UTF-8 hardly ever fits by accident.
    order = (declared, "utf-8") if declared.startswith("iso-2022") else ("utf-8", declared)
    for encoding in filter(None, order):
        try:
            return Decoded(_checked(data.decode(encoding)))
        except (UnicodeDecodeError, LookupError):
            continue
    return _damaged(data) or _guessed(data)


def _marked(data: bytes, encoding: str) -> Decoded:
    try:
        return Decoded(_checked(data.decode(encoding)))
    except UnicodeDecodeError as error:
        text = data.decode(encoding, "ignore")
        if len(text) * 2 < error.start or not text.strip():
            raise NotText from error
        return Decoded(_checked(text), f"Some bytes aren't {encoding.upper()}, and were left out.")


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: every other byte of Western text is zero then."""
    sample = data[:4096]
    if len(sample) < 8 or b"\0" not in sample:
        return ""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    most = max(even, odd)
    if len(data) % 2 == 0 and (other := _other_script(sample)):
        return other
    if most * 2 < len(sample) * 0.7 or min(even, odd) * 20 > most:
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _other_script(sample: bytes) -> str:
    """UTF-16 in another script than Latin, whose characters are mostly from one block, "" if it isn't."""
    for encoding, high in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        (block, times), *_ = Counter(high).most_common(1)
        if block and times > 0.5 * len(high) and times + high.count(0) > 0.9 * len(high) and high.count(0) > 0.02 * len(high):
            return encoding
    return ""


def _damaged(data: bytes) -> Decoded | None:
    """Text in UTF-8 but for a few bytes; None if it is in another encoding."""
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    sound = sum(c > "\x7f" for c in text) - damaged
    if sound < _SOUND_PER_DAMAGED * damaged:
        return None
    count = "One character isn't" if damaged == 1 else f"{damaged:,} characters aren't"
    return Decoded(_checked(text.replace("\ufffd", "")), f"{count} UTF-8 (a cut or damaged file?), and left out.")


def _guessed(data: bytes) -> Decoded:
    sample = data[:_SAMPLE]
    for encoding in _candidates(sample):
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        name = _NAMES.get(encoding) or re.sub(r"^cp(\d+)", r"Windows-\1", encoding).replace("_", "-").upper().replace("WINDOWS", "Windows")
        return Decoded(_checked(text), f"The file doesn't say which encoding it is in: read as {name}, which is a guess. UTF-8 is sure.")
    raise AssertionError("latin-1 decodes every byte")


def _candidates(sample: bytes) -> Iterable[str]:
    western = sample.decode("cp1252", "replace")
    letters = [c for c in western if c.isalpha() or c > "\x7f"]
    if sum(c > "\x7f" for c in letters) > _FOREIGN_SHARE * len(letters):
        from charset_normalizer import from_bytes

        found = from_bytes(sample).best()
        if found is not None and not _LATIN_FAMILY.fullmatch(found.encoding):
            yield found.encoding
            # A sample may end within a character that the whole file holds; related code pages hold more characters.
            yield from found.could_be_from_charset
    order = _LATIN if b"\n" in sample or b"\r" not in sample else ("mac_roman", *_LATIN)
    if _is_turkish(western.casefold()):
        yield "cp1254"
    yield from sorted(order, key=lambda encoding: _odd(sample, encoding))
    yield "latin-1"


def _is_turkish(western: str) -> bool:
    """Whether a text that is read as Western European has the letters that Turkish ones become, and none that are beside them in
    Icelandic."""
    return bool(_TURKISH & set(western)) and not _ICELANDIC & set(western)


def _odd(sample: bytes, encoding: str) -> int:
    """Characters that would be odd in a text of a Latin script: symbols or capitals within words, other scripts, no character."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        text = sample.decode(encoding, "replace")
    odd = text.count("\ufffd") * 4
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char <= "\x7f":
            continue
        within = before.isalpha() and after.isalpha()
        if not char.isalpha():
            odd += (within and char not in "’'·-") or (char not in _MARKS and (before.isalpha() or after.isalpha()))
        elif not ("\xc0" <= char <= "\u024f"):
            odd += 1
        elif char.isupper() and before.islower():
            odd += 2
    return odd


_MARKS = frozenset("’‘“”„‚»«…–—§°€£©®™·\xa0¿¡‹›")


def _checked(text: str) -> str:
    controls = sum(c < " " and c not in "\t\n\r\f\x1b" for c in text)
    controls += sum("\x7f" <= c <= "\x9f" for c in text)
    # A few stray ones are forgiven, as in a log; more than the share are not.
    if controls > _JUNK_SHARE * len(text):
        raise NotText
    return text
