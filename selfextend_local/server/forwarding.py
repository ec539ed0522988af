"""Requests handed on to llama-server, and its answers handed back as they come.

Knows HTTP. Must not know what is asked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from .bodies import gone
from .refusals import Refused, body

_PASSED = ("content-type", "accept", "anthropic-version")
_PASSED_BACK = ("content-type", "x-accel-buffering", "retry-after")


class Behind:
    """llama-server at a socket file. seconds: that one request may take."""

    def __init__(self, socket: Path, seconds: float) -> None:
        self._seconds = seconds
        transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://llama", timeout=None)

    def answer(self, request: Request, content: bytes) -> Forwarded:
        """The answer to a request, as an application."""
        headers = {name: value for name in _PASSED if (value := request.headers.get(name)) is not None}
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return Forwarded(self._http, self._http.build_request(request.method, there, headers=headers, content=content), self._seconds)

    async def text(self, path: str) -> str:
        """What it says at a path."""
        return (await self._http.get(path)).text


class Forwarded:
    """An answer that comes from behind. It is left when its client leaves."""

    def __init__(self, http: httpx.AsyncClient, request: httpx.Request, seconds: float) -> None:
        self._http, self._request, self._seconds = http, request, seconds
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.create_task(gone(receive))
        passing = asyncio.create_task(self._pass(send))
        try:
            await asyncio.wait({left, passing}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
            elif not left.done():
                raise httpx.ReadTimeout("too late")
        except httpx.HTTPError as error:
            await self._failed(error, scope, receive, send)
        finally:
            for task in (left, passing):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _pass(self, send: Send) -> None:
        answer = await self._http.send(self._request, stream=True)
        try:
            headers = [(name.encode(), answer.headers[name].encode()) for name in _PASSED_BACK if name in answer.headers]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            self._begun = True
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()

    async def _failed(self, error: httpx.HTTPError, scope: Scope, receive: Receive, send: Send) -> None:
        if self._begun:  # what has begun can only break off
            return
        if isinstance(error, httpx.ReadTimeout):
            words = f"The answer took longer than {self._seconds:g} s: ask for less, or start with a larger --timeout."
            refused = Refused(504, "timeout", words)
        else:
            refused = Refused(503, "engine_failed", f"llama-server doesn't answer ({type(error).__name__}): ask again in a while.")
        await JSONResponse(body(refused), refused.status)(scope, receive, send)
