"""The fixture model: where it lies, and texts for it. Its trained window is 512 tokens; see `tests/fixture_model`.

Knows texts and their lengths in tokens of that model. Loads no C library.
"""

from __future__ import annotations

import random
from pathlib import Path

WINDOW = 512
FIXTURE_MODEL = Path(__file__).parents[1] / "data" / "fixture.gguf"
UNSEEN_TEXT = Path(__file__).parents[1] / "fixture_model" / "ruth.txt"

NOISE_LINE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_TOKENS_OF_LINE = 25
_TOKENS_OF_REST = 36


def passkey_prompt(seed: int, n_tokens: int, depth: float) -> tuple[str, str]:
    """The paper's prompt of about `n_tokens`, a five-digit key after a share `depth` of its lines; and the key."""
    key = "".join(random.Random(seed).choices("0123456789", k=5))
    count = (n_tokens - _TOKENS_OF_REST) // _TOKENS_OF_LINE
    lines = [NOISE_LINE] * count
    lines.insert(round(depth * count), f"The pass key is {key}. Remember it. {key} is the pass key.")
    return "\n".join([*lines, "What is the pass key? The pass key is"]), key
