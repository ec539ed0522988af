"""Who hears what a workspace does, and may stop it. This one ignores everything and stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfextend_local.engine.plan import ContextPlan

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


class Listener:
    """Hears of a workspace's work; override what you want to know."""

    def say(self, text: str) -> None:
        """A sentence that the user should know."""

    def planned(self, plan: ContextPlan) -> None:
        """The model is about to be opened with this context."""

    def progress(self, what: str, unit: str = "tokens") -> AbstractContextManager[Progress]:
        """Work that may take long begins; it tells how far it is, in `unit`, until the block ends."""
        return nullcontext(_ignored)

    def stopping(self) -> AbstractContextManager[Callable[[], bool]]:
        """Work that can be stopped begins; it asks now and then whether to, until the block ends."""
        return nullcontext(_never)


def _ignored(done: int, total: int) -> None:
    """Shows nothing."""


def _never() -> bool:
    return False
