"""Two Dask workers against one: the seconds of `selfextend summarize --scheduler` on the same documents.

    python docs/benchmarks/batch_dask.py [--rounds N] [--max-words N]

An ordinary `dask scheduler`, and `dask worker` processes with one thread each; the model has one thread in each, too. The runs
take turns, each with new workers, so that loading the model counts; of each number of workers the least time counts.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from distributed import Client

from selfextend_local.sample.folder import write_folder


def run(folder: Path, workers: int, max_words: int) -> float:
    with socket.socket() as free, tempfile.TemporaryDirectory() as place, ExitStack() as started:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()

        def start(*arguments: str) -> None:
            command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=place)
            started.callback(process.wait)
            started.callback(process.terminate)

        address = f"tcp://127.0.0.1:{port}"
        start("scheduler", "--host", "127.0.0.1", "--port", port)
        for _ in range(workers):
            start("worker", address, "--nthreads", "1", "--no-nanny")
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        begun = time.perf_counter()
        code = "from selfextend_cli.summarize.command import main; main()"
        command = [sys.executable, "-c", code, str(folder), "-o", str(Path(place) / "out.jsonl"), "--scheduler", address]
        subprocess.run([*command, "--threads", "1", "--max-words", str(max_words)], check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-words", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for path in write_folder(place):
            if path.name.startswith("broken"):
                path.unlink()
        least: dict[int, float] = {}
        for _ in range(arguments.rounds):
            for workers in (1, 2):
                seconds = run(Path(place), workers, arguments.max_words)
                print(f"{workers} workers: {seconds:.1f} s", file=sys.stderr)
                least[workers] = min(seconds, least.get(workers, seconds))
    print(f"one worker {least[1]:.1f} s, two {least[2]:.1f} s: {least[1] / least[2]:.2f} times as fast")


if __name__ == "__main__":
    main()
