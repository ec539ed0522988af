"""A plan as the variables that the patched library reads, for programs that know nothing of this package.

Knows their names (`patches/src/llama-group-attn-env.cpp` reads them). It must not know models, and starts nothing.
"""

from __future__ import annotations

from selfextend_local.errors import GroupAttentionError
from selfextend_local.positions import GroupAttention

NAMES = tuple(f"LLAMA_GROUP_ATTN_{name}" for name in ("N", "W", "MODE", "TEMPERATURE"))


def variables(ga: GroupAttention, temperature: float = 0.0) -> dict[str, str]:
    """The variables to set, for a text that is read with `ga` and this attention temperature; the rest of NAMES is to be unset.

    Raises GroupAttentionError for what the library takes by no variable: recall, and an n that is no power of two.
    """
    if ga.recall:
        raise GroupAttentionError("No variable asks for recall: take SelfExtendLlama, or groups (--ga-mode progressive).")
    if ga.n & (ga.n - 1):
        raise GroupAttentionError(f"--ga-n {ga.n}: the library's variable takes powers of two.")
    mode = "progressive" if ga.progressive else "two-level"
    values = (str(ga.n), str(ga.w) if ga.enabled else "", mode if ga.enabled else "", str(temperature) if temperature else "")
    return {name: value for name, value in zip(NAMES, values, strict=True) if value}
