"""What comes in and goes out over one connection: bodies within limits, streams of events, and a client that leaves.

Knows ASGI. Must not know routes, models or documents.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from .refusals import Refused, body, refusal
from .turns import Work, Worker

SECONDS_OF_SILENCE = 60.0
"""A client that sends nothing of its body for so long is refused."""

_PULSE_S = 15.0  # between signs of life to a client that waits


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


def within(request: Request, most_bytes: int, flag: str) -> Request:
    """The request, whose body is refused where it is larger or doesn't come. `flag` raises the limit."""
    words = f"The body has more than {most_bytes:,} bytes: send less, or start the server with a larger {flag}."
    refused = Refused(413, "too_large", words)
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 18 or int(stated) > most_bytes:
        raise refused
    received = 0

    async def receive() -> Message:
        nonlocal received
        try:
            message = await asyncio.wait_for(request.receive(), SECONDS_OF_SILENCE)
        except asyncio.TimeoutError:
            raise Refused(408, "timeout", f"The body didn't come: nothing for {SECONDS_OF_SILENCE:g} s. Send it again.") from None
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise refused
        return message

    return Request(request.scope, receive)


async def whole_body(request: Request, most_bytes: int, flag: str) -> bytes:
    """The body. Raises Refused; ClientLeft."""
    limited = within(request, most_bytes, flag)
    found = bytearray()
    async for chunk in limited.stream():
        found += chunk
    return bytes(found)


async def events_of(worker: Worker, work: Work, receive: Receive) -> AsyncIterator[Any]:
    """What a work tells while its client is there; None now and then while there is nothing. The work is withdrawn when the client
    leaves, or this is closed. Raises what the work raised, and ClientLeft."""
    leaving = asyncio.create_task(gone(receive))
    events = work.events()
    following: asyncio.Task[Any] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events, _END))
            await asyncio.wait({following, leaving}, timeout=_PULSE_S, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                raise ClientLeft
            if following.done():
                event, following = following.result(), None
                if event is _END:
                    return
                yield event
            else:
                yield None
    finally:
        worker.withdraw(work)
        for task in (leaving, following):
            if task is not None and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


_END = object()


async def gone(receive: Receive) -> None:
    """Until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """An answer as events (text/event-stream): each item is a line of JSON, named by its type if it has one; None is a sign of life.

    ended: the last line, if any. failed: what an error's line holds.
    """

    def __init__(
        self, items: AsyncIterator[dict[str, Any] | None], ended: str | None = None, failed: Callable[[Refused], dict[str, Any]] = body
    ) -> None:
        self._items, self._ended, self._failed = items, ended, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with suppress(ClientLeft):
            async with aclosing(self._lines()) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await send({"type": "http.response.body", "body": line, "more_body": True})
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _lines(self) -> AsyncIterator[bytes]:
        try:
            async for item in self._items:
                yield b": waiting\n\n" if item is None else _line(item)
        except ClientLeft:
            raise
        except Exception as error:
            yield _line(self._failed(refusal(error)))
            return
        if self._ended is not None:
            yield f"data: {self._ended}\n\n".encode()


def _line(item: dict[str, Any]) -> bytes:
    name = f"event: {item['type']}\n".encode() if "type" in item else b""
    return name + b"data: " + json.dumps(item, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
