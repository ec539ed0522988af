"""Who may ask: a key, the name that the server is called by, and the page that a browser asks from.

A page of another site that resolves to this machine (DNS rebinding) has a Host of its own, and one that posts here an Origin of its own:
both are refused. Knows headers. Must not know routes beyond those that are open.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Refused, body

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/", "/page.js", "/page.css", "/health")
"""What needs no key."""

_SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """What is asked of a request.

    host: that the server listens on. key: that everything but OPEN needs; None = none. names: more host names that the server
    is called by. origins: of other sites whose pages may ask, such as https://example.org.
    """

    host: str = "127.0.0.1"
    key: str | None = None
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    def host_fits(self, header: str) -> bool:
        """Whether a Host header names this server. Any name does where it listens to all addresses, since that needs the key."""
        name = _name(header)
        return name is not None and (_is_any(self.host) or name in {*_LOOPBACK, self.host.lower(), *(n.lower() for n in self.names)})

    def origin_fits(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may ask the server that it calls `host`."""
        return origin in self.origins or origin.partition("://")[2].lower() == host.lower()

    def key_fits(self, headers: Headers) -> bool:
        """Whether the key is among them, OpenAI's way or Anthropic's."""
        if self.key is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        found = (given if scheme.lower() == "bearer" else "", headers.get("x-api-key", ""))
        return any(hmac.compare_digest(one.strip().encode(), self.key.encode()) for one in found)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _name(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


class Guard:
    """Refuses what `Access` doesn't allow, and makes every answer harmless to a browser."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = _cors(origin) if origin in self._access.origins else {}

        async def harmless(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in (_SAFE | allowed).items():
                    sent.setdefault(name, value)
            await send(message)

        if (refused := self._refused(scope, headers, origin)) is not None:
            extra = {"www-authenticate": "Bearer"} if refused.status == 401 else {}
            await JSONResponse(body(refused), refused.status, extra)(scope, receive, harmless)
        elif scope["method"] == "OPTIONS" and allowed:
            await Response(status_code=204)(scope, receive, harmless)
        else:
            await self._app(scope, receive, harmless)

    def _refused(self, scope: Scope, headers: Headers, origin: str | None) -> Refused | None:
        access, hosts = self._access, headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not access.host_fits(host):
            return Refused(403, "wrong_host", f"This server isn't called {host!r}: start it with --allow-host to give it more names.")
        if origin is not None and not access.origin_fits(origin, host):
            return Refused(403, "wrong_origin", f"Pages of {origin} may not ask: start the server with --allow-origin to let them.")
        if scope["method"] != "OPTIONS" and scope["path"] not in OPEN and not access.key_fits(headers):
            return Refused(401, "invalid_api_key", "The API key is missing or wrong: send Authorization: Bearer KEY.")
        return None




def _cors(origin: str | None) -> dict[str, str]:
    return {
        "access-control-allow-origin": origin or "",
        "access-control-allow-headers": "authorization, content-type, accept, x-api-key, anthropic-version",
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-expose-headers": "x-marked",
        "cross-origin-resource-policy": "cross-origin",
        "vary": "origin",
    }
