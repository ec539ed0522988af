"""The openai client, from a server that runs (selfextend serve): python ask_with_openai.py URL TEXT"""

import sys
from pathlib import Path

from openai import OpenAI

url, text = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")

client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600)
for chunk in client.chat.completions.create(
    model="any", messages=[{"role": "user", "content": text}], temperature=0, max_tokens=64, stream=True
):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print()
