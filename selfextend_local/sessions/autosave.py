"""Keeps the state of one chat on disk, out of the user's way.

A state is restored before a prefill and saved after the answer, while the user reads and types: in a thread of its
own, which streams the state to the file and touches nothing else. During a long prefill it is saved now and then, so
that a killed one goes on from there. Whoever evaluates tokens calls `wait` first.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfextend_local.engine.cuts import common_prefix

from .state_file import StateInfo, Tokens
from .states import StateCache

if TYPE_CHECKING:
    from selfextend_local.engine.llama import Progress, SelfExtendLlama

WORTH_TOKENS = 512
"""A state is saved when at least that many of its tokens are on no disk yet: one micro-batch, seconds of prefill."""

CHECKPOINT_SECONDS = 20.0
"""The least time between two checkpoints, and so what a kill costs at most on a fast disk. Each writes the whole state."""

CHECKPOINT_SHARE = 0.05
"""The share of a prefill's time that its checkpoints may take: a slow disk gets fewer."""

_POLL_SECONDS = 0.05


class Autosave:
    """Restores and saves for one chat.

    Args:
        cache: where the states are; its notes tell what went wrong.
        llm: the model of the chat.
    """

    def __init__(self, cache: StateCache, llm: SelfExtendLlama) -> None:
        self._cache = cache
        self._llm = llm
        self._info = StateInfo(llm.info.name)
        self._saved: Tokens = np.empty(0, np.int32)
        self._write_seconds = 0.0
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "selfextend-save")
        self._writing: concurrent.futures.Future[None] | None = None

    def restore(self, tokens: Sequence[int], expect: int, documents: Sequence[str]) -> int:
        """Load what is on disk of a prompt that is to be evaluated; returns how many tokens that saves.

        documents: their titles, for lists of what is saved.
        """
        self.wait()
        self._info = StateInfo(self._llm.info.name, tuple(documents))
        restored = self._cache.restore(self._llm, tokens, expect=expect)
        if restored:
            self._saved = self._llm.cached_tokens()
        return restored

    def checkpointing(self, progress: Progress | None, should_stop: Callable[[], bool] | None) -> Progress:
        """A progress callback for the prefill that saves the state when it is time to."""
        last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            if progress:
                progress(done, total)
            spacing = max(CHECKPOINT_SECONDS, self._write_seconds / CHECKPOINT_SHARE)
            if done < total and time.monotonic() - last >= spacing:
                self.save()
                self.wait(should_stop)
                last = time.monotonic()

        return report

    def save(self) -> None:
        """Begin to save the state, if enough of it is new. Returns at once."""
        self.wait()
        tokens = self._llm.cached_tokens()
        if len(tokens) - common_prefix(self._saved, tokens) >= WORTH_TOKENS:
            self._llm.being_saved.acquire()
            try:
                self._writing = self._writer.submit(self._write, tokens)
            except BaseException:
                self._llm.being_saved.release()
                raise

    def forget(self) -> None:
        """The states were removed: what they held is to be saved again."""
        self.wait()
        self._saved = np.empty(0, np.int32)

    def wait(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Until nothing is being saved, or `should_stop` says so; then the saving goes on by itself."""
        while self._writing is not None:
            done, _ = concurrent.futures.wait([self._writing], _POLL_SECONDS)
            if done:
                self._writing = None
                done.pop().result()
            elif should_stop is not None and should_stop():
                return

    def _write(self, tokens: Tokens) -> None:
        started = time.monotonic()
        try:
            if self._cache.save(self._llm, info=self._info):
                self._saved = tokens
        finally:
            self._llm.being_saved.release()
        self._write_seconds = time.monotonic() - started
