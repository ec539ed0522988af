"""The routes: which request gets which answer.

Knows HTTP and who does the work. Everything that takes long is done in threads; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from selfextend_local.generation.grammar import grammar_of
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.thinking import Part

from .bodies import ClientLeft, EventStream, events_of, whole_body
from .completions import Completion
from .guard import Access, Guard
from .model import Finished, Prepared, Reading, ServedModel
from .refusals import Refused, body, refusal
from .requests import ChatRequest, chat_request, parsed
from .turns import Work, Worker

Endpoint = Callable[[Request], Awaitable[ASGIApp]]

_PAGE = Path(__file__).with_name("page")
_CLIENT_CLOSED = 499


@dataclass(frozen=True)
class Limits:
    """What one request may cost: bytes of a question and of a document, seconds of the model's time, tokens of an answer that doesn't
    say how long it may be."""

    body_bytes: int = 16 << 20
    upload_bytes: int = 256 << 20
    seconds: float = 3600.0
    max_tokens: int = 2048


class App:
    """The application: `asgi` is what a server runs."""

    def __init__(self, model: ServedModel, worker: Worker, access: Access, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._model, self._worker, self._limits = model, worker, limits
        self._started = int(time.time())
        routes = [
            self._route("/health", self._health, "GET"),
            self._route("/v1/models", self._models, "GET"),
            self._route("/v1/models/{name:path}", self._one_model, "GET"),
            self._route("/v1/chat/completions", self._chat, "POST"),
            self._route("/", partial(_file, "page.html"), "GET"),
            self._route("/page.js", partial(_file, "page.js"), "GET"),
            self._route("/page.css", partial(_file, "page.css"), "GET"),
        ]
        handlers: Any = {404: _no_route, 405: _no_method}
        self.asgi: ASGIApp = Guard(Starlette(routes=routes, exception_handlers=handlers), access)

    def _route(self, path: str, endpoint: Endpoint, method: str) -> Route:
        return Route(path, _Answered(endpoint), methods=[method])

    def _ready(self) -> ServedModel:
        if not self._model.loaded.is_set():
            raise Refused(503, "loading", "The model is being loaded: ask again in a while.")
        return self._model

    async def _health(self, request: Request) -> ASGIApp:
        ready = self._model.loaded.is_set()
        return JSONResponse({"status": "ok" if ready else "loading"}, 200 if ready else 503)

    async def _models(self, request: Request) -> ASGIApp:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _one_model(self, request: Request) -> ASGIApp:
        if (name := request.path_params["name"]) != self._model.name:
            raise Refused(404, "model_not_found", f"There is no model {name!r} here, only {self._model.name!r}.", "model")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        plan = self._model.plan
        ours = {"plan": plan.describe(), "n_ctx": plan.capacity, "trained_window": plan.n_ctx_train}
        return {"id": self._model.name, "object": "model", "created": self._started, "owned_by": "selfextend-local", "selfextend": ours}

    async def _chat(self, request: Request) -> ASGIApp:
        model = self._ready()
        data = await whole_body(request, self._limits.body_bytes, "--max-body")
        asked, prompt = await asyncio.to_thread(self._understood, model, data)
        completion = Completion(model.name, wants_usage=asked.wants_usage)
        work = Work(_client(request), lambda work: model.answer(work, prompt, asked.sampling), self._limits.seconds)
        events = events_of(self._worker, self._worker.submit(work), request.receive)
        if asked.streams:
            return EventStream(self._chunks(events, completion, asked), "[DONE]")
        shown: list[Part] = []
        async for event in events:
            if isinstance(event, Part):
                shown.append(event)
            elif isinstance(event, Finished):
                answer = completion.whole(shown, event.stats, ())
        return JSONResponse(answer)

    def _understood(self, model: ServedModel, data: bytes) -> tuple[ChatRequest, Prepared]:
        asked = chat_request(parsed(data), replace(Sampling(), max_tokens=self._limits.max_tokens))
        try:
            grammar_of(asked.sampling.schema)
        except Exception as error:
            raise Refused(400, "invalid_value", str(error), "response_format") from error
        return asked, model.prepared(asked.messages, asked.sampling.max_tokens)

    async def _chunks(
        self, events: AsyncIterator[Any], completion: Completion, asked: ChatRequest
    ) -> AsyncIterator[dict[str, Any] | None]:
        yield completion.opening()
        async for event in events:
            if event is None:
                yield None
            elif isinstance(event, Part):
                yield completion.piece(event)
            elif isinstance(event, Reading) and asked.wants_progress:
                yield completion.progress(event)
            elif isinstance(event, Finished):
                for chunk in completion.closing(event.stats, ()):
                    yield chunk


class _Answered:
    """An endpoint as an application; what goes wrong is an answer."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            answer = await self._endpoint(Request(scope, receive))
        except (ClientLeft, ClientDisconnect):
            answer = Response(status_code=_CLIENT_CLOSED)
        except Exception as error:
            refused = refusal(error)
            answer = JSONResponse(body(refused), refused.status, {"retry-after": "5"} if refused.status == 503 else {})
        await answer(scope, receive, send)


async def _file(name: str, request: Request) -> ASGIApp:
    return FileResponse(_PAGE / name, headers={"cache-control": "no-cache"})


async def _no_route(request: Request, error: Exception) -> Response:
    return JSONResponse(body(Refused(404, "not_found", f"There is no {request.url.path} here.")), 404)


async def _no_method(request: Request, error: Exception) -> Response:
    return JSONResponse(body(Refused(405, "method_not_allowed", f"{request.url.path} doesn't take {request.method}.")), 405)


def _client(request: Request) -> str:
    return request.client.host if request.client else ""
