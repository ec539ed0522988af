"""A document of a batch, read in a process of its own: what can't be read is a Failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfextend_local.documents import Document
from selfextend_local.documents.reader import Reader, ReadLimits
from selfextend_local.errors import Interrupted, ReaderFailed, SelfExtendError

from .job import Limits
from .outcome import Failure, failure


class Reading:
    """A reader that goes on after each document; for one thread at a time. `close` it."""

    def __init__(self, limits: Limits) -> None:
        self._reader = Reader(ReadLimits(limits.read_s, limits.read_mib))

    def read(self, path: Path, should_stop: Callable[[], bool] | None = None) -> Document | Failure:
        """The document, or why it can't be read. When `should_stop` says so, the failure's code is "stopped"."""
        try:
            return self._reader.read(path, should_stop=should_stop)
        except Interrupted as error:
            return Failure("stopped", str(error))
        except ReaderFailed as error:
            return Failure("internal_error", str(error))
        except SelfExtendError as error:
            return failure(error)

    def close(self) -> None:
        """End the child, whatever it does."""
        self._reader.close()
