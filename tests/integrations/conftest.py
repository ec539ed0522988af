"""A server for clients of every kind: `selfextend serve` with the model of the tests, as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.fixture_model import FIXTURE_MODEL

SERVE = "from selfextend_cli.main import main; main()"


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], AbstractContextManager[str]]:
    """serving(need_tokens): while the block runs, such a server; its URL."""

    @contextmanager
    def server(need_tokens: int) -> Iterator[str]:
        pytest.importorskip("starlette", reason="make integrations")
        command = [sys.executable, "-c", SERVE, "serve", "--model", str(FIXTURE_MODEL), "--need-tokens", str(need_tokens), "--port", "0"]
        log = tmp_path_factory.mktemp("server") / "log"
        home = {f"SELFEXTEND_{name}_DIR": str(log.parent / name) for name in ("CACHE", "DATA", "STATE")}
        with log.open("w") as stream, subprocess.Popen(command, env=os.environ | home, stdout=stream, stderr=stream) as process:
            try:
                while not (ready := re.search(r"Ready: (http\S+)", log.read_text(encoding="utf-8"))):
                    assert process.poll() is None, log.read_text(encoding="utf-8")
                yield ready[1]
            finally:
                process.terminate()

    return server
