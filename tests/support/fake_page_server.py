"""A server for tests of the page: documents are really read and drawn, answers are those that the test gives. Knows HTTP, and no model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from selfextend_local.documents import Document, load_document
from selfextend_local.documents.marking import mark
from selfextend_local.errors import DocumentError

PAGE = Path(__file__).parents[2] / "selfextend_local" / "server" / "page"
PATIENCE_S = 600.0
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
_PAPER_POINTS = 595


@dataclass
class Answer:
    """What a question is answered with.

    pieces: of text, one chunk each; a dictionary is sent as the chunk. citations: without document and place; each is of the next place
    in the text that names its page, and of the first document asked. error: a status and a sentence in place of an answer.
    waits_before: the piece before which the server waits for `FakeServer.go`. looked_at: pages of the first document asked.
    """

    pieces: tuple[str | dict[str, Any], ...] = ("Yes.",)
    citations: tuple[dict[str, Any], ...] = ()
    error: tuple[int, str] | None = None
    waits_before: int | None = None
    finish: str = "stop"
    stop_reason: str = "stop"
    looked_at: tuple[dict[str, Any], ...] = ()


@dataclass
class FakeServer:
    """A server that runs.

    asked: the bodies of the questions. left: set when a client went away in the middle of a stream. go: what waits, goes on.
    """

    folder: Path
    url: str = ""
    key: str | None = None
    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: dict[str, Document] = field(default_factory=dict)
    upload_errors: list[str] = field(default_factory=list)
    more_notes: tuple[str, ...] = ()
    upload_waits: bool = False
    loading: bool = False
    left: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def keep(self, name: str, data: bytes) -> dict[str, Any]:
        """A document as `POST /v1/documents` leaves it."""
        id = "doc-" + hashlib.sha256(data).hexdigest()[:16]
        path = self.folder / f"{id}{Path(name).suffix}"
        path.write_bytes(data)
        document = self.read[id] = load_document(path)
        self.documents[id] = {
            "id": id,
            "object": "document",
            "filename": name,
            "bytes": len(data),
            "created": 1790000000,
            "n_pages": document.page_count,
            "labels": [page.label for page in document.pages],
            "tokens": sum(len(page.text) for page in document.pages) // 4,
            "notes": [*document.warnings, *self.more_notes],
            "has_pictures": path.suffix == ".pdf",
        }
        return self.documents[id]

    async def until_told(self) -> None:
        while not self.go.is_set():
            await asyncio.sleep(0.01)

    async def upload(self, request: Request) -> Response:
        async with request.form() as form:
            file: Any = form["file"]
            name, data = file.filename, await file.read()

        async def events() -> AsyncIterator[str]:
            if self.upload_errors:
                yield _event({"stage": "error", "error": {"message": self.upload_errors.pop(0)}})
                return
            yield _event({"stage": "reading", "done": 3, "total": 12})
            if self.upload_waits:
                await self.until_told()
                self.go.clear()
            try:
                document = await asyncio.to_thread(self.keep, name, data)
            except DocumentError as error:
                yield _event({"stage": "error", "error": {"message": str(error)}})
                return
            yield _event({"stage": "prefill", "done": 2048, "total": document["tokens"], "seconds_left": 31.4})
            if self.upload_waits:
                await self.until_told()
            yield _event({"stage": "done", "document": document})

        return StreamingResponse(self._watched(events()), media_type="text/event-stream")

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.error:
            return _refused(*answer.error)
        ids = body.get("document_ids", [])
        citations = list(_placed("".join(piece for piece in answer.pieces if isinstance(piece, str)), answer.citations, ids))

        evidence = {"citations": citations, "looked_at": [{"document_id": ids[0], **looked} for looked in answer.looked_at]}
        return StreamingResponse(self._watched(self._chunks(answer, evidence)), media_type="text/event-stream")

    async def _watched(self, lines: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield line
        except (asyncio.CancelledError, GeneratorExit):
            self.left.set()
            raise

    async def _chunks(self, answer: Answer, evidence: dict[str, Any]) -> AsyncIterator[str]:
        yield _chunk({"role": "assistant", "content": ""})
        yield _chunk({}, prompt_progress={"total": 9000, "cache": 2000, "processed": 4500, "seconds_left": 12.0})
        for at, piece in enumerate(answer.pieces):
            if at == answer.waits_before:
                await self.until_told()
            yield f"data: {json.dumps(piece)}\n\n" if isinstance(piece, dict) else _chunk({"content": piece})
        yield _chunk({}, answer.finish, **evidence, selfextend={"stop_reason": answer.stop_reason})
        details = {"cached_tokens": 8950}
        yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 9000, 'prompt_tokens_details': details}})}\n\n"
        yield "data: [DONE]\n\n"

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "loading" if self.loading else "ok"}, 503 if self.loading else 200)

    async def models(self, request: Request) -> Response:
        ours = {"plan": "progressive groups to 32,768 tokens, 4 times the trained window of 8,192", "n_ctx": 32768, "trained_window": 8192}
        return JSONResponse({"object": "list", "data": [{"id": "mistral-7b-q4", "object": "model", "selfextend": ours}]})

    async def listed(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(self.documents.values())})

    async def document(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id not in self.documents:
            return _refused(404, f"There is no document {id} here: list them with GET /v1/documents.")
        if request.method == "DELETE":
            del self.documents[id]
            return JSONResponse({"id": id, "object": "document.deleted", "deleted": True})
        return JSONResponse(self.documents[id])

    async def page(self, request: Request) -> Response:
        page = self.read[request.path_params["id"]].pages[request.path_params["n"] - 1]
        return JSONResponse({"page": page.number, "label": page.label, "text": page.text})

    async def picture(self, request: Request) -> Response:
        return await asyncio.to_thread(self._picture, request)

    def _picture(self, request: Request) -> Response:
        document, number = self.read[request.path_params["id"]], request.path_params["n"]
        label = document.pages[number - 1].label
        dots = 72 * int(request.query_params.get("width", 900)) // _PAPER_POINTS
        try:
            found = mark(document.path, label, request.query_params.get("find", ()), dots=dots)
        except DocumentError:
            found = mark(document.path, label, dots=dots)
        return Response(found.png, media_type="image/png", headers={"x-marked": "1" if found.hits else "0"})

    def routes(self) -> list[Route]:
        async def static(request: Request) -> Response:
            return FileResponse(PAGE / (request.path_params.get("name") or "index.html"))

        return [
            Route("/", static),
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/documents", self.listed),
            Route("/v1/documents", self.upload, methods=["POST"]),
            Route("/v1/documents/{id}", self.document, methods=["GET", "DELETE"]),
            Route("/v1/documents/{id}/pages/{n:int}.png", self.picture),
            Route("/v1/documents/{id}/pages/{n:int}", self.page),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/{name}", static),
        ]


class _Guarded:
    """The key, and the headers that the page has to live with."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake, self._app = fake, Starlette(routes=fake.routes())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        given = dict(scope.get("headers", ())).get(b"authorization", b"").decode()
        key = self._fake.key
        if scope["type"] == "http" and scope["path"].startswith("/v1") and key is not None and given != f"Bearer {key}":
            await _refused(401, "The API key is missing or wrong.")(scope, receive, with_policy)
        else:
            await self._app(scope, receive, with_policy)


def _placed(text: str, citations: Sequence[dict[str, Any]], ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    end = 0
    for citation in citations:
        said = citation.get("said", f"[page {citation['label']}]")
        start = text.index(said, end)
        end = start + len(said)
        status = "verified" if citation["verified"] else "unverified"
        yield {"document_id": ids[0], "start": start, "end": end, "named": True, "status": status, **citation}


def _refused(status: int, sentence: str) -> Response:
    return JSONResponse({"error": {"message": sentence, "type": "invalid_request_error", "code": None, "param": None}}, status)


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    return _event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


@contextmanager
def fake_page_server(folder: Path, key: str | None = None) -> Iterator[FakeServer]:
    """The server while the block runs, at a port of its own."""
    fake = FakeServer(folder, key=key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(_Guarded(fake), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield fake
        finally:
            fake.go.set()
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
