"""Clients of a server that runs: each asks `selfextend serve` about a document of three windows. Skipped where it isn't installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.fixture_model import WINDOW, passkey_prompt

pytestmark = [pytest.mark.process, pytest.mark.native]

RECIPES = Path(__file__).parents[2] / "docs" / "integrations"


@pytest.fixture(scope="module")
def url(serving: Callable[[int], AbstractContextManager[str]]) -> Iterator[str]:
    with serving(4 * WINDOW) as url:
        yield url


CLIENTS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "langchain": "langchain_openai",
    "llamaindex": "llama_index.llms.openai_like",
    "haystack": "haystack",
    "pydantic_ai": "pydantic_ai",
    "dspy": "dspy",
}
ANSWERS = {"openai": 3}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_asks_about_three_windows(client: str, url: str, tmp_path: Path) -> None:
    """In one piece, and in pieces."""
    if missing(CLIENTS[client]):
        pytest.skip(f"{client} is not installed: make integrations")
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    text, _, question = prompt.removesuffix(" The pass key is").rpartition("\n")
    document = tmp_path / "text.txt"
    document.write_text(text, encoding="utf-8")
    command = [sys.executable, str(RECIPES / f"ask_with_{client}.py"), url, str(document), question]
    done = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(key) == ANSWERS.get(client, 2), done.stdout


def missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:
        return True
