"""outlines: python read_with_outlines.py MODEL TEXT [N_CTX]"""

import sys
from pathlib import Path

import llama_cpp
import outlines

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), int((sys.argv[3:] or ["4096"])[0])

llm = outlines.from_llamacpp(llama_cpp.Llama(model, n_ctx=n_ctx, verbose=False))
print(llm(outlines.inputs.Chat([{"role": "user", "content": text}]), max_tokens=64, temperature=0))
