"""LangChain: python read_with_langchain.py MODEL TEXT [N_CTX]"""

import sys
from pathlib import Path

from langchain_community.chat_models import ChatLlamaCpp

model, text, n_ctx = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), int((sys.argv[3:] or ["4096"])[0])

llm = ChatLlamaCpp(model_path=model, n_ctx=n_ctx, max_tokens=64, temperature=0, verbose=False)
for chunk in llm.stream([("human", text)]):
    print(chunk.content, end="", flush=True)
print()
