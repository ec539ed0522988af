"""Haystack, about a document, from a server that runs (selfextend serve): python ask_with_haystack.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
settings = {"temperature": 0, "max_tokens": 64, "extra_body": {"document_ids": [document]}}
for streaming in (None, lambda chunk: print(chunk.content, end="", flush=True)):
    generator = OpenAIChatGenerator(
        model="any", api_base_url=f"{url}/v1", api_key=Secret.from_token("none"), timeout=3600, generation_kwargs=settings,
        streaming_callback=streaming,
    )  # fmt: skip
    answer = generator.run([ChatMessage.from_user(question)])["replies"][0].text
    print("" if streaming else answer)
