"""The cells of docs/results.md: methods x lengths x tasks, many contexts side by side, on one or more GPUs.

    python docs/results/campaign.py OUT --text NOVEL.txt --small RULER.gguf [--small OTHER.gguf] [--model SMOLLM2.gguf]
        [--known rows.jsonl] [--processes 4] [--threads 4] [--gpus 1] [--minutes M] [--only PATTERN] [--kv-type f16]

A job makes the items of a task once, asks all its methods, and has a file of its own under OUT; `OUT/rows.jsonl` is all of them,
written at the end. What is done, there or in `--known`, is not done twice. LLAMA_CPP_LIB_PATH names the folder of a build for the GPU.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

Job = tuple[str, str, str, dict[str, Any], list[str], str]
"""Name, model, task, what the task takes, lengths, methods."""

NEEDLES = "niah_single_1 niah_single_2 niah_single_3 niah_multikey_1"
PARTS = (NEEDLES, "niah_multikey_2 niah_multikey_3 vt cwe", "niah_multivalue niah_multiquery fwe")
FAR = "progressive recall/4 recall/2"
EVERY = f"plain yarn {FAR} two-level progressive+c recall/4+c recall3/4"
OTHER = "two-level progressive+c progressive/4 recall/4+c recall/2+c recall/4/4 recall5/8/16"
"""Forms that were tried later: w a quarter of the window, temperature, recall with another w."""
INSIDE = "plain progressive two-level n2 n2/4 n2/2 n4 n4/4"
"""Forms for a text that the trained window holds."""


def job(model: str, task: str, lengths: str, methods: str, **options: Any) -> Job:
    part = str(options.get("parts") or options.get("data") or "").split(" ")[0].rpartition("/")[2]
    name = "-".join((Path(model).stem, task, lengths, part, methods)).replace("/", "").replace(" ", "_")
    return name[:120], model, task, options, lengths.split(), methods


def small(model: str) -> Iterator[Job]:
    """For a model whose window is short; the cells that matter most first."""
    for windows, methods, samples in (("8x", f"yarn {FAR}", 3), ("16x", FAR, 3), ("32x", FAR, 2), ("1x 2x 4x", f"plain yarn {FAR}", 4)):
        for parts in PARTS:
            yield job(model, "ruler", windows, methods, parts=parts, samples=samples)
    for windows, samples in (("1x", 8), ("0.5x", 4)):
        for parts in PARTS:
            yield job(model, "ruler", windows, INSIDE, parts=parts, samples=samples)
    for windows, methods, samples in (("2x 4x", OTHER, 4), ("8x", OTHER, 3), ("16x", OTHER, 3), ("64x", "recall/4 recall/2 recall/4/4", 2)):
        for parts in PARTS:
            yield job(model, "ruler", windows, methods, parts=parts, samples=samples)
    for task in ("facts", "ppl"):
        for windows in ("1x 2x 4x 8x", "16x", "32x"):
            yield job(model, task, windows, EVERY if windows[0] == "1" else EVERY.replace("plain yarn ", ""))
        yield job(model, task, "1x", INSIDE)
        yield job(model, task, "0.5x", INSIDE, **({"facts": 8} if task == "facts" else {}))
    for windows in ("1x 2x 4x", "8x", "16x", "32x"):
        yield job(model, "passkey", windows, f"{'plain yarn ' if windows[0] == '1' else ''}{FAR} two-level recall/4+c", depths=8)
    yield job(model, "passkey", "64x", "recall/4 recall/2", depths=8)
    yield job(model, "passkey", "0.5x 1x", INSIDE, depths=8, repeats=3)
    for windows in ("1x 2x 4x", "8x", "16x"):
        yield job(model, "babilong", windows, f"{'yarn ' if windows != '16x' else ''}{FAR}", samples=6)
    yield job(model, "babilong", "0.5x 1x", "plain progressive two-level n2 n4/4", samples=6)
    for task in ("facts", "ppl"):
        yield job(model, task, "64x", "recall/4 recall/2")


def large(model: str, out: Path) -> Iterator[Job]:
    """For SmolLM2; what the stored rows have already is left out."""

    def each(task: str, lengths: str, methods: str, **options: Any) -> Job:
        return job(model, task, lengths, methods, **options)

    new = ("recall/4", "recall/2", "progressive+c", "recall/4+c")
    yield each("qa", "8k", "plain progressive two-level n2 n2/4 n4/4", data=str(out / "qa0.jsonl"))
    for method in new:
        yield each("qa", "32k", method, data=str(out / "qa2.jsonl"))
    yield each("facts", "16k 32k", "yarn progressive recall/4 recall/2")
    yield each("facts", "4k 8k", "plain two-level progressive yarn n2 n2/4 n4 n4/4")
    yield each("passkey", "4k 8k", "plain two-level progressive n2 n2/4 n4 n4/4", repeats=3)
    for method in new[:2]:
        yield each("passkey", "32k", method, repeats=3)
        yield each("passkey", "16k", method, repeats=3)
        yield each("passkey", "64k", method, repeats=3)
        yield each("ppl", "32k", method)
    yield each("ppl", "8k 16k", "plain yarn recall/4 recall/2 progressive+c recall/4+c")
    yield each("ppl", "4k 8k", INSIDE)
    yield each("facts", "64k", "yarn progressive recall/4 recall/2")
    for method in new:
        yield each("qa", "16k", method, data=str(out / "qa1.jsonl"))
        yield each("ppl", "64k", method)
    yield each("facts", "16k 32k", "progressive+c recall/4+c two-level progressive/4 recall/4/4")
    for method in new[2:]:
        yield each("ppl", "32k", method)
        yield each("passkey", "32k", method, repeats=3)
    yield each("ruler", "4k 8k", "plain two-level progressive n2 n2/4 n4 n4/4", parts=f"{NEEDLES} fwe", samples=8)
    yield each("ruler", "16k 32k", "yarn progressive recall/4 recall/2", parts=f"{NEEDLES} fwe", samples=4)
    yield each("ruler", "16k 32k", "two-level progressive+c recall/4+c progressive/4 recall/4/4", parts=f"{NEEDLES} fwe", samples=4)
    for method in ("progressive", "recall/4", "recall/2"):
        yield each("ppl", "128k", method)
        yield each("facts", "128k", method)


_FORM = re.compile(r"(?P<what>plain|yarn|two-level|progressive|recall|n(?P<n>\d+))(?P<share>\d?/\d)?(?:/(?P<w>\d+))?(?P<c>\+c)?$")


def method_of(label: str, window: int) -> Any:
    """Such as "progressive+c" (c=0.1), "progressive/4" (w a quarter of the window), "recall3/4" (of the window fetched), "recall/4/16"
    (a quarter fetched, w a sixteenth), "n2/4"."""
    from selfextend_local.evaluation.methods import Method

    found = _FORM.match(label)
    if not found:
        raise SystemExit(f"{label} is no method")
    what, n, share, w, c = (found[name] for name in ("what", "n", "share", "w", "c"))
    if what in ("plain", "yarn"):
        return Method(what)
    temperature = 0.1 if c else None
    if what == "recall":
        top, _, bottom = (share or "1/4").partition("/")
        fetched = window * int(top or 1) // int(bottom)
        near = window // int(w) if w else None
        return Method("selfextend", "auto", near, ga_mode="recall", ga_recall=fetched, ga_temperature=temperature)
    w = w or (share or "").lstrip("/")
    near = window // int(w) if w else None
    if n:
        return Method("selfextend", int(n), near, ga_mode="progressive", ga_temperature=temperature)
    return Method("selfextend", "auto", near, ga_mode=what, ga_temperature=temperature)


def measure(job: Job, given: argparse.Namespace, should_stop: Callable[[], bool]) -> None:
    """One job, in this thread."""
    from selfextend_cli.eval.run import read_length, subject_of, tokens_of

    from selfextend_local.engine.machine import probe
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.engine.plan import Settings
    from selfextend_local.evaluation.model_reader import ModelReaders
    from selfextend_local.evaluation.results import Results, key_of
    from selfextend_local.evaluation.runner import cells, run
    from selfextend_local.evaluation.tasks import Task
    from selfextend_local.evaluation.tasks.babilong import BabiLong
    from selfextend_local.evaluation.tasks.facts import Facts
    from selfextend_local.evaluation.tasks.passkey import Passkey
    from selfextend_local.evaluation.tasks.perplexity import Perplexity
    from selfextend_local.evaluation.tasks.qa import QuestionAnswering
    from selfextend_local.evaluation.tasks.qa_data import read_cases
    from selfextend_local.evaluation.tasks.ruler.task import Ruler
    from selfextend_local.evaluation.texts import read_text

    name, model, task_name, options, wanted, method_names = job
    out, layers = given.out, given.layers
    novel = read_text(str(given.text))
    done = {row["key"] for row in Results(given.known).rows} if given.known else set()

    with ModelPeek(model) as peek:
        window = peek.info.n_ctx_train
        lengths = [tokens_of(read_length(length), window) for length in wanted]

        def made() -> Task:
            match task_name:
                case "ruler":
                    return Ruler(tuple(options["parts"].split()), novel, options["samples"])
                case "facts":
                    return Facts(novel, **options)
                case "passkey":
                    return Passkey(**options)
                case "ppl":
                    return Perplexity(novel, None)
                case "babilong":
                    return BabiLong(novel, **options)
                case _:
                    return QuestionAnswering(*read_cases(Path(options["data"])), tuple(lengths))

        library = probe()
        devices = [d for d in library.devices if not d.startswith("CPU")] if layers else []
        made_with = {"llama_cpp_python": library.version, "devices": devices or ["CPU"]}
        planned = cells(made(), subject_of(peek, given.kv_type), [method_of(label, window) for label in method_names.split()], lengths)
        planned = [cell for cell in planned if key_of(cell.config) not in done]
        settings = Settings(kv_type=given.kv_type, threads=given.cpu_threads, gpu_layers=layers)
        with ModelReaders(Path(model), settings, should_stop=should_stop) as readers:
            run(planned, Results(out / f"{name}.jsonl"), readers, made_with=made_with, should_stop=should_stop)


def work(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """This process's jobs, in threads: contexts of one process share a GPU, those of several take turns."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    timer = threading.Timer(60 * options.minutes, stop.set)
    timer.daemon = True
    timer.start()

    def one(job: Job) -> None:
        if stop.is_set():
            return
        since = time.time()
        try:
            measure(job, options, stop.is_set)
            said = "done"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print(f"{time.strftime('%T')} {job[0]}: {time.time() - since:.0f} s, {said}", flush=True)

    with ThreadPoolExecutor(options.threads) as pool:
        list(pool.map(one, jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--small", action="append", default=[])
    parser.add_argument("--model")
    parser.add_argument("--known", type=Path)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--layers", type=int, default=-1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default="", help="jobs whose names have this expression in them")
    parser.add_argument("--kv-type", default="f16")
    parser.add_argument("--cpu-threads", type=int, default=1)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out
    lists = [small(model) for model in options.small]
    if options.model:
        lists.append(large(options.model, out))
    jobs = [job for group in zip_longest(*lists) for job in group if job and re.search(options.only, job[0])]
    if options.part is not None:
        work(jobs[options.part :: options.processes], options)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, how in {"qa0": ("1", "22000"), "qa1": ("1",), "qa2": ("2",)}.items() if options.model else ():
        with (out / f"{name}.jsonl").open("wb") as file:
            subprocess.run([sys.executable, Path(__file__).parent / "sherlock_qa.py", options.text, *how], stdout=file, check=True)
    parts = [
        subprocess.Popen([sys.executable, *sys.argv, "--part", str(i)], env=os.environ | {"CUDA_VISIBLE_DEVICES": str(i % options.gpus)})
        for i in range(options.processes)
    ]
    for part in parts:
        part.wait()
    rows = chain.from_iterable(part.read_bytes().splitlines(keepends=True) for part in sorted(out.glob("*-*.jsonl")))
    (out / "rows.jsonl").write_bytes(b"".join(rows))


if __name__ == "__main__":
    main()
