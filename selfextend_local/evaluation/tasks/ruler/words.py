"""The words that RULER's tasks are made of: the lists of the package wonderwords (extra `eval`).

Knows that package's files. Raises TaskError where it is missing.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from ...items import TaskError


@cache
def listed(name: str) -> tuple[str, ...]:
    """The words of one list, adjective, noun or verb: lower case, without those of several words."""
    try:
        text = resources.files("wonderwords.assets").joinpath(f"{name}list.txt").read_text(encoding="utf-8")
    except ModuleNotFoundError:
        raise TaskError("RULER's words come from the package wonderwords: pip install 'selfextend-local[eval]'.") from None
    return tuple(sorted({word for line in text.splitlines() if (word := line.strip().lower()).isalpha()}))


@cache
def all_words() -> tuple[str, ...]:
    return tuple(sorted({*listed("adjective"), *listed("noun"), *listed("verb")}))
