"""Open WebUI in front of a server that runs: it is started by its recipe, and asked over its own HTTP interface.

Its environment has gigabytes, so `make integrations-open-webui` is apart from `make integrations`; skipped where it isn't installed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fixture_model import WINDOW, passkey_prompt

pytestmark = [pytest.mark.process, pytest.mark.native]

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "docs" / "integrations" / "open_webui.sh"
PATH = f"{ROOT / 'build' / 'open-webui' / 'bin'}{os.pathsep}{os.environ['PATH']}"
ADA = {"name": "Ada", "email": "ada@example.org", "password": "a-Pass-of-23-letters"}
ITS_OWN_WORDS = 2 * WINDOW  # what it puts around a document takes a window and a half
PATIENCE_S = 600.0


@dataclass
class Opened:
    """Open WebUI with a user who signed in: its interface, and the model that it offers."""

    http: httpx.Client
    model: str

    def upload(self, name: str, text: str) -> str:
        """The id of a file that it has taken in."""
        id = self.http.post("/api/v1/files/", files={"file": (name, text.encode())}).raise_for_status().json()["id"]
        while (status := self._status(id)) in ("pending", "processing"):
            time.sleep(0.1)
        assert status == "completed"
        return str(id)

    def _status(self, id: str) -> str:
        return str(self.http.get(f"/api/v1/files/{id}/process/status").raise_for_status().json()["status"])

    def ask(self, *said: str, files: tuple[str, ...] = (), stream: bool = False) -> httpx.Response:
        """What it answers to a conversation of questions and answers in turns."""
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
        asked = {"model": self.model, "stream": stream, "messages": messages, "files": [{"type": "file", "id": id} for id in files]}
        return self.http.post("/api/chat/completions", json=asked)


@pytest.fixture(scope="module")
def opened(serving: Callable[[int], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    if not shutil.which("open-webui", path=PATH):
        pytest.skip("Open WebUI is not installed: make integrations-open-webui")
    folder = tmp_path_factory.mktemp("open-webui")
    settings = {"PATH": PATH, "HOME": str(folder), "DATA_DIR": str(folder / "data"), "WEBUI_SECRET_KEY": "of-this-test"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "log"
    with serving(3 * WINDOW + ITS_OWN_WORDS + WINDOW) as url, log.open("w") as stream:
        command = ["sh", str(RECIPE), url, "--port", str(port)]
        with subprocess.Popen(command, env=settings | {"OFFLINE_MODE": "true"}, cwd=folder, stdout=stream, stderr=stream) as process:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
                    while not answers(http):
                        assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
                        time.sleep(0.2)
                    yield signed_in(http)
            finally:
                process.terminate()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def signed_in(http: httpx.Client) -> Opened:
    http.post("/api/v1/auths/signup", json=ADA).raise_for_status()
    http.headers["Authorization"] = f"Bearer {http.post('/api/v1/auths/signin', json=ADA).raise_for_status().json()['token']}"
    (model,) = http.get("/api/models").raise_for_status().json()["data"]
    return Opened(http, model["id"])


@pytest.fixture(scope="module")
def asked() -> tuple[str, str, str]:
    """A text of three windows, a question about it, and the key that it hides."""
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    text, _, question = prompt.removesuffix(" The pass key is").rpartition("\n")
    return text, question, key


def content(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def pieces(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.raise_for_status().text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_it_offers_the_model(opened: Opened) -> None:
    assert opened.model == "fixture"


def test_a_document_of_three_windows_is_read_whole_and_once(opened: Opened, asked: tuple[str, str, str]) -> None:
    text, question, key = asked
    file = opened.upload("text.txt", text)
    first = opened.ask(question, files=(file,))
    assert key in content(first)
    usage = first.json()["usage"]
    assert usage["prompt_tokens"] > 3 * WINDOW
    again = opened.ask(question, content(first), question, files=(file,))
    assert key in content(again)
    details = again.json()["usage"]
    assert details["prompt_tokens"] > usage["prompt_tokens"]
    assert details["prompt_tokens"] - details["prompt_tokens_details"]["cached_tokens"] < WINDOW // 4


def test_an_answer_comes_in_pieces(opened: Opened, asked: tuple[str, str, str]) -> None:
    text, question, key = asked
    streamed = pieces(opened.ask(question, files=(opened.upload("streamed.txt", text),), stream=True))
    said = [piece["choices"][0]["delta"].get("content") or "" for piece in streamed if piece.get("choices")]
    assert key in "".join(said) and len([piece for piece in said if piece]) > 1


def test_a_text_that_was_pasted_is_read(opened: Opened, asked: tuple[str, str, str]) -> None:
    text, question, key = asked
    assert key in content(opened.ask(f"{text}\n{question}"))


def test_what_does_not_fit_is_told_with_its_figures(opened: Opened, asked: tuple[str, str, str]) -> None:
    text, question, _ = asked
    refused = opened.ask(question, files=(opened.upload("long.txt", text * 3),))
    assert refused.status_code == 400 and "Send less, or start the server with --need-tokens" in refused.text
