"""Numbers as letters and Roman numerals, as lists count. Knows nothing else."""

from __future__ import annotations

_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"),
    (4, "iv"), (1, "i"))  # fmt: skip


def letters(n: int) -> str:
    """a … z, aa … zz, as Word counts."""
    return chr(ord("a") + (n - 1) % 26) * min((n - 1) // 26 + 1, 50) if n > 0 else ""


def roman(n: int) -> str:
    """i, ii, iii, iv; "" for 0."""
    text = ""
    for value, signs in _ROMAN:
        text += signs * min(n // value, 50)
        n %= value
    return text


def counted(n: int, form: str) -> str:
    """`n` in the form whose first number is "1", "a", "A", "i" or "I"."""
    lower = {"a": letters, "i": roman}.get(form.lower(), str)(n)
    return lower.upper() if form.isupper() else lower
