"""A KV cache in a file, with the memory of the process group limited to a share of it, against one in memory without a limit.

    python docs/benchmarks/kv_file.py MODEL.gguf TEXT.txt --tokens 262144 [--share 0.2] [--threads 2]

Both read the same tokens by recall and answer. Prints a JSON object a run: seconds, milliseconds a token of the answer, major page
faults, the most that the group held. Linux, as root: it makes a group under the memory controller (cgroup v1 or v2), in which weights and
page cache count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def group(limit: int) -> Path:
    """A new group of processes that holds at most `limit` bytes of memory."""
    v1 = (ROOT / "memory").is_dir()
    lines = Path("/proc/self/cgroup").read_text().split()
    own = next(line.split(":", 2)[2] for line in lines if (":memory:" in line if v1 else line.startswith("0::")))
    parent = (ROOT / "memory" if v1 else ROOT) / own.strip("/")
    made = parent / f"kv-file-{os.getpid()}"
    made.mkdir()
    (made / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit))
    return made


def peak(made: Path) -> int:
    names = (made / "memory.max_usage_in_bytes", made / "memory.peak")
    return next(int(name.read_text()) for name in names if name.exists())


def read(options: argparse.Namespace) -> dict[str, object]:
    from selfextend_local.engine.llama import SelfExtendLlama

    n = options.tokens
    llm = SelfExtendLlama(options.model, ga_mode="recall", n_ctx=n + 512, kv_file=options.where, n_threads=options.threads)
    words = llm.tokenize(Path(options.text).read_bytes(), add_bos=False)
    tokens = (words * -(-n // len(words)))[:n]
    started = time.perf_counter()
    llm.prefill(tokens, expect=n + 256)
    done = time.perf_counter()
    answer = list(islice(llm.generate(tokens, temp=0.0), 33))
    seconds = time.perf_counter() - done
    return {
        "cache": options.where,
        "tokens": n,
        "cache_mib": round((llm.plan.kv_bytes or 0) / (1 << 20)),
        "prefill_s": round(done - started, 1),
        "decode_ms": round(1e3 * seconds / 32, 1),
        "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
        "answer": answer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--where", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.where:
        print(json.dumps(read(options)), flush=True)
        return
    command = [sys.executable, *sys.argv, "--where"]
    found: dict[str, object] = {}
    for where in ("off", "on"):
        made, join = None, ""
        if where == "on":
            made = group(int(options.share * (1 << 20) * int(found["cache_mib"])))
            join = f"echo $$ > {made}/cgroup.procs; "
        done = subprocess.run(["sh", "-c", f'{join}exec "$@"', "sh", *command, where], stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        if made:
            found |= {"limit_mib": round(options.share * int(found["cache_mib"])), "peak_mib": peak(made) >> 20}
            made.rmdir()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
