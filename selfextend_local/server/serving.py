"""The server from its start to its end: a socket, the model's thread, signals.

Ctrl-C and SIGTERM stop what is being done within a micro-batch; what was read is kept on disk. Knows uvicorn.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from selfextend_local.engine.machine import limit_arenas
from selfextend_local.errors import SelfExtendError

from .app import App, Limits
from .forwarding import Behind
from .guard import Access, is_loopback
from .model import ServedModel
from .shelf import Shelf
from .slots import LlamaServer
from .turns import Worker

_MOST_CONNECTIONS = 512
_SECONDS_TO_END = 20
_ARENAS = 2  # eight clients for eight minutes: 8 MB in them, 15 MB with one for each thread


def listening(host: str, port: int, key: str | None) -> socket.socket:
    """A socket that listens; port 0 = any that is free. Raises SelfExtendError if the port can't be had, or the host needs a key."""
    if not is_loopback(host) and key is None:
        raise SelfExtendError(f"--host {host} lets other machines ask: protect the server with --api-key-file FILE, or leave --host out.")
    if key is not None and not key.strip():
        raise SelfExtendError("The API key is empty: write one into the file, such as what `openssl rand -hex 32` prints.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SelfExtendError(f"{host}:{port} can't be listened on ({reason}): take another --port or --host.") from error
    return found


class Serving:
    """A server that answers on a socket until a signal comes, or `stop`.

    ready: called in the model's thread when the model is loaded. ocr: as for App. slots: llama-server, for what is asked without documents.
    """

    def __init__(
        self,
        model: ServedModel,
        listener: socket.socket,
        shelf: Shelf,
        access: Access,
        limits: Limits,
        ready: Callable[[], None],
        *,
        ocr: bool = False,
        slots: LlamaServer | None = None,
    ) -> None:
        self._model, self._listener, self._ready, self._slots = model, listener, ready, slots
        self._worker = Worker(self._begin, model.close)
        self._failed: SelfExtendError | None = None
        behind = None if slots is None else Behind(slots.socket, limits.seconds)
        self._app = App(model, self._worker, shelf, access, limits, ocr=ocr, behind=behind)
        config = uvicorn.Config(
            self._app.asgi,
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        self._server = _Server(config, self._worker.close)

    def run(self) -> None:
        """Answer. Returns when what was read is on disk. Raises what loading the model raises, LibraryError where llama-server ends."""
        limit_arenas(_ARENAS)
        if self._slots is not None:
            self._slots.start(self._lost)
        self._worker.start()
        try:
            self._server.run(sockets=[self._listener])
        finally:
            if self._slots is not None:
                self._slots.stop()
            self._worker.stop()
            self._app.close()
        if (failed := self._worker.failed or self._failed) is not None:
            raise failed

    def _lost(self, error: SelfExtendError) -> None:
        self._failed = error
        self.stop()

    def stop(self) -> None:
        """End `run`, from any thread."""
        self._worker.close()
        self._server.should_exit = True

    @property
    def waiting(self) -> int:
        """Requests that wait for the model."""
        return self._worker.waiting

    def _begin(self) -> None:
        try:
            if self._slots is not None:
                self._slots.wait()
            self._model.load()
        except BaseException:
            self._server.should_exit = True
            raise
        self._ready()


class _Server(uvicorn.Server):
    """Tells the model's thread of a signal at once, so that no answer holds up the end."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], None]) -> None:
        super().__init__(config)
        self._close = close

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's raises the signal again at the end, which would leave no time to keep states.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._close()
        super().handle_exit(sig, frame)
