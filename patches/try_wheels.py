"""Check the wheels of a folder, install them where PATH has no compiler, and read three trained windows with several kinds of CPU.

    python patches/try_wheels.py dist [VARIANT ...]       default: the one that is chosen, haswell (AVX2) and sse42

Where qemu-x86_64 is on PATH, the library also chooses for itself on an emulated Haswell and Nehalem. What else is needed comes from pip's
index. Prints one line a try; exits with 1 at the first that doesn't find its pass key, or with another library than it should.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
READ = """
import re, sys
from pathlib import Path
sys.path.append(sys.argv[1])
from support.fixture_model import FIXTURE_MODEL, WINDOW, passkey_prompt
from selfextend_local import SelfExtendLlama
prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
llm = SelfExtendLlama(FIXTURE_MODEL, need_tokens=3 * WINDOW + 64)
answer = llm.create_completion(prompt, max_tokens=8, temperature=0)["choices"][0]["text"]
maps = Path("/proc/self/maps")
print(*sorted(set(re.findall(r"ggml-cpu-([\\w.]+)\\.so", maps.read_text() if maps.exists() else ""))))
raise SystemExit(key not in answer)
"""
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "cmake", "ninja")
EMULATED = {"Haswell": "haswell", "Nehalem": "sse42"}
EMULATOR = "qemu-x86_64"


def doubtful(wheel: Path) -> list[str]:
    """Files of a wheel that are there twice, and the mark of typed packages where it is missing."""
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    seen: dict[str, str] = {}
    twice = []
    for name, data in contents.items():
        first = seen.setdefault(hashlib.sha256(data).hexdigest(), name)
        twice += [f"{wheel.name}: {name} is {first} again"] if data and first != name else []
    typed = any(name.endswith("/py.typed") for name in contents)
    return twice + ([] if typed else [f"{wheel.name}: no py.typed"])


def install(wheels: list[Path], folder: Path) -> tuple[Path, dict[str, str]]:
    """An environment with the wheels, as its Python and its variables: no compiler is on its PATH."""
    venv.create(folder, with_pip=True, symlinks=True)
    programs = folder / "bin"
    environment = {**os.environ, "PATH": str(programs)}
    for name in ("PYTHONPATH", "CC", "CXX"):
        environment.pop(name, None)
    assert not any(shutil.which(name, path=environment["PATH"]) for name in COMPILERS)
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *map(str, wheels)]
    subprocess.run(pip, env=environment, check=True)
    return programs / "python", environment


def reads(name: str, command: list[str], environment: dict[str, str], expected: str) -> bool:
    done = subprocess.run([*command, "-c", READ, str(TESTS)], env=environment, capture_output=True, text=True, check=False)
    used = done.stdout.strip()
    right = done.returncode == 0 and expected in ("", used)
    print(f"{name}: {'found' if right else 'FAILED'}; {used or done.stderr[-1000:]}", flush=True)
    return right


def main() -> int:
    wheels = sorted(Path(sys.argv[1]).resolve().glob("*.whl"))
    if problems := [line for wheel in wheels for line in doubtful(wheel)]:
        print("\n".join(problems))
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        python, environment = install(wheels, Path(scratch))
        for variant in sys.argv[2:] or ["", "haswell", "sse42"]:
            if not reads(variant or "chosen", [str(python)], {**environment, "LLAMA_CPU_VARIANT": variant}, variant):
                return 1
        emulator = shutil.which(EMULATOR)
        for cpu, variant in EMULATED.items() if emulator and not sys.argv[2:] else ():
            if not reads(f"{EMULATOR} -cpu {cpu}", [str(emulator), "-cpu", cpu, str(python)], environment, variant):
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
