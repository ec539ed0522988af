"""A batch of many documents that is ended with kill -9 again and again: is each document there exactly once in the end?

    python docs/benchmarks/batch_kills.py --documents 200 --kills 30

Real command, real model (that of the tests, 4.7M parameters), documents of 40 to 400 words. Each run is killed with all its children at a
random time after its first new line. Exit code 1 if a document is missing or there twice, a line is no JSON, or what was done changed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "data" / "fixture.gguf"


def write_documents(folder: Path, count: int, dice: random.Random) -> None:
    words = (ROOT / "tests" / "fixture_model" / "ruth.txt").read_text(encoding="utf-8").split()
    for i in range(count):
        start, length = dice.randrange(len(words) - 400), dice.randint(40, 400)
        (folder / f"letter-{i:03}.txt").write_text(f"Letter {i}.\n\n" + " ".join(words[start : start + length]), encoding="utf-8")


def whole_lines(path: Path) -> list[bytes]:
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].splitlines()


def killed(command: list[str], out: Path, seconds: float) -> bool:
    """Whether the run was ended by us, `seconds` after its first new line."""
    before = len(whole_lines(out))
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while run.poll() is None and len(whole_lines(out)) == before:
        time.sleep(0.005)
    time.sleep(seconds)
    if run.poll() is not None:
        return False
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return True


@click.command()
@click.option("--documents", default=200, show_default=True)
@click.option("--kills", default=30, show_default=True)
@click.option("--longest", default=4.0, show_default=True, help="Seconds from a run's first line to its end, at most.")
@click.option("--seed", default=0, show_default=True)
def main(documents: int, kills: int, longest: float, seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "letters", Path(name) / "out.jsonl"
        folder.mkdir()
        write_documents(folder, documents, dice)
        command = [str(Path(sys.executable).with_name("selfextend")), "summarize", str(folder), "-o", str(out), "--model", str(MODEL)]
        command += ["--max-tokens", "8", "--threads", "1"]
        done, changed, torn = 0, 0, 0
        first: dict[str, bytes] = {}
        while done < kills and killed(command, out, dice.uniform(0, longest)):
            done += 1
            torn += not out.read_bytes().endswith(b"\n")
            for line in whole_lines(out):
                changed += first.setdefault(json.loads(line)["custom_id"], line) != line
            print(f"kill {done}: {len(whole_lines(out))} of {documents} documents", flush=True)
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        seen = Counter(json.loads(line)["custom_id"] for line in whole_lines(out))
        twice = sum(count > 1 for count in seen.values())
        found = f"{len(seen)} there, {twice} twice, {changed} changed, exit code {ended}"
        print(f"{documents} documents, {done} kills, {torn} torn lines: {found}")
        sys.exit(len(seen) != documents or twice > 0 or changed > 0 or ended != 0)


if __name__ == "__main__":
    main()
