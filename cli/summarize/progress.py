"""How a batch is watched: a line for each document, and on a terminal a bar for the one under way.

Knows terminals and the time that is left. Must not know models.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.runner import Watcher

from ..terminal import output, progress

if TYPE_CHECKING:
    from selfextend_local.batch.items import Item
    from selfextend_local.batch.outcome import Result

_SECONDS_BETWEEN_LINES = 10.0
_LEAST = 2048  # bytes; what even the smallest item counts for in the estimate


class BatchWatcher(Watcher):
    """Counts, estimates, and says what becomes of each item. Long documents weigh more in the estimate than short ones."""

    def __init__(self) -> None:
        self._weights: dict[str, int] = {}
        self._total = self._done_weight = self._done = 0
        self._started = self._last_line = time.monotonic()
        self._name = ""

    def start(self, items: Sequence[Item], skipped: int) -> None:
        self._weights = {item.custom_id: item.size + _LEAST for item in items}
        self._total = sum(self._weights.values())
        if skipped:
            self.say(f"{skipped} done already, {len(items)} to do")

    def say(self, text: str) -> None:
        output.say(text)

    def begin(self, item: Item, tokens: int) -> None:
        self._name = item.custom_id
        self._last_line = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES and done < total:
            self._last_line = now
            self.say(f"{self._name}: {done:,} of {total:,} tokens read")

    def finished(self, result: Result) -> None:
        """An item is done and recorded."""
        self._done += 1
        self._done_weight += self._weights.get(result.custom_id, 0)
        self.say(f"{self._done}/{len(self._weights)} {self._what(result)}{self._left()}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While the block writes to stdout, nothing of ours stands in its way."""
        yield

    def _what(self, result: Result) -> str:
        if isinstance(result.outcome, Failure):
            return f"failed: {result.outcome.message}"
        summary = result.outcome
        how = "whole" if summary.how == "whole" else f"{len(summary.parts)} parts"
        group = f", n={summary.ga_n}" if summary.ga_n > 1 else ""
        usage = summary.usage
        speed = (usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens) / max(1e-3, usage.prefill_s + usage.decode_s)
        return f"{result.custom_id}: {how}, {usage.prompt_tokens:,} tokens{group}, {result.seconds:.1f} s, {speed:,.0f} tokens/s"

    def _left(self) -> str:
        left = self._total - self._done_weight
        if not left or not self._done_weight:
            return ""
        seconds = (time.monotonic() - self._started) * left / self._done_weight
        return f"; about {seconds:,.0f} s left" if seconds < 120 else f"; about {seconds / 60:,.0f} min left"


class BarWatcher(BatchWatcher):
    """The same with a line below for the document under way: which one it is, and how much of it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = progress.Bar("", "tokens")

    def say(self, text: str) -> None:
        self._bar.clear()
        super().say(text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._bar.clear()
        yield

    def begin(self, item: Item, tokens: int) -> None:
        super().begin(item, tokens)
        self._bar = progress.Bar(f"{self._done + 1}/{len(self._weights)} {output.visible(item.custom_id)[-40:]}", "tokens")

    def progress(self, done: int, total: int) -> None:
        self._bar(done, total)


@contextmanager
def watching() -> Iterator[BatchWatcher]:
    """A watcher for this stderr."""
    if not sys.stderr.isatty():
        yield BatchWatcher()
        return
    with progress.keys_unseen():
        watcher = BarWatcher()
        try:
            yield watcher
        finally:
            with watcher.aside():
                pass
