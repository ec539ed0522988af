"""The hand-over to scikit-build-core: run one of its hooks inside a prepared tree, in a process of its own.

Knows how to call it and how to read its failures. Must not know patches, pins or caches.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BuildError
from .toolchain import INSTALL_HINT, cpu_count

_RUN = """
import json, sys
from scikit_build_core import build
hook, arguments, result = json.loads(sys.argv[1])
value = getattr(build, hook)(*arguments)
with open(result, "w", encoding="utf-8") as stream:
    json.dump(value, stream)
"""
# CMake installs headers, CMake files and second copies of the libraries at the environment's root.
_ROOT_COPIES = ("/bin/**", "/include/**", "/lib/**", "/lib64/**")
# A wheel has no symbolic links: libllama.so, .so.0 and .so.0.5.0 are three whole files, and nothing loads the last.
_THIRD_COPIES = ("/llama_cpp/lib/lib*.so.*.*.*", "/llama_cpp/lib/lib*.*.*.*.dylib")

_PROGRESS = re.compile(r"\[\s*(\d+)(?:/(\d+)|%)\]")
_FAILURES = (
    re.compile(r"(?i)\berror(?: [A-Z]+\d+)?:|^CMake Error|^\w+Error\b|No space left|: (?:command )?not found$"),
    re.compile(r"^FAILED:"),
)


def call_hook(hook: str, tree: Path, arguments: list[Any], log: Path) -> Any:
    """The JSON-able result of scikit-build-core's `hook`; its output goes to `log`, progress to stdout."""
    environment = dict(os.environ)
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(cpu_count()))
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        request = json.dumps([hook, arguments, str(result)])
        code = _run([sys.executable, "-c", _RUN, request], tree, environment, log)
        if code == 0 and result.is_file():
            return json.loads(result.read_text(encoding="utf-8"))
    raise BuildError(_explain(log))


def lean_settings(given: Mapping[str, str | list[str]] | None, lean_cmake: Path) -> dict[str, str | list[str]]:
    """The caller's config settings over this package's own."""
    own: dict[str, str | list[str]] = {
        "cmake.build-type": "Release",
        "cmake.define.CMAKE_PROJECT_llama.cpp_INCLUDE": lean_cmake.as_posix(),
        "cmake.verbose": "false",
        "wheel.exclude": [*_ROOT_COPIES, *_THIRD_COPIES],
    }
    return {**own, **(given or {})}


def _run(command: list[str], tree: Path, environment: dict[str, str], log: Path) -> int:
    shown = 0
    with (
        log.open("w", buffering=1, encoding="utf-8", errors="replace") as record,
        subprocess.Popen(
            command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", errors="replace",
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            record.write(line)
            percent = _percent(line)
            if percent >= shown + 10:
                shown = percent - percent % 10
                print(f"compiling llama.cpp: {shown} %", flush=True)
    return process.returncode


def _percent(line: str) -> int:
    match = _PROGRESS.match(line)
    if match is None:
        return 0
    return int(match[1]) if match[2] is None else 100 * int(match[1]) // max(1, int(match[2]))


def _explain(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    if re.search(r"No CMAKE_C(XX)?_COMPILER could be found", text):
        return f"CMake found no C++ compiler; {INSTALL_HINT}."
    # CMake puts its message on the lines below "CMake Error at FILE:LINE (message):".
    lines = [line.strip() for line in re.sub(r"(?m)^(CMake Error.*:)\s*\n\s*", r"\1 ", text).splitlines()]
    telling = next(filter(None, ([line for line in lines if kind.search(line)] for kind in _FAILURES)), [])
    for line in telling[:10]:
        print(line[:300], file=sys.stderr)
    first = f"it says {telling[0][:200]!r}" if telling else "it says nothing of an error"
    return f"llama.cpp did not build: {first}; read the whole log in {log}, mend its cause and run the command again."
