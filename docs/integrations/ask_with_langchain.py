"""LangChain, about a document, from a server that runs (selfextend serve): python ask_with_langchain.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from langchain_openai import ChatOpenAI

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
llm = ChatOpenAI(
    model="any", base_url=f"{url}/v1", api_key="none", temperature=0, max_tokens=64, timeout=3600,
    extra_body={"document_ids": [document]},
)  # fmt: skip
print(llm.invoke(question).content)
for chunk in llm.stream(question):
    print(chunk.content, end="", flush=True)
print()
