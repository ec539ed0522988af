"""What a person sees of a workspace's work: sentences and progress on stderr, events on stdout; and Ctrl-C."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from selfextend_local.chat.listener import Listener, Progress

from ..terminal import interrupts, output, progress
from . import events

if TYPE_CHECKING:
    from selfextend_local.engine.plan import ContextPlan

    from .options import Options


class SayingListener(Listener):
    """Says sentences on stderr, and nothing else."""

    def say(self, text: str) -> None:
        output.say(text)


class ConsoleListener(SayingListener):
    """Says everything on the console; nothing but sentences where stdout is read by a program."""

    def __init__(self, options: Options) -> None:
        self._quiet, self._as_events = options.for_programs, options.as_events

    def planned(self, plan: ContextPlan) -> None:
        output.say(plan.describe())
        if self._as_events:
            events.planned(plan)

    def progress(self, what: str, unit: str = "tokens") -> AbstractContextManager[Progress]:
        return progress.progress(what, unit, quiet=self._quiet)

    def stopping(self) -> interrupts.StopOnInterrupt:
        return interrupts.StopOnInterrupt()
