"""The openai client, about a document, from a server that runs (selfextend serve): python ask_with_openai.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from openai import OpenAI

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600)
asked = {"model": "any", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 64}
about = {"document_ids": [document]}
print(client.chat.completions.create(**asked, extra_body=about).choices[0].message.content)
for chunk in client.chat.completions.create(**asked, extra_body=about, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
print(client.responses.create(model="any", input=question, temperature=0, max_output_tokens=64, extra_body=about).output_text)
