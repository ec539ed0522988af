"""pydantic-ai, from a server that runs (selfextend serve): python ask_with_pydantic_ai.py URL TEXT"""

import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

url, text = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")

model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none"))
print(Agent(model, model_settings={"temperature": 0, "max_tokens": 64, "timeout": 3600}).run_sync(text).output)
