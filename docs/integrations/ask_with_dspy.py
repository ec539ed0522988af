"""dspy, about a document, from a server that runs (selfextend serve): python ask_with_dspy.py URL FILE QUESTION"""

import sys
from pathlib import Path

import dspy
import httpx

url, file, question = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

document = httpx.post(f"{url}/v1/documents", files={"file": (file.name, file.read_bytes())}, timeout=None).json()["id"]
lm = dspy.LM(
    "openai/any", api_base=f"{url}/v1", api_key="none", temperature=0, max_tokens=64, timeout=3600, cache=False,
    extra_body={"document_ids": [document]},
)  # fmt: skip


class Asked(dspy.Module):
    """The question as it is; a dspy.Signature lays it out in sections, which needs a larger model."""

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=lm(question)[0])


print(Asked()(question=question).answer)
for part in dspy.streamify(Asked(), async_streaming=False)(question=question):
    if not isinstance(part, dspy.Prediction):
        print(part.choices[0].delta.content or "", end="", flush=True)
print()
