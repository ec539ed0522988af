"""Haystack: python read_with_haystack.py MODEL TEXT [N_CTX]"""

import sys
from pathlib import Path

from haystack.dataclasses import ChatMessage
from haystack_integrations.components.generators.llama_cpp import LlamaCppChatGenerator

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), int((sys.argv[3:] or ["4096"])[0])

generator = LlamaCppChatGenerator(model=model, n_ctx=n_ctx, n_batch=512, generation_kwargs={"max_tokens": 64, "temperature": 0})
print(generator.run([ChatMessage.from_user(text)])["replies"][0].text)
