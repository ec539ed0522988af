"""A server of this process: on a port of its own, with a model file of the caller. Knows the package's server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from selfextend_local.engine.peek import ModelPeek
from selfextend_local.engine.plan import Settings
from selfextend_local.errors import SelfExtendError
from selfextend_local.server.app import Limits
from selfextend_local.server.guard import Access
from selfextend_local.server.model import ServedModel
from selfextend_local.server.serving import Serving, listening
from selfextend_local.server.shelf import Shelf
from selfextend_local.server.slots import LlamaServer
from selfextend_local.sessions import StateCache

PATIENCE_S = 600.0


@dataclass
class Served:
    """A server that runs: its address, a client of it, its model, and what it said."""

    url: str
    http: httpx.Client
    model: ServedModel
    serving: Serving
    said: list[str] = field(default_factory=list)

    def chat(self, question: str, **fields: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": question}], **fields})


@contextmanager
def served(
    path: Path,
    *,
    shelf: Path | None = None,
    access: Access | None = None,
    limits: Limits | None = None,
    cache: StateCache | None = None,
    slots: LlamaServer | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """A server with this model while the block runs. Raises what ends it before."""
    asked = Settings(**{"threads": 1, **settings})
    with ModelPeek(path) as peek:
        plan = peek.plan(asked)
    said: list[str] = []
    model = ServedModel(path, asked, plan, cache, said.append)
    ready = threading.Event()
    access = access or Access()
    with listening(access.host, 0, access.key) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = Serving(model, listener, Shelf(shelf or Path(os.devnull)), access, limits or Limits(), ready.set, slots=slots)
        failed: list[SelfExtendError] = []

        def run() -> None:
            try:
                serving.run()
            except SelfExtendError as error:
                failed.append(error)
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert ready.wait(PATIENCE_S)
            if failed:
                raise failed[0]
            headers = {} if access.key is None else {"authorization": f"Bearer {access.key}"}
            with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=headers) as http:
                yield Served(url, http, model, serving, said)
        finally:
            serving.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            if failed:
                raise failed[0]
