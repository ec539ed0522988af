"""`selfextend summarize`: documents in, summaries out, one line each, nothing lost.

Knows flags, the order of things and what a person sees of them. What they mean is in selfextend_local.batch, which is
imported when there is work, so that --help answers at once.
"""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local import __version__
from selfextend_local.batch.defaults import BATCH

from ..errors import EXIT_INTERRUPTED, boundary
from ..flags import engine
from ..flags.reading import read_limits
from ..flags.schema import SchemaFile
from ..terminal import interrupts, output
from .tally import Tally

if TYPE_CHECKING:
    from selfextend_local.batch.batch import Batch
    from selfextend_local.batch.items import Item
    from selfextend_local.batch.job import Job
    from selfextend_local.batch.outcome import Result
    from selfextend_local.batch.runner import Runner
    from selfextend_local.batch.tables import Table
    from selfextend_local.engine.plan import Settings

EXIT_FAILED_ITEMS = 3


@dataclass(frozen=True)
class Options:
    paths: tuple[str, ...]
    requests: str | None
    output: Path | None
    out_dir: Path | None
    form: str | None
    prompt: str | None
    template: Path | None
    max_words: int | None
    max_tokens: int | None
    schema: str | None
    model: str | None
    jobs: int
    together: Any
    scheduler: str | None
    shared_paths: bool
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    endpoint: tuple[str, ...]
    timeout: float | None
    read_timeout: float
    read_memory: int
    retry_errors: bool
    fail_fast: bool
    dry_run: bool
    engine: Settings

    @property
    def journal(self) -> Path | None:
        """The file that records each result: the output itself, or one beside a table, or in the folder."""
        if self.output is not None:
            return self.output.with_name(f"{self.output.name}.jsonl") if self.table else self.output
        return self.out_dir / "results.jsonl" if self.out_dir is not None else None

    @property
    def table(self) -> Table | None:
        """ "csv" or "md" if a table is wanted, by --format or else by the name of the output."""
        suffix = self.output.suffix.lower().lstrip(".") if self.output else ""
        form = self.form or suffix
        return "csv" if form == "csv" else "md" if form == "md" else None


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@click.option("--requests", metavar="FILE", help="OpenAI batch lines to answer; - reads them from stdin.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Results; continued if it exists.")
@click.option("--out-dir", type=click.Path(file_okay=False, path_type=Path), help="Also one Markdown file a document.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "md"]), help="Default: by the suffix of -o.")
@click.option("--prompt", metavar="TEXT", help="What to do with each document, instead of a summary.")
@click.option("--template", type=_FILE, help="The whole message: a Jinja file that names {{ document }}.")
@click.option("--max-words", type=click.IntRange(1), metavar="N", help="Length of a summary.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Default: 512, or what --max-words needs.")
@click.option("--schema", type=SchemaFile(), metavar="FILE", help="A JSON schema that each answer has to follow.")
@click.option("--model", metavar="FILE", help="GGUF model; with --endpoint its name there. Default: the embedded one.")
@engine.engine(BATCH.kv_type)
@click.option("--context", type=click.IntRange(256), metavar="TOKENS", help="Largest window. Default: 4 trained ones, memory allowing.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, metavar="N", help="Readers; requests to each --endpoint.")
@click.option("--parallel", "--together", "together", type=engine.POSITIVE_OR_AUTO, default="auto", show_default=True,
              help="Short ones side by side; auto: 8 on a GPU, else 1.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler, e.g. tcp://host:8786, whose workers do the work.")
@click.option("--shared-paths", is_flag=True, help="Dask workers read the files themselves, at the same paths.")
@click.option("--tls-ca", metavar="FILE", help="With tls:// addresses: the authority,")
@click.option("--tls-cert", metavar="FILE", help="our certificate")
@click.option("--tls-key", metavar="FILE", help="and its key.")
@click.option("--endpoint", multiple=True, metavar="URL", help="A server with the OpenAI API. Can be given several times.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds for one document. Default: none.")
@read_limits(60, 2048)
@click.option("--retry-errors", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--fail-fast", is_flag=True, help="Stop after the first failure.")
@click.option("--dry-run", is_flag=True, help="Read and count only: what fits, what is cut, what is done already.")
@click.version_option(__version__, prog_name="selfextend-summarize")
@boundary
def command(**flags: Any) -> int:
    """Summarise documents: files, folders, patterns, or - for a list of names on stdin.

    \b
    Examples:
      selfextend summarize report.pdf --max-words 100
      selfextend summarize reports/ -o summaries.jsonl
      find . -name '*.pdf' | selfextend summarize - -o table.csv
      selfextend summarize reports/ --out-dir notes --prompt "List the decisions."
      selfextend summarize --requests in.jsonl -o out.jsonl

    A result is on disk as soon as it is there. The same command again does what is missing: after Ctrl-C, a crash, new
    or changed documents. A bad document costs its own line, nothing more. A text that exceeds the window is read in
    parts, whose notes are merged. --read-timeout and --read-memory limit the reading of one document.

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but some items failed, 130 interrupted.
    """
    settings = replace(engine.taken(flags), n_ctx=flags.pop("context"))
    options = Options(engine=settings, **flags)
    _check(options)
    with StopOnSignals() as stop:
        return _run(options, stop)


class StopOnSignals(interrupts.StopOnInterrupt):
    """Ctrl-C, and SIGTERM as service managers and schedulers send it."""

    def __enter__(self) -> StopOnSignals:
        super().__enter__()
        self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *details: object) -> None:
        signal.signal(signal.SIGTERM, self._before)
        super().__exit__(*details)


def _check(options: Options) -> None:
    if bool(options.paths) == bool(options.requests):
        raise click.UsageError("Name documents, or batch lines with --requests FILE.")
    if options.scheduler and options.endpoint:
        raise click.UsageError("Take either --scheduler or --endpoint.")
    if options.prompt is not None and options.template is not None:
        raise click.UsageError("Take either --prompt or --template.")
    if options.prompt is not None and not options.prompt.strip():
        raise click.UsageError("The prompt is empty.")
    tls = (options.tls_ca, options.tls_cert, options.tls_key)
    if any(tls) and not (all(tls) and options.scheduler):
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key go together, with --scheduler.")


def _items(options: Options) -> list[Item]:
    from selfextend_local.batch.items import from_paths, from_requests, names_in

    if options.requests is not None:
        try:
            text = sys.stdin.read() if options.requests == "-" else Path(options.requests).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{options.requests} can't be read: {error}") from error
        return from_requests(text.split("\n"))
    names = [name for given in options.paths for name in (names_in(sys.stdin.read()) if given == "-" else [given])]
    own = [path for path in (options.output, options.journal, options.out_dir) if path is not None]
    return from_paths(names, leave_out=own)


def _job(options: Options) -> Job:
    from selfextend_local.batch.job import Job, Limits, ModelSettings
    from selfextend_local.summarize import Instruction

    template = options.template.read_text(encoding="utf-8") if options.template else None
    return Job(
        Instruction(options.prompt, template, options.max_words, options.max_tokens, options.schema),
        ModelSettings(_model(options), options.engine, options.together),
        Limits(options.read_timeout, options.read_memory, options.timeout),
    )


def _model(options: Options) -> Path:
    if options.model is not None:
        return Path(options.model)
    if options.endpoint:
        return Path()
    from selfextend_local.engine.default_model import DEFAULT_MODEL_NAME, model_or_default

    found = model_or_default()
    output.say(f"No --model given: using the embedded default, {DEFAULT_MODEL_NAME}.")
    return found


def _runner(options: Options, job: Job, stop: StopOnSignals) -> Runner:
    from selfextend_local.batch.api import make_runner

    tls = (options.tls_ca or "", options.tls_cert or "", options.tls_key or "") if options.tls_ca else None
    runner = make_runner(
        job,
        scheduler=options.scheduler,
        endpoints=options.endpoint,
        jobs=options.jobs,
        shared_paths=options.shared_paths,
        tls=tls,
        should_stop=stop,
    )
    # Dask's own log would stand between our lines; it sets its levels when it is imported.
    for name in ("distributed", "distributed.client") if options.scheduler else ():
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return runner


def _run(options: Options, stop: StopOnSignals) -> int:
    from selfextend_local.batch.batch import Batch
    from selfextend_local.summarize import check

    items = _items(options)
    if not items:
        raise click.UsageError("There is nothing to do: the list is empty.")
    job = _job(options)
    check(job.instruction)
    runner = _runner(options, job, stop)
    try:
        batch = Batch(job, items, runner, options.journal, options.out_dir, options.retry_errors, options.fail_fast)
        return _dry_run(batch, stop) if options.dry_run else _carry_out(options, batch, stop)
    finally:
        runner.close()


def _carry_out(options: Options, batch: Batch, stop: StopOnSignals) -> int:
    from .progress import watching

    tally = Tally()
    collected: list[Result] = []
    with watching() as watcher:
        batch.watcher = watcher
        for result in batch.run(stop):
            tally.add(result)
            watcher.finished(result)
            if options.journal is None:
                collected.append(result)
                with watcher.aside():
                    _print(result, options.form, alone=len(batch.items) == 1)
    if options.table:
        _write_table(options, collected)
    for line in tally.lines(batch.skipped, batch.failed_before):
        output.say(line)
    if stop.requested:
        where = f" The results so far are in {options.journal}; the same command goes on from there." if options.journal else ""
        output.say(f"Stopped.{where}")
        return EXIT_INTERRUPTED
    return EXIT_FAILED_ITEMS if tally.failed or batch.failed_before else 0


def _print(result: Result, form: str | None, *, alone: bool) -> None:
    """A result on stdout as it comes, when no file was named; failures are said on stderr anyway."""
    if form == "jsonl":
        click.echo(result.to_line())
    elif form is None and result.ok:
        head = "" if alone else f"# {result.title or result.custom_id}\n\n"
        output.write_answer(f"{head}{result.summary.text}\n" + ("" if alone else "\n"))


def _write_table(options: Options, collected: list[Result]) -> None:
    from selfextend_local.batch.results import results_file
    from selfextend_local.batch.tables import as_table, write_table

    results = collected
    if options.journal is not None:
        results = list(results_file(options.journal).newest().values())
    form = options.table or "csv"
    if options.output is not None:
        write_table(options.output, results, form)
    else:
        click.echo(as_table(results, form), nl=False)


def _dry_run(batch: Batch, stop: StopOnSignals) -> int:
    """A line for each document on stdout: what would be done with it."""
    from selfextend_local.batch.local_runner import LocalRunner
    from selfextend_local.batch.outcome import Failure
    from selfextend_local.batch.runner import ReadAhead

    worker = batch.runner.worker if isinstance(batch.runner, LocalRunner) else None
    pending = [item for item, _ in batch.todo().pending]
    with ReadAhead(pending, batch.job.limits, stop, window=1) as ahead:
        while got := ahead.next(block=True):
            if isinstance(got.material, Failure):
                click.echo(f"would fail  {got.material.code:>26}  {got.item.custom_id}")
            elif worker is None:
                click.echo(f"to do  {got.item.custom_id}")
            else:
                tokens = worker.need(got.material)
                way = "whole" if tokens <= worker.largest else "in parts"
                click.echo(f"{way:<10}  {tokens:>19,} tokens  {got.item.custom_id}")
    if stop.requested:
        return EXIT_INTERRUPTED
    window = f"; the window holds {worker.largest:,} tokens" if worker else ""
    output.say(f"{len(pending)} to do, {batch.skipped} done already{window}.")
    return 0


def main() -> None:
    output.harmless_streams()
    command(prog_name="selfextend-summarize", auto_envvar_prefix="SELFEXTEND_SUMMARIZE")
