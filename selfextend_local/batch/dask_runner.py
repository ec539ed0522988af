"""Many machines: the workers of an ordinary Dask cluster, each with the model loaded once and one document at a time.

Knows Dask. Results come back to the client, which alone writes them. A worker that dies loses its document to another.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from distributed import Client, Future, Security, Worker, WorkerPlugin, get_worker, wait
from distributed.scheduler import KilledWorker

from selfextend_local.errors import BatchError, GroupAttentionError, Interrupted, LibraryError, MemoryBudgetError, ModelError
from selfextend_local.generation.completion import ShouldStop
from selfextend_local.summarize import Summary

from .answering import Material
from .items import Item
from .job import Job, fingerprint
from .outcome import Failure, failure
from .reading import Reading
from .runner import READERS, Finished, ReadAhead, Watcher
from .worker import ModelWorker

RESOURCE = "selfextend"
_SCHEDULER_GONE = "The Dask scheduler is gone: start it, and run the same command again."
_CONNECT_S = 20
_POLL_S = 0.5


class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker, also one that joins later, a place for the model and the right to one document at a time."""

    def __init__(self, job: Job) -> None:
        # Batches with other settings may run on the same workers.
        self.name = f"{RESOURCE}-{hashlib.sha256(repr(job).encode()).hexdigest()[:16]}"
        self._job = job

    async def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker. The first task loads the model: here it would block the worker's event loop."""
        slots(worker)[self.name] = _Slot(self._job)
        # Set here, so that workers need no --resources of their own.
        await worker.set_resources(**{RESOURCE: 1})

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when the batch is over."""
        slots(worker).pop(self.name).close()


def slots(worker: Worker) -> dict[str, _Slot]:
    """The models of a worker by the name of their plugin."""
    found: dict[str, _Slot] = worker.__dict__.setdefault("_selfextend_slots", {})
    return found


class _Slot:
    """The model of one worker process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._worker: ModelWorker | None = None

    def run(self, material: Material, should_stop: ShouldStop) -> Summary | Failure:
        with self._lock:
            if self._worker is None:
                self._worker = ModelWorker(self._job)
            return self._worker.run(material, None, should_stop)

    def close(self) -> None:
        # Never wait in the worker's event loop; a task that still runs takes the model with it when it ends.
        if self._lock.acquire(blocking=False):
            if self._worker is not None:
                self._worker.close()
                self._worker = None
            self._lock.release()


def _identify(model: str) -> str:
    return fingerprint(Path(model))


def _work(job: Job, slot: str, item: Item, material: Material | None) -> tuple[Summary | Failure, str, float]:
    """On a worker: one item, read here if it didn't travel. Returns outcome, title, seconds."""
    from selfextend_local.documents import Document

    worker = get_worker()
    started = time.monotonic()
    gone = _dropped(worker)
    found: Material | Failure | None = material
    if found is None and item.path is not None:
        with closing(Reading(job.limits)) as reading:
            found = reading.read(item.path, gone)
    if found is None or isinstance(found, Failure):
        return found or Failure("invalid_request", "There is nothing to do."), "", time.monotonic() - started
    try:
        outcome = slots(worker)[slot].run(found, gone)
    except Interrupted as error:
        outcome = failure(error)
    return outcome, found.title if isinstance(found, Document) else "", time.monotonic() - started


def _dropped(worker: Worker) -> ShouldStop:
    """Whether the client has given up on the task that calls this."""
    key = worker.get_current_task()

    def dropped() -> bool:
        state = worker.state.tasks.get(key)
        return state is None or state.state in ("cancelled", "released", "forgotten")

    return dropped


class ClusterRunner:
    """Items spread over the workers of the scheduler at `address`.

    Args:
        shared_paths: workers read the files themselves, at the same paths; else their text travels with the task.
        tls: files of the authority, the certificate and the key, for tls:// addresses; Dask's own configuration if None.

    Raises BatchError if there is no scheduler, or the workers can't see the model, or see different ones.
    """

    def __init__(
        self, job: Job, address: str, *, shared_paths: bool = False, tls: tuple[str, str, str] | None = None
    ) -> None:
        self._job = job
        self._shared_paths = shared_paths
        self._had_workers = True
        self.model_name = job.model.path.stem
        security = Security(tls_ca_file=tls[0], tls_client_cert=tls[1], tls_client_key=tls[2], require_encryption=True) if tls else None
        try:
            self._client = Client(address, security=security, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise BatchError(f"No Dask scheduler answers at {address} ({error}): start one with `dask scheduler`.") from error
        try:
            self.fingerprint = self._common_fingerprint(address)
            plugin = ModelPlugin(job)
            self._slot = plugin.name
            self._client.register_plugin(plugin)
        except BaseException:
            self._client.close()
            raise

    def _common_fingerprint(self, address: str) -> str:
        try:
            self._client.wait_for_workers(1, timeout=_CONNECT_S)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise BatchError(f"The scheduler at {address} has no workers: start some with `dask worker {address}`.") from error
        found: dict[str, Any] = self._client.run(_identify, str(self._job.model.path), on_error="return")
        for worker, value in found.items():
            if isinstance(value, Exception):
                raise BatchError(f"Worker {worker} can't use the model: {value} It needs this package and the model at the same path.")
        if len(set(found.values())) > 1:
            raise BatchError(f"The workers have different files at {self._job.model.path}: copy the same model to all of them.")
        return str(next(iter(found.values())))

    def run(self, items: Sequence[Item], watcher: Watcher, should_stop: ShouldStop) -> Iterator[Finished]:
        # Long ones first, so that no worker is left with a long one at the end.
        ordered = sorted(items, key=lambda item: -item.size)
        read_here = [item for item in ordered if not (self._shared_paths and item.path)]
        there = iter([item for item in ordered if self._shared_paths and item.path])
        running: dict[Future, Item] = {}
        reading = ReadAhead(read_here, self._job.limits, should_stop, readers=READERS)
        try:
            with reading as ahead:
                while not should_stop():
                    # A second one for each worker, so that none waits for us.
                    while len(running) < 2 * max(1, self._workers(watcher)):
                        got = ahead.next(block=not running)
                        if got and isinstance(got.material, Failure):
                            yield Finished(got.item, got.material, seconds=got.seconds)
                            continue
                        item = got.item if got else next(there, None)
                        if item is None:
                            break
                        watcher.begin(item, 0)
                        running[self._submit(item, got.material if got else None)] = item
                    if not running:
                        return
                    for future in self._ready(list(running)):
                        yield self._finished(running.pop(future), future)
        finally:
            if self._client.status == "running":
                self._client.cancel(list(running))

    def _submit(self, item: Item, material: Any) -> Future:
        return self._client.submit(_work, self._job, self._slot, item, material, resources={RESOURCE: 1}, pure=False)

    def _workers(self, watcher: Watcher) -> int:
        if self._client.status != "running":
            raise BatchError(_SCHEDULER_GONE)
        count = len(self._client.scheduler_info()["workers"])
        if not count and self._had_workers:
            watcher.say("All Dask workers are gone; waiting for new ones.")
        self._had_workers = count > 0
        return count

    def _ready(self, running: list[Future]) -> list[Future]:
        """Futures that are done; none after a short wait, so that the caller can look around."""
        try:
            with self._client.as_current():
                return list(wait(running, timeout=_POLL_S, return_when="FIRST_COMPLETED").done)
        except (TimeoutError, asyncio.TimeoutError):
            return []
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            raise BatchError(_SCHEDULER_GONE) from None

    def _finished(self, item: Item, future: Future) -> Finished:
        try:
            outcome, title, seconds = future.result()
        except KilledWorker:
            reason = "every worker that took it died (out of memory?): look at the workers' logs, then use --retry-errors."
            return Finished(item, Failure("worker_died", f"{item.custom_id}: {reason}"))
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            raise BatchError(_SCHEDULER_GONE) from None
        except (ModelError, MemoryBudgetError, LibraryError, GroupAttentionError) as error:
            # Every other item would fail in the same way.
            raise BatchError(f"A worker can't run the model: {error}") from error
        except Exception as error:  # What else a worker raises is this item's failure.
            return Finished(item, failure(error))
        return Finished(item, outcome, title, seconds)

    def close(self) -> None:
        if self._client.status == "running":
            self._client.unregister_worker_plugin(self._slot)
        self._client.close()
