"""Results: a summary or a failure for each item, and their form as OpenAI batch result lines.

A failure is a value, never an exception. What OpenAI's format has no place for stands under `selfextend`.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from selfextend_local.errors import ContextOverflow, SelfExtendError
from selfextend_local.storage.plain_json import loads
from selfextend_local.summarize import Part, Summary, Usage


@dataclass(frozen=True)
class Failure:
    """Why an item has no summary: a code for programs, and a sentence with the next step for people."""

    code: str
    message: str


def failure(error: Exception) -> Failure:
    """The failure that stands for an exception, e.g. code "document_encrypted" for DocumentEncrypted."""
    if isinstance(error, ContextOverflow):
        return Failure("context_length_exceeded", str(error))
    if isinstance(error, SelfExtendError):
        return Failure(re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower(), str(error))
    return Failure("internal_error", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Result:
    """What became of one item.

    Attributes:
        key: the hash of input, instruction, model and settings.
        seconds: of work on this item, reading included.
    """

    custom_id: str
    key: str
    outcome: Summary | Failure
    model: str = ""
    title: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return isinstance(self.outcome, Summary)

    @property
    def summary(self) -> Summary:
        """The summary. Raises ValueError for a failure."""
        if isinstance(self.outcome, Summary):
            return self.outcome
        raise ValueError(f"{self.custom_id} failed: {self.outcome.message}")

    def to_line(self) -> str:
        """An OpenAI batch result line, without the line break."""
        own: dict[str, Any] = {"key": self.key}
        line: dict[str, Any] = {"id": f"batch_req_{self.key[:24]}", "custom_id": self.custom_id, "response": None, "error": None}
        if isinstance(self.outcome, Failure):
            line["error"] = asdict(self.outcome)
        else:
            line["response"] = {"status_code": 200, "request_id": f"req_{self.key[:24]}", "body": self._body(self.outcome)}
            own |= self._details(self.outcome)
        own["seconds"] = round(self.seconds, 3)
        text = json.dumps(line | {"selfextend": own}, ensure_ascii=False)
        # Legal in JSON, but many programs end a line at them; lone surrogates come from file names that are no UTF-8.
        return re.sub("[\x85\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)

    def _body(self, summary: Summary) -> dict[str, Any]:
        usage = summary.usage
        return {
            "id": f"chatcmpl-{self.key[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": summary.text},
                    "logprobs": None,
                    "finish_reason": summary.finish,
                }
            ],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            },
        }

    def _details(self, summary: Summary) -> dict[str, Any]:
        return {
            "title": self.title,
            "how": summary.how,
            "pages": summary.pages,
            "parts": [{"first_page": p.first, "last_page": p.last, "text": p.text} for p in summary.parts],
            "ga_n": summary.ga_n,
            "ga_w": summary.ga_w,
            "ga_mode": summary.ga_mode,
            "prefill_s": round(summary.usage.prefill_s, 3),
            "decode_s": round(summary.usage.decode_s, 3),
        }


def from_line(line: str) -> Result:
    """The inverse of `to_line`. Raises ValueError if the line is none of ours."""
    try:
        data = loads(line)
        own = data["selfextend"]
        common: dict[str, Any] = {"custom_id": str(data["custom_id"]), "key": str(own["key"]), "seconds": float(own["seconds"])}
        if data["error"] is not None:
            return Result(outcome=Failure(data["error"]["code"], data["error"]["message"]), **common)
        body = data["response"]["body"]
        return Result(outcome=_summary(body, own), model=body["model"], title=own["title"], **common)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"not a result line ({error})") from error


def _summary(body: dict[str, Any], own: dict[str, Any]) -> Summary:
    counts, choice = body["usage"], body["choices"][0]
    usage = Usage(
        counts["prompt_tokens"],
        counts["prompt_tokens_details"]["cached_tokens"],
        counts["completion_tokens"],
        own["prefill_s"],
        own["decode_s"],
    )
    parts = tuple(Part(p["first_page"], p["last_page"], p["text"]) for p in own["parts"])
    group = (own["ga_n"], own["ga_w"], own.get("ga_mode", "two-level"))  # rows of earlier versions have none
    return Summary(choice["message"]["content"], own["how"], parts, own["pages"], usage, choice["finish_reason"], *group)
