"""LlamaIndex, about a document, from a server that runs (selfextend serve): python ask_with_llamaindex.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
llm = OpenAILike(
    model="any", api_base=f"{url}/v1", api_key="none", is_chat_model=True, temperature=0, max_tokens=64, timeout=3600,
    additional_kwargs={"extra_body": {"document_ids": [document]}},
)  # fmt: skip
print(llm.chat([ChatMessage(role="user", content=question)]).message.content)
for part in llm.stream_chat([ChatMessage(role="user", content=question)]):
    print(part.delta, end="", flush=True)
print()
