"""A batch: which items are still to do, a runner that does them, and the one place that writes results.

Knows resuming. Must not know how an item is read or answered, nor the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job
from selfextend_local.batch.outcome import Failure, Result
from selfextend_local.batch.results import results_file
from selfextend_local.batch.runner import Finished, Runner, Watcher
from selfextend_local.batch.tables import write_markdown
from selfextend_local.generation.completion import ShouldStop
from selfextend_local.storage.results import ResultsFile


@dataclass(frozen=True)
class Todo:
    """Items with the keys of their results; how many need no work, and how many of those failed earlier."""

    pending: tuple[tuple[Item, str], ...]
    skipped: int
    failed_before: int


@dataclass
class Batch:
    """Items to carry out.

    Attributes:
        output: the results file, continued if it exists; None keeps no record.
        out_dir: a folder for one Markdown file a document.
        retry_errors: do items again whose standing result is an error.
        fail_fast: end after the first failure.
        skipped, failed_before: items that needed no work, and those among them whose standing result is an error.
    """

    job: Job
    items: Sequence[Item]
    runner: Runner
    output: Path | None = None
    out_dir: Path | None = None
    retry_errors: bool = False
    fail_fast: bool = False
    watcher: Watcher = field(default_factory=Watcher)
    skipped: int = 0
    failed_before: int = 0

    def run(self, should_stop: ShouldStop = lambda: False) -> Iterator[Result]:
        """Results as they come; each is on disk before it is yielded. Closing the iterator ends the work.

        Raises BatchError if the results can't be written.
        """
        with ExitStack() as stack:
            file = stack.enter_context(results_file(self.output)) if self.output else None
            todo = self._todo(file)
            self.watcher.start([item for item, _ in todo.pending], todo.skipped)
            keys = {item.custom_id: key for item, key in todo.pending}
            for finished in self.runner.run([item for item, _ in todo.pending], self.watcher, should_stop):
                result = self._result(finished, keys[finished.item.custom_id])
                if self.out_dir and result.ok:
                    write_markdown(self.out_dir, result)
                if file:
                    file.append(result)
                yield result
                if self.fail_fast and isinstance(result.outcome, Failure):
                    return

    def todo(self) -> Todo:
        """What there is to do now. Raises BatchError as `run` does."""
        if self.output is None or not self.output.exists():
            return self._todo(None)
        with results_file(self.output) as file:
            return self._todo(file)

    def _todo(self, file: ResultsFile[Result] | None) -> Todo:
        """All but the items with a standing result: new ones, changed ones, and with `retry_errors` failed ones."""
        pending = []
        failed_before = 0
        # Not the results themselves: they may be long, and many.
        known = {result.custom_id: (result.key, result.ok) for result in file.all()} if file else {}
        for item in self.items:
            key = self.job.key(item.digest(), self.runner.fingerprint)
            standing = known.get(item.custom_id)
            if standing and standing[0] == key and (standing[1] or not self.retry_errors):
                failed_before += not standing[1]
            else:
                pending.append((item, key))
        self.skipped, self.failed_before = len(self.items) - len(pending), failed_before
        return Todo(tuple(pending), self.skipped, failed_before)

    def _result(self, finished: Finished, key: str) -> Result:
        return Result(
            finished.item.custom_id, key, finished.outcome, self.runner.model_name, finished.title, finished.seconds
        )
