"""Install the wheels of a folder where no compiler is on PATH, and read three trained windows with some of the variants.

    python patches/try_wheels.py dist [VARIANT ...]       default: the one that is chosen, haswell (AVX2) and sse42

What else is needed comes from pip's index. Prints one line a variant; exits with 1 at the first that doesn't find its pass key.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
READ = """
import sys
sys.path.append(sys.argv[1])
from support.fixture_model import FIXTURE_MODEL, WINDOW, passkey_prompt
from selfextend_local import SelfExtendLlama
prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
llm = SelfExtendLlama(FIXTURE_MODEL, need_tokens=3 * WINDOW + 64)
answer = llm.create_completion(prompt, max_tokens=8, temperature=0)["choices"][0]["text"]
from selfextend_local.native import probe
print(probe().system_info.split(" | ", 1)[-1])
raise SystemExit(key not in answer)
"""
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "cmake", "ninja")


def main() -> int:
    dist, variants = Path(sys.argv[1]).resolve(), sys.argv[2:] or ["", "haswell", "sse42"]
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True, symlinks=True)
        programs = Path(scratch) / "bin"
        environment = {**os.environ, "PATH": str(programs)}
        environment.pop("PYTHONPATH", None)
        assert not any(shutil.which(name, path=environment["PATH"]) for name in COMPILERS)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *map(str, sorted(dist.glob("*.whl")))]
        subprocess.run(pip, env=environment, check=True)
        for variant in variants:
            read = [str(programs / "python"), "-c", READ, str(TESTS)]
            done = subprocess.run(read, env={**environment, "LLAMA_CPU_VARIANT": variant}, capture_output=True, text=True, check=False)
            outcome = "FAILED" if done.returncode else "found"
            print(f"{variant or 'chosen'}: {outcome}; {done.stdout.strip() or done.stderr[-1000:]}", flush=True)
            if done.returncode:
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
