"""Nats a token of a text by the frequencies of its own tokens: what a model has that reads nothing.

    python docs/results/frequencies.py MODEL.gguf TEXT.txt [TOKENS]
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

from selfextend_local.engine.peek import ModelPeek
from selfextend_local.evaluation.texts import read_text

with ModelPeek(Path(sys.argv[1])) as peek:
    tokens = peek.tokenize(read_text(sys.argv[2]).content)[: int(sys.argv[3]) if len(sys.argv) > 3 else None]
    counts = Counter(tokens)
    nats = -sum(n / len(tokens) * math.log(n / len(tokens)) for n in counts.values())
    print(f"{peek.info.name}: {nats:.3f} nats a token over {len(tokens):,} tokens, {len(counts):,} different")
