"""How a model comes to have read a prompt: what is on disk of it is restored, the rest evaluated, and what is new kept.

Knows states and prefill. Must not know documents, turns or who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from selfextend_local.errors import Interrupted

if TYPE_CHECKING:
    from selfextend_local.engine.llama import Prefill, SelfExtendLlama
    from selfextend_local.sessions import StateCache
    from selfextend_local.sessions.autosave import Autosave


class PromptReader:
    """Reads prompts with one loaded model, one at a time.

    cache: where states are kept; None = nowhere.
    restored: tokens of the last prompt that came from disk.
    """

    def __init__(self, llm: SelfExtendLlama, cache: StateCache | None) -> None:
        self._llm = llm
        self._autosave = _autosave(cache, llm)
        self.restored = 0

    def read(
        self,
        prompt: Sequence[int],
        expect: int,
        titles: Sequence[str] = (),
        *,
        stops: Sequence[int] = (),
        keeps: bool = True,
        progress: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Prefill:
        """Evaluate what is neither in the cache nor on disk. `expect` and `stops` as for `SelfExtendLlama.prefill`; `titles` of
        documents, for lists of what is saved. `keeps`: save now and then, and at a stop.

        Raises ContextOverflow, Interrupted.
        """
        if self._autosave:
            self.restored = self._autosave.restore(prompt, expect, titles)
            if keeps:
                progress = self._autosave.checkpointing(progress, should_stop)
        try:
            return self._llm.prefill(prompt, progress=progress, should_stop=should_stop, expect=expect, stops=stops)
        except Interrupted:
            if keeps:
                self.keep()
            raise

    def keep(self) -> None:
        """Begin to save what the cache holds, if enough of it is new. Returns at once."""
        if self._autosave:
            self._autosave.save()

    def flush(self) -> None:
        """Wait until what is to be saved is on disk."""
        if self._autosave:
            self._autosave.wait()

    def forget(self) -> None:
        """Empty the cache; what it held is new from now on."""
        self.flush()
        self._llm.reset()  # type: ignore[no-untyped-call]
        if self._autosave:
            self._autosave.forget()


def _autosave(cache: StateCache | None, llm: SelfExtendLlama) -> Autosave | None:
    if cache is None:
        return None
    from selfextend_local.sessions.autosave import Autosave

    return Autosave(cache, llm)
