"""One model, many clients: who is next, and the thread that does the work.

Clients take turns, and each one's requests are answered in their order. Whoever has left is passed over, or stopped within a
micro-batch. Knows threads and an event loop. Must not know models, HTTP or what the work is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from .refusals import Refused

MOST_WAITING = 64
"""Requests that wait at once; more are refused, and may come again."""

FIRST_TURN_S = 20.0
"""Seconds after which long work lets others go first, if some wait; twice as many with each further turn, since a pause costs something."""


class Paused(Exception):
    """Raised by work that goes on when the others have had their turn."""


class Work:
    """A piece of work: `do(work)` runs in the worker's thread and tells the client what happens with `tell`. It may raise Paused where
    `should_pause` says so, and is done again later.

    client: whose turn it takes. seconds: that it may take once it has begun.
    """

    def __init__(self, client: str, do: Callable[[Work], None], seconds: float) -> None:
        self.client = client
        self._do, self._seconds = do, seconds
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._deadline = self._turn_ends = 0.0
        self._turn_s = FIRST_TURN_S
        self._others: Callable[[], bool] = lambda: False
        self._left = False
        self._closing = threading.Event()

    def tell(self, event: Any) -> None:
        """Hand the client an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def leave(self) -> None:
        """The client has gone: don't begin, or stop."""
        self._left = True

    @property
    def has_left(self) -> bool:
        return self._left

    @property
    def is_late(self) -> bool:
        """Whether its time is up."""
        return bool(self._deadline) and time.monotonic() > self._deadline

    @property
    def is_closing(self) -> bool:
        """Whether the server stops."""
        return self._closing.is_set()

    def should_stop(self) -> bool:
        """Polled by the work."""
        return self._left or self.is_closing or self.is_late

    def should_pause(self) -> bool:
        """Polled by work that can go on later."""
        return time.monotonic() > self._turn_ends and self._others()

    def stopped(self) -> Refused:
        """Why it was stopped, to a client that is still there."""
        if self.is_closing:
            return Refused(503, "server_stopping", "The server is stopping: ask again once it is back. What was read is kept.")
        return Refused(504, "timeout", f"The answer took longer than {self._seconds:g} s: ask for less, or start with a larger --timeout.")

    async def events(self) -> AsyncIterator[Any]:
        """What `tell` told, to the end. Raises what the work raised."""
        while (event := await self._events.get()) is not _END:
            if isinstance(event, BaseException):
                raise event
            yield event

    def run(self, closing: threading.Event, others: Callable[[], bool] = lambda: False) -> bool:
        """Do it, or go on with it; whether it is done. `others`: whether others wait."""
        self._closing, self._others = closing, others
        now = time.monotonic()
        self._deadline = self._deadline or now + self._seconds
        self._turn_ends = now + self._turn_s
        try:
            if closing.is_set():
                raise self.stopped()
            self._do(self)
        except Paused:
            self._turn_s *= 2
            return False
        except Exception as error:  # One request's failure must not be the end of the others.
            self.tell(error)
        self.tell(_END)
        return True


_END = object()


class Worker:
    """The thread that does all work with the model, a piece at a time.

    begin, end: run in the thread before the first and after the last piece. What `begin` raises is in `failed`.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin, self._end = begin, end
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._changed = threading.Condition()
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model")
        self.failed: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> Work:
        """Put it in line. Raises Refused if the line is full, or the server is stopping."""
        with self._changed:
            if self.closing.is_set():
                raise Refused(503, "server_stopping", "The server is stopping: ask again once it is back.")
            if self.waiting >= MOST_WAITING:
                raise Refused(503, "busy", f"{MOST_WAITING} requests are waiting already: try again in a while.")
            self._waiting.setdefault(work.client, deque()).append(work)
            self._changed.notify()
        return work

    @property
    def waiting(self) -> int:
        """Works in the line."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def withdraw(self, work: Work) -> None:
        """The client has gone: take its work out of the line, or stop it."""
        work.leave()
        with self._changed:
            line = self._waiting.get(work.client)
            if line is not None and work in line:
                line.remove(work)
                if not line:
                    del self._waiting[work.client]

    def stop(self) -> None:
        """Stop what is being done, refuse what waits, and wait until the thread has ended."""
        self.close()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """As `stop`, without waiting."""
        self.closing.set()
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self.failed = error
            self.closing.set()
        while (work := self._next()) is not None:
            if not work.run(self.closing, lambda: bool(self._waiting)):
                with self._changed:
                    self._waiting.setdefault(work.client, deque()).append(work)
        if self.failed is None:
            self._end()

    def _next(self) -> Work | None:
        with self._changed:
            while not self._waiting and not self.closing.is_set():
                self._changed.wait()
            if not self._waiting:
                return None
            client, line = self._waiting.popitem(last=False)
            work = line.popleft()
            if line:
                self._waiting[client] = line  # behind the others
            return work
