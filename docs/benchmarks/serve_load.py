"""Eight clients at once: does the server's memory stay flat, does every request end, and is every answer right?

    python docs/benchmarks/serve_load.py tests/data/fixture.gguf --minutes 10

The server is a process of its own with a model that finds pass keys. Each client draws at random: a pass key in a text, a question about
one of four documents, a streamed answer that it leaves in the middle, a question that it leaves before it is answered, a prompt that is
too long, a body that is no request. A line a minute: requests of each kind, resident memory. Exit code 1 if an answer that was right when
the same was asked alone is another, a request doesn't end as it should, or memory after the first tenth of the time grows by more than 2 %.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click
import httpx
import psutil

CLIENTS = 8
GROWTH = 0.02
PATIENCE_S = 600.0
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
SERVE = [sys.executable, "-c", "from selfextend_cli.main import main; main()", "serve", "--port", "0", "--threads", "1"]


def passkey(seed: int, lines: int) -> tuple[str, str]:
    key = "".join(random.Random(seed).choices("0123456789", k=5))
    text = [NOISE] * lines
    text.insert(seed % lines, f"The pass key is {key}. Remember it. {key} is the pass key.")
    return "\n".join([*text, "What is the pass key? The pass key is"]), key


def body(question: str, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}], "max_tokens": 12, **fields}


class Load:
    """What the clients share."""

    def __init__(self, url: str, end: float) -> None:
        self.url, self.end = url, end
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.expected: dict[str, str] = {}
        self.documents: list[str] = []
        self.capacity = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Each question alone: what its answer is."""
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as http:
            self.capacity = http.get("/v1/models").json()["data"][0]["selfextend"]["n_ctx"]
            for number in range(4):
                text, key = passkey(100 + number, 40)
                files = {"file": (f"{number}.txt", text.rpartition("\n")[0].encode())}
                self.documents.append(http.post("/v1/documents", files=files).raise_for_status().json()["id"])
            for seed in range(12):
                self.expected[f"passkey {seed}"] = self.passkey(http, seed)
            for number in range(4):
                self.expected[f"document {number}"] = self.document(http, number)

    def passkey(self, http: httpx.Client, seed: int) -> str:
        return self.answer(http, body(passkey(seed, 10 + seed % 3)[0]))

    def document(self, http: httpx.Client, number: int) -> str:
        return self.answer(http, body("What is the pass key? The pass key is", document_ids=[self.documents[number]]))

    def answer(self, http: httpx.Client, asked: dict[str, object]) -> str:
        answer = http.post("/v1/chat/completions", json=asked)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:100]}"
        return str(answer.json()["choices"][0]["message"]["content"])

    def client(self, seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < self.end:
            kind = draw.choice(["passkey", "passkey", "document", "leaves", "leaves early", "too long", "no request"])
            try:
                with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as http:
                    problem = self.one(http, kind, draw)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            with self._lock:
                self.done[kind] += 1
                if problem:
                    self.wrong.append(f"{kind}: {problem}")

    def one(self, http: httpx.Client, kind: str, draw: random.Random) -> str | None:
        if kind in ("passkey", "document"):
            number = draw.randrange(12 if kind == "passkey" else 4)
            got = (self.passkey if kind == "passkey" else self.document)(http, number)
            expected = self.expected[f"{kind} {number}"]
            same = got == expected or re.findall(r"\d{5}", got)[:1] == re.findall(r"\d{5}", expected)[:1] != []
            return None if same else f"{got!r} instead of {expected!r}"
        if kind == "leaves":
            with http.stream("POST", "/v1/chat/completions", json=body(passkey(draw.randrange(99), 30)[0], stream=True)) as answer:
                for _ in zip(range(draw.randrange(1, 12)), answer.iter_lines(), strict=False):
                    pass
            return None if answer.status_code == 200 else str(answer.status_code)
        if kind == "leaves early":
            with suppress(httpx.ReadTimeout):
                http.post("/v1/chat/completions", json=body(passkey(draw.randrange(99), 40)[0]), timeout=draw.uniform(0.05, 1))
            return None
        if kind == "too long":
            answer = http.post("/v1/chat/completions", json=body("word " * 2 * self.capacity))
            return None if answer.json()["error"]["code"] == "context_length_exceeded" else answer.text[:100]
        answer = http.post("/v1/chat/completions", content=draw.randbytes(1000))
        return None if answer.status_code == 400 else str(answer.status_code)


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--need-tokens", default=1900, show_default=True)
def main(model: str, minutes: float, need_tokens: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = os.environ | {f"SELFEXTEND_{name}_DIR": str(Path(folder, name)) for name in ("CACHE", "DATA", "STATE")}
        command = [*SERVE, "--model", model, "--need-tokens", str(need_tokens)]
        process = subprocess.Popen(command, env=home, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        lines = iter(process.stderr)
        url = next(m[1] for line in lines if (m := re.match(r"Ready: (http\S+)", line)))
        threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
        try:
            code = watched(Load(url, time.monotonic() + 60 * minutes), process, minutes)
        finally:
            process.send_signal(signal.SIGTERM)
            stopped = process.wait(PATIENCE_S)
        click.echo(f"exit code of the server after SIGTERM: {stopped}")
    sys.exit(code or stopped)


def watched(load: Load, process: subprocess.Popen[str], minutes: float) -> int:
    load.prepare()
    right = sum(key in load.expected[f"passkey {seed}"] for seed in range(12) if (key := passkey(seed, 10 + seed % 3)[1]))
    click.echo(f"asked alone, {right} of 12 pass keys are found; capacity {load.capacity:,} tokens")
    server, start = psutil.Process(process.pid), time.monotonic()
    load.end = start + 60 * minutes
    clients = [threading.Thread(target=load.client, args=(seed,)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    sizes: list[tuple[float, int]] = []
    said = 0.0
    while any(client.is_alive() for client in clients) and time.monotonic() < load.end + PATIENCE_S:
        time.sleep(1)
        sizes.append((time.monotonic() - start, server.memory_info().rss))
        if sizes[-1][0] - said >= 60:
            said = sizes[-1][0]
            click.echo(f"{said / 60:4.1f} min  {sizes[-1][1] / 1e6:7.1f} MB  {dict(load.done)}")
    stuck = sum(client.is_alive() for client in clients)
    warm = [size for at, size in sizes if at > 6 * minutes]
    tenth = max(1, len(warm) // 10)
    before, after = max(warm[:tenth]), max(warm[-tenth:])
    click.echo(f"{sum(load.done.values())} requests: {dict(load.done)}; wrong {len(load.wrong)}, stuck clients {stuck}")
    change = f"{after / before - 1:+.1%}"
    click.echo(f"resident memory {before / 1e6:.1f} MB after a tenth of the time, {after / 1e6:.1f} MB at the end ({change})")
    for problem in load.wrong[:10]:
        click.echo(problem)
    return int(bool(load.wrong or stuck or after > before * (1 + GROWTH)))


if __name__ == "__main__":
    main()
