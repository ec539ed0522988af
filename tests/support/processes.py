"""Scripts that run in a process of their own: what could abort it, or what depends on all that it has done before."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def assert_runs(script: str, *arguments: object) -> None:
    """Run a Python script, which may import `support`, with these arguments; fail with its stderr if it fails."""
    tests = str(Path(__file__).resolve().parents[1])
    python_path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": python_path, "GGML_NO_BACKTRACE": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
