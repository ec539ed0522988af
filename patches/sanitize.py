"""Run the native tests on a library built with AddressSanitizer and UndefinedBehaviorSanitizer: `make sanitize`.

Builds the patched tree once into the cache folder (half an hour on two cores, seconds when few files changed) and shows each report once.
Linux and GCC only. Further arguments go to pytest; those behind "fuzz" to tests/fuzz.py, as in `sanitize.py fuzz models --count 1000`.
Changes nothing in the repository.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from backend.cache import cache_root
from backend.errors import BuildError
from backend.pin import read_pin
from backend.sdist import fetch_sdist
from backend.series import read_series
from backend.toolchain import cpu_count, run
from backend.tree import own_sources, patched_files, write_files

FOLDER = Path(__file__).resolve().parent
SUPPRESSIONS = FOLDER / "sanitize.supp"
FLAGS = "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined"
# ggml without assert(), as every release build: the stock library fails that of ggml-alloc.c:976 as well (a sliding window, q8_0, 16 tokens
# and then 1), and a tiny random draft that of a softmax. GGML_ASSERT stays, and llama's assert().
GGML = "add_compile_definitions(NDEBUG)\n"

# Python keeps memory until it ends, and so does llama.cpp what it registers: leaks of a library need a program without Python.
# A child with a limit gets no memory, as without sanitizers, and freed memory isn't kept for long: it counts towards the limit.
ADDRESS = "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16"
UNDEFINED = f"print_stacktrace=1:suppressions={SUPPRESSIONS}"
# What a report says in its first line that differs from run to run.
VARIES = re.compile(r"==\d+==|0x[0-9a-f]+|\b(thread|pid|T)\d*\b")


def build(folder: Path) -> Path:
    """The folder of the library."""
    pin = read_pin(FOLDER / "pin")
    tree, built, ggml = folder / f"tree-{pin.version}", folder / f"build-{pin.version}", folder / "ggml.cmake"
    folder.mkdir(parents=True, exist_ok=True)
    ggml.write_text(GGML, encoding="utf-8")
    write_files(patched_files(fetch_sdist(pin), pin, read_series(FOLDER), own_sources(FOLDER / "src")), tree)
    failed = "the library did not build with sanitizers; read the compiler's words above."
    run(
        "cmake", "-S", str(tree), "-B", str(built), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=None", "-DLLAVA_BUILD=OFF",
        f"-DCMAKE_C_FLAGS={FLAGS}", f"-DCMAKE_CXX_FLAGS={FLAGS}", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={FOLDER / 'lean.cmake'}",
        f"-DCMAKE_PROJECT_ggml_INCLUDE={ggml}", failed=failed,
    )  # fmt: skip
    run("cmake", "--build", str(built), "--target", "llama", "--parallel", str(cpu_count()), failed=failed)
    return next(built.rglob("libllama.so")).parent


def runtime(name: str) -> str:
    """A library of the compiler's, to be loaded before Python's own."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise BuildError(f"gcc has no {name}; install its sanitizers (Debian and Ubuntu: apt install gcc), then run the command again.")
    return found


def run_tests(library: Path, logs: Path, arguments: Sequence[str]) -> int:
    """The exit code of pytest, or of the fuzzers; the reports of all processes are in `logs` then."""
    environment = os.environ | {
        "LLAMA_CPP_LIB_PATH": str(library),
        # libstdc++ with it: ASan can't hook into exceptions of a library that comes later
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": f"{ADDRESS}:log_path={logs / 'report'}",
        "UBSAN_OPTIONS": f"{UNDEFINED}:log_path={logs / 'report'}",
    }
    tests = ["-m", "pytest", "-q", "-m", "native and not model", *(arguments or ["tests/native"])]
    command = ["tests/fuzz.py", *arguments[1:]] if arguments[:1] == ["fuzz"] else tests
    return subprocess.run([sys.executable, *command], cwd=FOLDER.parent, env=environment).returncode


def reports(logs: Path) -> list[str]:
    """Each report once, whatever its addresses and process."""
    found: dict[str, str] = {}
    for file in sorted(logs.iterdir()):
        for report in re.split(r"\n(?=\S+:\d+:\d+: runtime error|=+\n==\d+==ERROR)", file.read_text(errors="replace")):
            first = next((line for line in report.splitlines() if line.strip("=\n ")), "")
            if first:
                found.setdefault(VARIES.sub("", first), report.strip())
    return list(found.values())


def main(arguments: Sequence[str]) -> int:
    try:
        library = build(cache_root() / "sanitize")
        with tempfile.TemporaryDirectory() as folder:
            code = run_tests(library, Path(folder), arguments)
            found = reports(Path(folder))
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*found, f"{len(found)} reports of the sanitizers", sep="\n\n")
    return 1 if found or code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
