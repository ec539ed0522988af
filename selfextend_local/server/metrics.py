"""What the server has done so far, in Prometheus's text format. Must not know HTTP."""

from __future__ import annotations

import threading

from selfextend_local.chat.conversation import TurnStats

_HELP = {
    "answers_total": "Answers that were completed.",
    "prompt_tokens_total": "Tokens of their prompts.",
    "evaluated_tokens_total": "Tokens of prompts that were neither in the cache nor on disk.",
    "completion_tokens_total": "Tokens of the answers.",
    "prefill_seconds_total": "Seconds of reading prompts.",
    "decode_seconds_total": "Seconds of writing answers.",
    "requests_waiting": "Requests that wait for the model.",
    "context_tokens": "Tokens that the context holds.",
}


class Metrics:
    """Counts, from any thread. capacity: tokens that the context holds."""

    def __init__(self, capacity: int) -> None:
        self._values: dict[str, float] = {name: 0.0 for name in _HELP} | {"context_tokens": capacity}
        self._lock = threading.Lock()

    def count(self, stats: TurnStats) -> None:
        """An answer more."""
        took: dict[str, float] = {
            "answers_total": 1,
            "prompt_tokens_total": stats.prompt_tokens,
            "evaluated_tokens_total": stats.evaluated_tokens,
            "completion_tokens_total": stats.completion_tokens,
            "prefill_seconds_total": stats.prefill_s,
            "decode_seconds_total": (stats.completion_tokens - 1) / stats.decode_tps if stats.decode_tps else 0,
        }
        with self._lock:
            for name, value in took.items():
                self._values[name] += value

    def text(self, waiting: int) -> str:
        """All of it."""
        with self._lock:
            values = self._values | {"requests_waiting": waiting}
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP selfextend_{name} {_HELP[name]}", f"# TYPE selfextend_{name} {kind}", f"selfextend_{name} {value:.15g}"]
        return "\n".join(lines) + "\n"
