"""What groups cost with a q4_0 cache: NLL with n=4 less NLL with n=1, over several stretches of a text, beside the same for f16.

    python docs/benchmarks/q4_keys.py TEXT [STRETCHES]
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean, stdev

from selfextend_local.engine.default_model import model_or_default
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.evaluation.model_reader import Reader
from selfextend_local.positions import PLAIN, GroupAttention

TOKENS, APART = 4096, 9000


def main() -> None:
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    differences: dict[str, list[float]] = {}
    for stretch in range(int(sys.argv[2]) if len(sys.argv) > 2 else 5):
        for kv_type in ("f16", "q4_0"):
            nll = []
            for group in (PLAIN, GroupAttention(4, 512, 512)):
                llm = SelfExtendLlama(model_or_default(), n_ctx=TOKENS, kv_type=kv_type)
                llm.pin_group_attention(group)
                first = TOKENS + stretch * APART
                nll.append(float(Reader(llm).nll(llm.tokenize(text.encode(), add_bos=False)[first : first + TOKENS]).mean()))
                llm.close()
            differences.setdefault(kv_type, []).append(nll[1] - nll[0])
            print(f"{stretch} {kv_type}: {nll[0]:.4f} with n=1, {nll[1]:.4f} with n=4, w=512: {nll[1] - nll[0]:+.4f}", flush=True)
    for kv_type, found in differences.items():
        print(f"{kv_type}: {mean(found):+.4f}, standard error {stdev(found) / len(found) ** 0.5:.4f}")


if __name__ == "__main__":
    main()
