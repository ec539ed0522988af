"""kill -9 `selfextend summarize` at random moments, run it again, and count the lines: each document has exactly one.

    python docs/benchmarks/batch_kill.py [--kills N] [--seed N]

Real runs of the command on the default model, with one thread: twelve short documents of the sample folder's texts, and its
three broken files. A run that ends before its kill is followed by one that begins anew, until there were that many kills.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from selfextend_local.sample import prose
from selfextend_local.sample.folder import write_folder

CHAPTERS = (prose.FOREWORD, prose.STATION, prose.PEOPLE, prose.METHODS, prose.GALE, prose.BIRDS)


def write_documents(folder: Path) -> list[str]:
    """Names of twelve short texts and three broken files."""
    for path in write_folder(folder):
        if not path.name.startswith("broken"):
            path.unlink()
    for number, chapter in enumerate(CHAPTERS):
        for half in (0, 1):
            (folder / f"text-{number}{half}.txt").write_text(chapter.paragraphs[half][:400], encoding="utf-8")
    return sorted(map(str, folder.iterdir()))


def check(out: Path, names: list[str]) -> str | None:
    """What is wrong with a finished file; None if nothing is."""
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    if Counter(line["custom_id"] for line in lines) != Counter(names):
        return "not one line for each document"
    if sorted(line["custom_id"] for line in lines if line["error"]) != [name for name in names if "broken" in name]:
        return "other failures than the broken files"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        names, out = write_documents(Path(place) / "docs"), Path(place) / "out.jsonl"
        code = "from selfextend_cli.summarize.command import main; main()"
        command = [sys.executable, "-c", code, str(Path(place) / "docs"), "-o", str(out), "--max-words", "8", "--threads", "1"]

        def run() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        started = time.perf_counter()
        with run() as whole:
            whole.wait()
        seconds = time.perf_counter() - started
        out.unlink()
        killed = finished = torn = 0
        while killed < arguments.kills:
            with run() as process:
                try:
                    process.wait(timeout=dice.uniform(0, seconds))
                    finished += 1
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += 1
            data = out.read_bytes() if out.exists() else b""
            torn += bool(data) and not data.endswith(b"\n")
            if process.returncode == 3:
                if wrong := check(out, names):
                    print(wrong)
                    return 1
                out.unlink()
        with run() as last:
            last.wait()
        wrong = check(out, names)
        outcome = wrong or "every file exact"
        print(f"{killed} kills within {seconds:.1f} s of a run, {torn} torn lines, {finished} files finished between; {outcome}")
        return wrong is not None


if __name__ == "__main__":
    sys.exit(main())
