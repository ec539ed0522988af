"""One HTTP exchange that a server can't prolong, redirect or blow up. Knows httpx. Must not know what is asked.

The limit on time counts from the name's look-up to the last byte, and a stop is heard while anything is waited for. Redirects
aren't followed, so that a key reaches the host that it was meant for and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from selfextend_local.errors import Interrupted

_POLL_S = 0.1


class ExchangeError(Exception):
    """No whole answer came; trying again may help."""


@dataclass(frozen=True)
class Reply:
    """What came: `content` is undecoded, since a compressed one could unpack to any size."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def exchange(
    url: str, body: Any, headers: Mapping[str, str], *, most_bytes: int, limit_s: float, should_stop: Callable[[], bool] | None = None
) -> Reply:
    """GET, or POST of `body` as JSON if it isn't None.

    Raises ExchangeError, Interrupted at a stop, and httpx.InvalidURL.
    """
    return asyncio.run(_bounded(_exchange(url, body, headers, most_bytes), limit_s, should_stop))


async def _bounded(work: Any, limit_s: float, should_stop: Callable[[], bool] | None) -> Reply:
    task = asyncio.ensure_future(work)
    until = time.monotonic() + limit_s
    try:
        while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
            if should_stop and should_stop():
                raise Interrupted("Stopped while the server was asked.", 0)
            if time.monotonic() > until:
                raise ExchangeError(f"no whole answer in {limit_s:,.0f} s")
        reply: Reply = task.result()
        return reply
    except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
        raise ExchangeError(str(error) or type(error).__name__) from error
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _exchange(url: str, body: Any, headers: Mapping[str, str], most_bytes: int) -> Reply:
    async with httpx.AsyncClient(timeout=None, follow_redirects=False) as client:
        method = "GET" if body is None else "POST"
        async with client.stream(method, url, json=body, headers={**headers, "Accept-Encoding": "identity"}) as response:
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > most_bytes:
                    raise ExchangeError(f"its answer is longer than {most_bytes >> 20} MiB")
            return Reply(response.status_code, response.headers, bytes(content))
