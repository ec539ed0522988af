"""A file becomes a document: read in a child process, then by the model, then kept.

Knows the order of it, and what a client hears of it. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from starlette.types import Receive

from selfextend_local.documents import Document
from selfextend_local.documents.kinds import is_pdf_file
from selfextend_local.documents.reader import Reader, ReadLimits
from selfextend_local.errors import DocumentError

from .bodies import events_of
from .model import Reading, ServedModel
from .refusals import Refused
from .shelf import Kept, Shelf, id_of, suffix_of
from .turns import Work, Worker

_READERS = 2  # files that are read at once


@dataclass(frozen=True)
class Pages:
    """How many pages are read, of how many."""

    done: int
    total: int


class Intake:
    """Takes files in."""

    def __init__(self, model: ServedModel, worker: Worker, shelf: Shelf, limits: ReadLimits, *, ocr: bool, seconds: float) -> None:
        self._model, self._worker, self._shelf = model, worker, shelf
        self._limits, self._ocr, self._seconds = limits, ocr, seconds
        self._reading = asyncio.Semaphore(_READERS)

    async def take(self, file: Path, client: str, receive: Receive) -> AsyncIterator[Pages | Reading | Kept | None]:
        """How it goes, and at the end the document. Stops where the client leaves. Raises Refused, DocumentError, ClientLeft."""
        id = await asyncio.to_thread(id_of, file)
        found: list[Document] = []
        async with self._reading:
            do = self._known(id, found.append) or self._reader(file, found.append)
            reading = Work(client, do, self._seconds)
            running = asyncio.create_task(asyncio.to_thread(reading.run, self._worker.closing))
            async with aclosing(events_of(self._worker, reading, receive)) as events:  # type: ignore[type-var]
                async for event in events:
                    yield event
            await running
        document = found[0]
        prompt = await asyncio.to_thread(self._model.document_tokens, document)
        work = self._worker.submit(Work(client, lambda work: self._model.read_ahead(work, prompt), self._seconds))
        async with aclosing(events_of(self._worker, work, receive)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event
        yield await asyncio.to_thread(self._kept, id, file, document, len(prompt.tokens))

    def _known(self, id: str, take: Callable[[Document], None]) -> Callable[[Work], None] | None:
        try:
            document = self._shelf.document(id)
        except Refused:
            return None
        return lambda work: take(document)

    def _reader(self, file: Path, take: Callable[[Document], None]) -> Callable[[Work], None]:
        def read(work: Work) -> None:
            def progress(done: int, total: int) -> None:
                work.tell(Pages(done, total))

            reader = Reader(self._limits)
            try:
                take(reader.read(file, ocr=self._ocr, progress=progress, should_stop=work.should_stop))
            except DocumentError as error:
                raise type(error)(str(error).replace(str(file), file.name)) from None
            finally:
                reader.close()

        return read

    def _kept(self, id: str, file: Path, document: Document, tokens: int) -> Kept:
        try:
            kept = replace(self._shelf.get(id), model=self._model.name, tokens=tokens)
        except Refused:
            labels = tuple(page.label for page in document.pages)
            kept = Kept(
                id, file.name, file.stat().st_size, int(time.time()), len(labels), labels, document.warnings, is_pdf_file(file),
                suffix_of(file.name), self._model.name, tokens,
            )  # fmt: skip
            self._shelf.put(kept, document, file)
        return kept


def copied(source: IO[bytes], target: Path) -> Path:
    """What a stream holds as a file."""
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
    return target


def event(stage: Pages | Reading | Kept) -> dict[str, Any]:
    """What a client hears."""
    if isinstance(stage, Pages):
        return {"stage": "reading", "done": stage.done, "total": stage.total}
    if isinstance(stage, Kept):
        return {"stage": "done", "document": stage.described()}
    left = None if stage.seconds_left is None else round(stage.seconds_left, 1)
    return {"stage": "prefill", "done": stage.done, "total": stage.total, "seconds_left": left}
