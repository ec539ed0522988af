"""JSON that comes from elsewhere. Knows what Python's reader raises, and how deep values may lie in values."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 200
"""Values within values: whoever writes one out again, or walks through it, has room for that."""


def loads(text: str | bytes, **how: Any) -> Any:
    """As `json.loads`. Raises ValueError for all that is wrong with the text."""
    try:
        found = json.loads(text, **how)
    except RecursionError as error:
        raise _too_deep() from error
    level = [found]
    for _ in range(DEEPEST):
        held = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [inner for values in held for inner in values if isinstance(inner, (dict, list))]
        if not level:
            return found
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it holds values within values, more than {DEEPEST} deep")
