"""The anthropic client, about a document, from a server that runs (selfextend serve): python ask_with_anthropic.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from anthropic import Anthropic

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
client = Anthropic(base_url=url, api_key="none", timeout=3600)
asked = {"model": "any", "messages": [{"role": "user", "content": question}], "max_tokens": 64}
about = {"document_ids": [document]}
print(client.messages.create(**asked, extra_body=about).content[0].text)
with client.messages.stream(**asked, extra_body=about) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
