"""What a batch came to: the table at its end.

Knows counts and seconds. Must not know how anything was done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfextend_local.batch.outcome import Result


@dataclass
class Tally:
    """Counts results as they come."""

    done: int = 0
    in_parts: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    model_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        if not result.ok:
            self.failed += 1
            return
        summary = result.summary
        self.done += 1
        self.in_parts += summary.how == "parts"
        self.prompt_tokens += summary.usage.prompt_tokens
        self.cached_tokens += summary.usage.cached_tokens
        self.completion_tokens += summary.usage.completion_tokens
        self.model_s += summary.usage.prefill_s + summary.usage.decode_s

    def lines(self, skipped: int, failed_before: int) -> list[str]:
        """The final table."""
        seconds = time.monotonic() - self.started
        tokens = self.prompt_tokens - self.cached_tokens + self.completion_tokens
        whole = f"{self.done - self.in_parts} read whole, {self.in_parts} in parts"
        before = f"{failed_before} of them errors: --retry-errors tries them again" if failed_before else ""
        rows = [
            ("done", str(self.done), whole if self.done else ""),
            ("skipped", str(skipped), before),
            ("failed", str(self.failed), ""),
            ("tokens", f"{tokens:,}", f"{self.prompt_tokens:,} read, {self.cached_tokens:,} kept; {self.completion_tokens:,} written"),
            ("time", f"{seconds:,.1f} s", f"{tokens / seconds:,.0f} tokens/s; {self.model_s:,.1f} s in the model" if seconds else ""),
        ]
        return [f"{name:<8} {value:>12}  {note}".rstrip() for name, value, note in rows]
