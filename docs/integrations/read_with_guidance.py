"""guidance: python read_with_guidance.py MODEL TEXT [N_CTX]"""

import sys
from pathlib import Path

import llama_cpp
from guidance import assistant, gen, models, user

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), int((sys.argv[3:] or ["4096"])[0])

lm = models.LlamaCpp(llama_cpp.Llama(model, n_ctx=n_ctx, verbose=False, logits_all=True), echo=False)
with user():
    lm += text
with assistant():
    lm += gen("answer", max_tokens=64, temperature=0)
print(lm["answer"])
