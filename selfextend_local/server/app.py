"""The routes: which request gets which answer.

Knows HTTP and who does the work. Everything that takes long is done in threads; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from selfextend_local.documents import Document
from selfextend_local.documents.marking import Marked
from selfextend_local.documents.reader import Reader, ReadLimits
from selfextend_local.engine.grammar import grammar_of
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.thinking import Part

from .bodies import ClientLeft, EventStream, events_of, whole_body, within
from .citing import boxes_of, citations_of, looked_pages
from .completions import CHAT, TEXT
from .forms import Answered, Dialect, Event, Form
from .forwarding import Behind
from .guard import Access, Guard
from .intake import Intake, copied, event
from .messages import MESSAGES
from .metrics import Metrics
from .model import Finished, Prepared, Reading, ServedModel
from .refusals import Refused, body, refusal, wrong
from .requests import ChatRequest, check_constraints, parsed
from .responses import RESPONSES
from .shelf import Kept, Shelf, safe_name
from .turns import Work, Worker

Endpoint = Callable[[Request], Awaitable[ASGIApp]]

_PAGE = Path(__file__).with_name("page")
_CLIENT_CLOSED = 499
_BEHIND = ("/tokenize", "/detokenize", "/apply-template", "/infill", "/props", "/slots")
_MOST_TEXTS = 64  # marked on one page
_NARROWEST = 50  # pixels


@dataclass(frozen=True)
class Limits:
    """What one request may cost: bytes of a question and of a document, seconds of the model's time, tokens of an answer that doesn't
    say how long it may be; and what the reading of a file may."""

    body_bytes: int = 16 << 20
    upload_bytes: int = 256 << 20
    seconds: float = 3600.0
    max_tokens: int = 2048
    reading: ReadLimits = field(default_factory=ReadLimits)


class App:
    """The application: `asgi` is what a server runs; `close` it after that.

    ocr: whether the text of scanned pages is recognised. behind: answers whatever is asked without documents; None = the model does.
    """

    def __init__(
        self,
        model: ServedModel,
        worker: Worker,
        shelf: Shelf,
        access: Access,
        limits: Limits,
        *,
        ocr: bool = False,
        behind: Behind | None = None,
    ) -> None:
        self._model, self._worker, self._shelf, self._limits, self._behind = model, worker, shelf, limits, behind
        self._intake = Intake(model, worker, shelf, limits.reading, ocr=ocr, seconds=limits.seconds)
        self._painter, self._painting = Reader(limits.reading), threading.Lock()
        self._started, self._metrics = int(time.time()), Metrics(model.capacity)
        routes = [
            self._route("/health", self._health, "GET"),
            self._route("/v1/models", self._models, "GET"),
            self._route("/v1/models/{name:path}", self._one_model, "GET"),
            self._route("/v1/chat/completions", self._answers(CHAT), "POST"),
            self._route("/v1/completions", self._answers(TEXT), "POST"),
            self._route("/v1/responses", self._answers(RESPONSES), "POST"),
            self._route("/v1/messages", self._answers(MESSAGES), "POST", MESSAGES.failed),
            self._route("/v1/messages/count_tokens", self._count, "POST", MESSAGES.failed),
            self._route("/v1/embeddings", self._embeddings, "POST"),
            self._route("/metrics", self._figures, "GET"),
            self._route("/v1/documents", self._upload, "POST"),
            self._route("/v1/documents", self._documents, "GET"),
            self._route("/v1/documents/{id}", self._document, "GET"),
            self._route("/v1/documents/{id}", self._remove, "DELETE"),
            self._route("/v1/documents/{id}/pages/{number}.png", self._picture, "GET"),
            self._route("/v1/documents/{id}/pages/{number}", self._page, "GET"),
            self._route("/", partial(_file, "index.html"), "GET"),
            self._route("/page.js", partial(_file, "page.js"), "GET"),
            self._route("/page.css", partial(_file, "page.css"), "GET"),
        ]
        if behind is not None:
            routes += [self._route("/{path:path}", self._other, method) for method in ("GET", "POST")]
        handlers: Any = {404: _no_route, 405: _no_method}
        self.asgi: ASGIApp = Guard(Starlette(routes=routes, exception_handlers=handlers), access)

    def _route(self, path: str, endpoint: Endpoint, method: str, failed: Callable[[Refused], dict[str, Any]] = body) -> Route:
        return Route(path, _Answering(endpoint, failed), methods=[method])

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

    def _answers(self, dialect: Dialect) -> Endpoint:
        """The endpoint that answers in a dialect."""

        async def endpoint(request: Request) -> ASGIApp:
            model = self._ready()
            data = await whole_body(request, self._limits.body_bytes, "--max-body")
            if (answer := await self._elsewhere(request, data)) is not None:
                return answer
            asked, documents, prompt = await asyncio.to_thread(self._understood, model, dialect, data)
            form = dialect.form(model.name, asked)
            work = Work(_client(request), lambda work: model.answers(work, prompt, asked.sampling, asked.n), self._limits.seconds)
            told = self._told(events_of(self._worker, self._worker.submit(work), request.receive), documents)
            if asked.streams:
                return EventStream(_events(told, form), form.last_line, dialect.failed)
            return JSONResponse(form.whole([answer async for answer in told if isinstance(answer, Answered)]))

        return endpoint

    async def _elsewhere(self, request: Request, data: bytes) -> ASGIApp | None:
        """The answer of llama-server, to what is asked without documents."""
        if self._behind is None:
            return None
        body = await asyncio.to_thread(parsed, data)
        if body.get("document_ids"):
            return None
        await asyncio.to_thread(check_constraints, body)
        return self._behind.answer(request, data)

    def _understood(self, model: ServedModel, dialect: Dialect, data: bytes) -> tuple[ChatRequest, dict[str, Document], Prepared]:
        asked = dialect.understood(parsed(data), replace(Sampling(), max_tokens=self._limits.max_tokens))
        try:
            grammar_of(asked.sampling.schema)
        except Exception as error:
            raise Refused(400, "invalid_value", str(error), "response_format") from error
        if asked.text is not None:
            return asked, {}, model.prepared_text(asked.text, asked.sampling.max_tokens)
        documents = {id: self._shelf.document(id) for id in asked.document_ids}
        return asked, documents, model.prepared(asked.messages, asked.sampling.max_tokens, list(documents.values()))

    async def _told(
        self, events: AsyncIterator[Any], documents: dict[str, Document]
    ) -> AsyncIterator[Part | Reading | Answered | None]:
        """What the model tells; at the end of an answer the whole of it, with its citations."""
        shown: list[Part] = []
        async for told in events:
            if isinstance(told, Finished):
                citations = await asyncio.to_thread(citations_of, told.text, documents, self._places)
                self._metrics.count(told.stats)
                yield Answered(tuple(shown), told.stats, told.ended_by, citations, looked_pages(told.looked, documents))
                shown = []
            else:
                if isinstance(told, Part):
                    shown.append(told)
                yield told

    async def _count(self, request: Request) -> ASGIApp:
        model = self._ready()
        data = await whole_body(request, self._limits.body_bytes, "--max-body")
        if (answer := await self._elsewhere(request, data)) is not None:
            return answer
        _, _, prompt = await asyncio.to_thread(self._understood, model, MESSAGES, data)
        return JSONResponse({"input_tokens": len(prompt.tokens)})

    async def _embeddings(self, request: Request) -> ASGIApp:
        raise Refused(
            501, "unsupported", "Embeddings aren't computed here: a chat model's are of little use. Take a server with an embedding model."
        )

    async def _figures(self, request: Request) -> ASGIApp:
        text = self._metrics.text(self._worker.waiting)
        if self._behind is not None:
            text += await self._behind.text("/metrics")
        return Response(text, media_type="text/plain; version=0.0.4")

    async def _other(self, request: Request) -> ASGIApp:
        """What llama-server alone has."""
        path = request.url.path
        if self._behind is None or not (path.startswith("/v1/") or path in _BEHIND):
            raise _nothing_at(path)
        self._ready()
        data = await whole_body(request, self._limits.body_bytes, "--max-body")
        if data:
            await asyncio.to_thread(lambda: check_constraints(parsed(data)))
        return self._behind.answer(request, data)

    async def _upload(self, request: Request) -> ASGIApp:
        self._ready()
        folder = tempfile.TemporaryDirectory(prefix="selfextend-")
        try:
            file = await self._received(request, Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        stages = self._stages(request, file, folder)
        if "text/event-stream" in request.headers.get("accept", ""):
            return EventStream(stages, failed=lambda refused: {"stage": "error"} | body(refused))
        async for stage in stages:
            if stage is not None and stage["stage"] == "done":
                return JSONResponse(stage["document"], 201)
        raise ClientLeft

    async def _received(self, request: Request, folder: Path) -> Path:
        """The file of a form, in a folder."""
        try:
            async with within(request, self._limits.upload_bytes, "--max-upload").form(max_files=1, max_fields=20) as form:
                upload = form.get("file")
                if not isinstance(upload, UploadFile):
                    raise wrong("file", "The form has no file: send multipart/form-data with a field named file.")
                return await asyncio.to_thread(copied, upload.file, folder / safe_name(upload.filename or ""))
        except HTTPException as error:
            raise wrong("file", f"The form can't be read ({error.detail}): send multipart/form-data with a field named file.") from error

    async def _stages(
        self, request: Request, file: Path, folder: tempfile.TemporaryDirectory[str]
    ) -> AsyncIterator[dict[str, Any] | None]:
        try:
            async for stage in self._intake.take(file, _client(request), request.receive):
                yield None if stage is None else event(stage)
        finally:
            folder.cleanup()

    async def _documents(self, request: Request) -> ASGIApp:
        self._ready()
        found = await asyncio.to_thread(lambda: [self._counted(kept).described() for kept in self._shelf.all()])
        return JSONResponse({"object": "list", "data": found})

    async def _document(self, request: Request) -> ASGIApp:
        self._ready()
        kept = await asyncio.to_thread(lambda: self._counted(self._shelf.get(request.path_params["id"])))
        return JSONResponse(kept.described())

    def _counted(self, kept: Kept) -> Kept:
        """With the tokens of the model at hand."""
        if kept.model == self._model.name:
            return kept
        document = self._shelf.document(kept.id)
        kept = replace(kept, model=self._model.name, tokens=self._model.document_size(document))
        with suppress(OSError):
            self._shelf.note(kept)
        return kept

    async def _remove(self, request: Request) -> ASGIApp:
        model, id = self._ready(), request.path_params["id"]

        def remove() -> None:
            kept = self._shelf.get(id)
            with suppress(Refused):
                model.forget(self._shelf.document(id))
            self._shelf.remove(kept)

        await asyncio.to_thread(remove)
        return JSONResponse({"id": id, "object": "document", "deleted": True})

    async def _page(self, request: Request) -> ASGIApp:
        document = await asyncio.to_thread(self._shelf.document, request.path_params["id"])
        number = _page_number(request, document.page_count)
        page = document.pages[number - 1]
        return JSONResponse({"page": number, "label": page.label, "text": page.text})

    async def _picture(self, request: Request) -> ASGIApp:
        kept = await asyncio.to_thread(self._shelf.get, request.path_params["id"])
        if not kept.has_pictures:
            raise Refused(404, "no_picture", f"{kept.filename} is no PDF, so its pages have no picture: ask for the text.")
        number = _page_number(request, kept.n_pages)
        texts = request.query_params.getlist("find")
        if len(texts) > _MOST_TEXTS:
            raise wrong("find", f"There are {len(texts):,} texts to find, and {_MOST_TEXTS} are the most: ask for some of them.")
        found = await asyncio.to_thread(self._painted, kept, number, texts, _width(request))
        headers = {"x-marked": "1" if found.hits else "0", "cache-control": "private, max-age=3600"}
        return Response(found.png, media_type="image/png", headers=headers)

    def _painted(self, kept: Kept, number: int, texts: list[str], width: int) -> Marked:
        with self._painting:
            return self._painter.mark(self._shelf.file(kept), kept.labels[number - 1], texts, width=width, must_find=False)

    def _places(self, id: str, number: int, text: str) -> list[list[float]]:
        """Where a text stands on a page; nowhere if the page has no picture, or is gone. Raises DocumentError if it can't be drawn."""
        with suppress(Refused):
            kept = self._shelf.get(id)
            if kept.has_pictures:
                return boxes_of(self._painted(kept, number, [text], _NARROWEST))
        return []

    def close(self) -> None:
        """End the child that draws."""
        self._painter.close()


async def _events(told: AsyncIterator[Part | Reading | Answered | None], form: Form) -> AsyncIterator[Event | None]:
    for made in form.opening():
        yield made
    async for one in told:
        if one is None:
            yield None
            continue
        events = form.piece(one) if isinstance(one, Part) else form.progress(one) if isinstance(one, Reading) else form.answered(one)
        for made in events:
            yield made
    for made in form.ended():
        yield made


class _Answering:
    """An endpoint as an application; what goes wrong is an answer, with the body that `failed` makes."""

    def __init__(self, endpoint: Endpoint, failed: Callable[[Refused], dict[str, Any]]) -> None:
        self._endpoint, self._failed = endpoint, failed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            answer = await self._endpoint(Request(scope, receive))
        except (ClientLeft, ClientDisconnect):
            answer = Response(status_code=_CLIENT_CLOSED)
        except Exception as error:
            refused = refusal(error)
            answer = JSONResponse(self._failed(refused), refused.status, {"retry-after": "5"} if refused.status == 503 else {})
        await answer(scope, receive, send)


async def _file(name: str, request: Request) -> ASGIApp:
    return FileResponse(_PAGE / name, headers={"cache-control": "no-cache"})


async def _no_route(request: Request, error: Exception) -> Response:
    return JSONResponse(body(_nothing_at(request.url.path)), 404)


def _nothing_at(path: str) -> Refused:
    return Refused(404, "not_found", f"There is no {path} here.")


async def _no_method(request: Request, error: Exception) -> Response:
    return JSONResponse(body(Refused(405, "method_not_allowed", f"{request.url.path} doesn't take {request.method}.")), 405)


def _page_number(request: Request, most: int) -> int:
    given = request.path_params["number"]
    if not _is_within(given, 1, most):
        raise Refused(404, "page_not_found", f"There is no page {given[:80]!r}: the document has {most:,}, counted from 1.")
    return int(given)


def _width(request: Request) -> int:
    given = request.query_params.get("width", "900")
    if not _is_within(given, _NARROWEST, 4000):
        raise wrong("width", f"width is {given[:80]!r}: take a number of pixels from {_NARROWEST} to 4000.")
    return int(given)


def _is_within(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most


def _client(request: Request) -> str:
    return request.client.host if request.client else ""
