"""pydantic-ai, about a document, from a server that runs (selfextend serve): python ask_with_pydantic_ai.py URL FILE QUESTION"""

import sys
from pathlib import Path

import httpx
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))
settings = {"temperature": 0, "max_tokens": 64, "timeout": 3600, "extra_body": {"document_ids": [document]}}
agent = Agent(model, model_settings=settings)
print(agent.run_sync(question).output)
for text in agent.run_stream_sync(question).stream_text(delta=True):
    print(text, end="", flush=True)
print()
