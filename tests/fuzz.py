"""Random damage to what comes from elsewhere: models, documents, saved states, request lines. `make fuzz`, or

    python tests/fuzz.py models documents states requests --count 1000 --seed 0

Each mutant is tried in a process of its own with limits. Fine: it is read, or refused with an error of ours. A fault: any other
exception, a crash, a hang. For a model: the trial of engine/opening.py lets it pass, and it ends the process later. Faults are kept below
build/fuzz, and the exit code says whether there were any; each becomes a test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.fake_state import FakeState
from support.gguf_edit import Gguf, parse
from support.tiny_models import make_tiny_model

# All before the first fork, which then costs nothing.
from selfextend_local.batch.answering import prompt_of
from selfextend_local.batch.items import from_requests
from selfextend_local.batch.tables import markdown_name
from selfextend_local.documents import load_document
from selfextend_local.engine import opening
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import SelfExtendError
from selfextend_local.sample import report
from selfextend_local.sample.book import chapter_pdf
from selfextend_local.sessions import StateCache

os.environ["GGML_NO_BACKTRACE"] = "1"  # a debugger for each assertion
SECONDS, GIB = 60, 6
KEPT = Path("build/fuzz")
NUMBERS = (-1, 0, 1, 2, 3, 7, 31, 63, 64, 65, 127, 255, 256, 511, 512, 513, 1000, 4095, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e-45, 1e38, 0.5)


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled, or the end cut."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 1:
            del out[at : at + draw.choice((1, 2, 8, 100, 5000))]
        elif kind == 2:
            out[at:at] = out[at : at + draw.choice((1, 8, 100, 2000))]
        elif kind == 3:
            out[at:at] = draw.choice((b"\0", b"\xff" * 8, b"<", b"[" * 50, b"9" * 400, b"%n", "\u202e".encode(), b"\r\n"))
        elif len(out) > 20 and draw.random() < 0.3:
            del out[draw.randrange(len(out)) :]
    return bytes(out)


# What is mutated, and what is done with it


class Models:
    kinds = ("gqa", "swa", "hybrid", "recurrent", "partial-rotary")

    def __init__(self, folder: Path) -> None:
        self._bytes = {kind: make_tiny_model(kind, folder).read_bytes() for kind in self.kinds}

    def mutant(self, draw: random.Random) -> bytes:
        data = self._bytes[draw.choice(self.kinds)]
        if draw.random() < 0.3:
            return flipped(data[:9_000], draw) + data[9_000:]
        gguf = parse(data)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            self._change(gguf, draw)
        return gguf.dump()

    def _change(self, gguf: Gguf, draw: random.Random) -> None:
        entry = draw.choice(gguf.kv)
        key, type_ = entry[0].decode(), entry[1]
        if draw.random() < 0.2:
            gguf.drop(key)
        elif type_ == 8:
            gguf.set(key, 8, draw.choice((b"", b"x" * 300, b"\xff\xfe", b"llama", b"gpt2", b"t5", b"dream")))
        elif type_ == 6:
            gguf.set(key, 6, draw.choice(FLOATS))
        elif type_ == 9:
            kind, values = entry[2]
            gguf.set(key, 9, (kind, draw.choice((values[:1], [], values * 2, values[::-1]))))
        elif type_ == 7:
            gguf.set(key, 7, not entry[2])
        else:
            gguf.set(key, type_, draw.choice(NUMBERS))
        if draw.random() < 0.1 and gguf.tensors:
            tensor = draw.choice(gguf.tensors)
            field = draw.choice((1, 2, 3))  # shape, type, offset
            tensor[field] = draw.choice(([1], [0], [2**40], [64, 64, 64])) if field == 1 else draw.choice(NUMBERS)

    def run(self, path: Path) -> None:
        pid = os.fork()
        if pid == 0:
            limit()
            silence()
            try:
                opening.opened(str(path))
            except BaseException:
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            return  # refused, by an error or by the end of the child
        opening.check = lambda path: None  # type: ignore[assignment]
        llm = SelfExtendLlama(path, n_ctx=256, n_threads=1)
        llm.prefill(llm.tokenize(b"one two three"))


class Documents:
    def __init__(self, folder: Path) -> None:
        text = "# A heading\n\nThe treaty was signed by Ada Lovelace in 1843.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" * 6
        page = f"<html><head><title>T</title></head><body><h1>H</h1><p>{text}</p><table><tr><td>1</td></tr></table></body></html>"
        mail = f"From: a@b.c\nSubject: s\nContent-Type: text/html\n\n{page}"
        self._seeds = [(text.encode(), ".md"), (text.encode("utf-16"), ".txt"), (page.encode(), ".html"), (mail.encode(), ".eml")]
        self._seeds.append((json.dumps({"nbformat": 4, "cells": [{"cell_type": "markdown", "source": [text]}]}).encode(), ".ipynb"))
        self._seeds.append((b"{\\rtf1\\ansi " + text.encode() + b"}", ".rtf"))
        self._seeds.append((chapter_pdf(report.chapters("february")[0]), ".pdf"))

    def mutant(self, draw: random.Random) -> bytes:
        data, self.suffix = draw.choice(self._seeds)
        return flipped(data, draw)

    def run(self, path: Path) -> None:
        load_document(path)


class States:
    def __init__(self, folder: Path) -> None:
        model = folder / "m.gguf"
        model.write_bytes(b"GGUF" * 100)
        cache = StateCache(folder / "states")
        assert cache.save(FakeState(model, list(range(600))))  # type: ignore[arg-type]
        (path,) = (folder / "states").glob("*.state")
        self._name, self._data = path.name, path.read_bytes()

    def mutant(self, draw: random.Random) -> bytes:
        head = 3_000  # the header; what comes behind it has a checksum
        return flipped(self._data[:head], draw) + self._data[head:]

    def run(self, path: Path) -> None:
        folder = path.parent / f"states-{os.getpid()}"
        folder.mkdir()
        (folder / self._name).write_bytes(path.read_bytes())
        for entry in StateCache(folder).entries():
            entry.common_prefix(entry.tokens)


class Requests:
    def __init__(self, folder: Path) -> None:
        body = {
            "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 1, "n": 1, "stream": False,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "maxProperties": 3}}},
        }  # fmt: skip
        self._seed = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})

    def mutant(self, draw: random.Random) -> bytes:
        if draw.random() < 0.3:
            return flipped(self._seed.encode(), draw)
        return json.dumps(self._changed(json.loads(self._seed), draw)).encode()

    def _changed(self, value: object, draw: random.Random) -> object:
        if draw.random() < 0.15:
            return draw.choice((None, 5, -1, 1e999, 10**30, "", "x" * 5000, [], {}, [[]], {"a": {}}, True, "\ud800", 0.1))
        if isinstance(value, dict):
            return {key: self._changed(inner, draw) for key, inner in value.items() if draw.random() > 0.05}
        if isinstance(value, list):
            return [self._changed(inner, draw) for inner in value] * draw.choice((1, 1, 1, 2))
        return value

    def run(self, path: Path) -> None:
        for item in from_requests(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()):
            item.digest()
            markdown_name(item.custom_id).encode()
            if item.body is not None:
                prompt_of(item.body)


TARGETS: dict[str, Callable[[Path], Models | Documents | States | Requests]] = {
    "models": Models, "documents": Documents, "states": States, "requests": Requests,
}  # fmt: skip


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    signal.alarm(SECONDS)


def silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


def tried(run: Callable[[Path], None], path: Path, words: Path) -> str:
    """How a mutant ended: "read", "refused", or what went wrong."""
    pid = os.fork()
    if pid == 0:
        limit()
        silence()
        code = 0
        try:
            run(path)
        except SelfExtendError:
            code = 3
        except MemoryError:
            code = 4
        except BaseException:
            words.write_text(traceback.format_exc())
            code = 5
        os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"hang: more than {SECONDS} s" if name == "SIGALRM" else f"crash: {name}"
    ends = {0: "read", 3: "refused", 4: f"memory: more than {GIB} GiB"}
    return ends.get(os.WEXITSTATUS(status)) or f"error: {words.read_text().strip().splitlines()[-1][:150]}"


def fuzz(name: str, count: int, seed: int, folder: Path) -> Counter[str]:
    """Try `count` mutants of one target; how they ended. Faults are kept."""
    target = TARGETS[name](folder)
    ends: Counter[str] = Counter()
    for number in range(count):
        data = target.mutant(random.Random(f"{name} {seed} {number}"))
        path = folder / f"mutant{getattr(target, 'suffix', '.gguf')}"
        path.write_bytes(data)
        end = tried(target.run, path, folder / "words")
        ends[end] += 1
        if end not in ("read", "refused"):
            KEPT.mkdir(parents=True, exist_ok=True)
            (KEPT / f"{name}-{seed}-{number}{path.suffix}").write_bytes(data)
            print(f"{name} {seed} {number}: {end}", flush=True)
    return ends


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), choices=[*TARGETS, []])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faults = 0
    for name in options.targets or TARGETS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            ends = fuzz(name, options.count, options.seed, Path(folder))
        faults += sum(n for end, n in ends.items() if end not in ("read", "refused"))
        print(f"{name}: {options.count} mutants in {time.monotonic() - started:.0f} s: {dict(ends)}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
