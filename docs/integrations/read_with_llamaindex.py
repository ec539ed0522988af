"""LlamaIndex: python read_with_llamaindex.py MODEL TEXT [N_CTX]"""

import sys
from collections.abc import Sequence
from pathlib import Path

from llama_index.core.llms import ChatMessage
from llama_index.llms.llama_cpp import LlamaCPP

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), int((sys.argv[3:] or ["4096"])[0])


def chatml(messages: Sequence[ChatMessage]) -> str:
    """LlamaIndex doesn't know the template of a GGUF file: write the one that your model has."""
    return "".join(f"<|im_start|>{m.role.value}\n{m.content}<|im_end|>\n" for m in messages) + "<|im_start|>assistant\n"


llm = LlamaCPP(
    model_path=model, context_window=n_ctx, max_new_tokens=64, temperature=0, messages_to_prompt=chatml, verbose=False
)
for part in llm.stream_chat([ChatMessage(role="user", content=text)]):
    print(part.delta, end="", flush=True)
print()
