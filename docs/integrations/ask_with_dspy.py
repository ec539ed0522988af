"""dspy, from a server that runs (selfextend serve): python ask_with_dspy.py URL TEXT"""

import sys
from pathlib import Path

import dspy

url, text = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")

lm = dspy.LM("openai/any", api_base=f"{url}/v1", api_key="none", temperature=0, max_tokens=64, timeout=3600, cache=False)
print(lm(text)[0])
