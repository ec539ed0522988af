"""Prove every patch: its tests fail on the library built without it and pass on the library built with it.

Builds one incremental library per prefix of the series, with the own sources that its patches bring along, and runs each
patch's `Tested-By` with LLAMA_CPP_LIB_PATH pointing at it.
Knows cmake, pytest and the series; changes nothing in the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from backend.cache import cache_root
from backend.errors import BuildError
from backend.pin import Pin, read_pin
from backend.sdist import fetch_sdist, members
from backend.series import Patch, Tree, apply_series, read_series
from backend.toolchain import cpu_count, require_compilers
from backend.tree import own_place, own_sources, patched_files, write_files

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One test of one patch: what it did on both libraries, as `failed`, `passed` or what went wrong instead. A library that crashes
    in the test without the patch proves it too, as the same files run with it."""

    patch: str
    test: str
    without: str
    with_it: str

    @property
    def proven(self) -> bool:
        return self.without.startswith(("failed", "crashed")) and self.with_it == "passed"


class Workshop:
    """A source tree and a build folder that are moved from prefix to prefix; only changed files are rewritten."""

    def __init__(self, folder: Path, pin: Pin, patches: Sequence[Patch]) -> None:
        self._tree, self._build = folder / f"tree-{pin.version}", folder / f"build-{pin.version}"
        self._patches = patches
        sdist = fetch_sdist(pin)
        touched = {path for patch in patches for path in patch.paths}
        self._pristine: Tree = {path: data for path, data in members(sdist, pin) if path in touched}
        self._own = own_sources(FOLDER / "src")
        marker = self._tree / ".unpacked"
        if not marker.is_file() or marker.read_text(encoding="utf-8") != pin.sha256:
            write_files(patched_files(sdist, pin, [], {}), self._tree)
            marker.write_text(pin.sha256, encoding="utf-8")

    def library(self, count: int) -> Path:
        """The folder of the native library built with the first `count` patches."""
        files: Tree = {path: self._pristine.get(path) for patch in self._patches for path in patch.paths}
        apply_series(self._patches[:count], files)
        brought = {own_place(name) for patch in self._patches[:count] for name in patch.own}
        files |= {path: data if path in brought else None for path, data in self._own.items()}
        for path in (path for path, data in files.items() if data is None):
            (self._tree / path).unlink(missing_ok=True)
        write_files({path: data for path, data in files.items() if data is not None}, self._tree)
        self._cmake(
            "-S", str(self._tree), "-B", str(self._build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
            "-DLLAVA_BUILD=OFF", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={(FOLDER / 'lean.cmake').as_posix()}",
        )  # fmt: skip
        self._cmake("--build", str(self._build), "--target", "llama", "--parallel", str(cpu_count()))
        for name in ("libllama.so", "libllama.dylib", "llama.dll"):
            for file in sorted(self._build.rglob(name)):
                write_later(file)
                return file.parent
        raise BuildError(f"the build in {self._build} left no llama library; delete that folder and try again.")

    def _cmake(self, *arguments: str) -> None:
        try:
            done = subprocess.run(
                ["cmake", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
        except FileNotFoundError:
            raise BuildError("cmake was not found; install cmake and ninja, then run the command again.") from None
        if done.returncode != 0:
            print(done.stdout[-4000:], file=sys.stderr)
            raise BuildError("llama.cpp did not build with this prefix of the series; read the compiler's words above.")


LATER = "libselfextend-later.so"
"""Beside a library: what own sources of its patches call and later patches bring. It does nothing, and says no."""

_LLAMA = re.compile(r" U (\w*llama\w*)$", re.MULTILINE)


def write_later(library: Path) -> None:
    """Without it the loader refuses a library whose own sources name functions of later patches. Linux only."""
    names = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=False).stdout
    source = "".join(f"long {name}(void) {{ return 0; }}\n" for name in _LLAMA.findall(names))
    command = ["cc", "-x", "c", "-w", "-shared", "-fPIC", "-", "-o", str(library.parent / LATER)]
    subprocess.run(command, input=source, text=True, check=True)


def run_test(node: str, library: Path) -> str:
    """`passed`, `failed`, or what kept the test from doing either, on the native library in `library`."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", node],
            cwd=FOLDER.parent,
            env={**os.environ, "LLAMA_CPP_LIB_PATH": str(library), "LD_PRELOAD": str(library / LATER)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        suite = ElementTree.parse(report).getroot().find("testsuite") if report.is_file() else None
        return verdict(done.returncode, {} if suite is None else dict(suite.items()))


def run_tests(nodes: Sequence[str], library: Path) -> dict[str, str]:
    with ThreadPoolExecutor(cpu_count()) as pool:
        return dict(zip(nodes, pool.map(lambda node: run_test(node, library), nodes), strict=True))


def verdict(code: int, report: Mapping[str, str]) -> str:
    """What pytest's exit code and the attributes of its JUnit report say of one node id."""
    tests, failures, errors, skipped = (int(report.get(n, "0")) for n in ("tests", "failures", "errors", "skipped"))
    if not tests or errors or skipped:
        ended = "crashed" if code < 0 else "did not run"
        return "error" if errors else "skipped" if skipped else f"{ended} (exit {code})"
    if code == 0 and not failures:
        return "passed"
    if code == 1 and failures == tests:
        return "failed"
    return f"{failures} of {tests} failed (exit {code})"


def prove(workshop: Workshop, patches: Sequence[Patch], only: int | None) -> list[Row]:
    rows: list[Row] = []
    for number, patch in enumerate(patches, start=1):
        if only not in (None, number):
            continue
        print(f"{patch.name}: building without it", flush=True)
        library = workshop.library(number - 1)
        without = run_tests(patch.tested_by, library)
        print(f"{patch.name}: building with it", flush=True)
        library = workshop.library(number)
        with_it = run_tests(patch.tested_by, library)
        rows += [Row(patch.name, node, without[node], with_it[node]) for node in patch.tested_by]
    return rows


def table(rows: Sequence[Row]) -> str:
    cells = [("patch", "test", "without", "with", "")]
    cells += [(row.patch, row.test, row.without, row.with_it, "ok" if row.proven else "WRONG") for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python patches/prove.py", description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="K", type=int, help="prove patch number K alone")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where to build (default: the cache folder)")
    options = parser.parse_args(arguments)
    try:
        patches = read_series(FOLDER)
        if options.only is not None and not 1 <= options.only <= len(patches):
            raise BuildError(f"--only {options.only} is out of range; the series has {len(patches)} patches.")
        require_compilers("")
        work = (options.work or cache_root() / "prove").absolute()
        rows = prove(Workshop(work, read_pin(FOLDER / "pin"), patches), patches, options.only)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    return 0 if rows and all(row.proven for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
