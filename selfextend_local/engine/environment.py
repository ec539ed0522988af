"""A plan as the variables that the patched library reads, for programs that know nothing of this package.

Knows their names (`patches/src/llama-group-attn-env.cpp` reads them). It must not know models, and starts nothing.
"""

from __future__ import annotations

from selfextend_local.errors import GroupAttentionError
from selfextend_local.positions import GroupAttention

NAMES = tuple(f"LLAMA_GROUP_ATTN_{name}" for name in ("N", "W", "MODE", "RECALL", "TEMPERATURE"))


def variables(ga: GroupAttention, temperature: float = 0.0) -> dict[str, str]:
    """The variables to set, for a text that is read with `ga` and this attention temperature; the rest of NAMES is to be unset.

    Raises GroupAttentionError for an n that is no power of two, which the library takes by no variable.
    """
    if ga.n & (ga.n - 1):
        raise GroupAttentionError(f"--ga-n {ga.n}: the library's variable takes powers of two.")
    mode, c = ga.mode if ga.enabled else "", str(temperature) if temperature else ""
    n, w, recall = "" if ga.recall else str(ga.n), str(ga.w) if ga.enabled else "", str(ga.recall) if ga.recall else ""
    values = (n, w, mode, recall, c)
    return {name: value for name, value in zip(NAMES, values, strict=True) if value}
