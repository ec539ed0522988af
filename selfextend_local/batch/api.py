"""The Python way in: `summarize(paths)` yields results; failures are values.

    from selfextend_local.batch import summarize

    for result in summarize(["reports/"], output="out.jsonl", max_words=120):
        print(result.custom_id, result.summary.text if result.ok else result.outcome.message)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from selfextend_local.batch.batch import Batch
from selfextend_local.batch.items import from_paths
from selfextend_local.batch.job import Job, Limits, ModelSettings
from selfextend_local.batch.outcome import Result
from selfextend_local.batch.runner import READERS, Runner
from selfextend_local.engine.default_model import model_or_default
from selfextend_local.engine.plan import GroupMode, GroupSize
from selfextend_local.errors import BatchError
from selfextend_local.generation.completion import ShouldStop
from selfextend_local.summarize import Instruction

from .defaults import BATCH
from .local_runner import LocalRunner


def summarize(
    paths: Iterable[str | os.PathLike[str]],
    model: str | os.PathLike[str] | None = None,
    *,
    instruction: str | Instruction | None = None,
    max_words: int | None = None,
    output: str | os.PathLike[str] | None = None,
    retry_errors: bool = False,
    scheduler: str | None = None,
    endpoints: Sequence[str] = (),
    jobs: int = READERS,
    ga_n: GroupSize = BATCH.ga_n,
    ga_w: int | None = None,
    ga_mode: GroupMode = BATCH.ga_mode,
    kv_type: str = BATCH.kv_type,
    context: int | None = None,
    together: int | Literal["auto"] = "auto",
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    should_stop: ShouldStop = lambda: False,
) -> Iterator[Result]:
    """Summarise files, folders and patterns; results come in the order in which they are ready.

    Args:
        model: a GGUF file, or with `endpoints` the model's name there; the embedded default if None.
        output: a results file of OpenAI batch result lines. If it exists, only what it doesn't hold yet is done and yielded.
        scheduler: the address of a Dask scheduler, whose workers then do the work.
        endpoints: servers with the OpenAI API, which then do the work.
        jobs: readers here, or requests to each endpoint at a time.
        together: short documents that this machine answers side by side; "auto": 8 on a GPU, else 1.

    Raises:
        BatchError, ModelNotFound, ModelError, LibraryError, GroupAttentionError, MemoryBudgetError: before any result.
        BatchError: results can't be written any more.
    """
    wanted = instruction if isinstance(instruction, Instruction) else Instruction(instruction, max_words=max_words)
    file = Path(output) if output is not None else None
    items = from_paths(paths, leave_out=[file] if file else [])
    name = Path(model) if model is not None else Path() if endpoints else model_or_default()
    settings = replace(BATCH, ga_n=ga_n, ga_w=ga_w, ga_mode=ga_mode, kv_type=kv_type, n_ctx=context)
    job = Job(wanted, ModelSettings(name, settings, together), limits)
    runner = make_runner(job, scheduler=scheduler, endpoints=endpoints, jobs=jobs, should_stop=should_stop)
    try:
        yield from Batch(job, items, runner, output=file, retry_errors=retry_errors).run(should_stop)
    finally:
        runner.close()


def make_runner(
    job: Job,
    *,
    scheduler: str | None = None,
    endpoints: Sequence[str] = (),
    jobs: int = READERS,
    shared_paths: bool = False,
    tls: tuple[str, str, str] | None = None,
    should_stop: ShouldStop = lambda: False,
) -> Runner:
    """The runner that the arguments ask for; this machine by default.

    Args:
        jobs: readers here, or requests to each endpoint at a time.
        shared_paths, tls: see `cluster.ClusterRunner`.
    """
    if scheduler:
        try:
            from .dask_runner import ClusterRunner
        except ModuleNotFoundError as error:
            raise BatchError('A scheduler needs Dask: pip install "selfextend-local[dask]"') from error
        return ClusterRunner(job, scheduler, shared_paths=shared_paths, tls=tls)
    if endpoints:
        from .http_runner import EndpointRunner

        return EndpointRunner(job, endpoints, jobs=jobs, should_stop=should_stop)
    return LocalRunner(job, readers=jobs)
