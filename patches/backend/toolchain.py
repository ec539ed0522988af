"""This machine as a compiler sees it: which compiler there is, and which CPU `-march=native` would mean.

Knows how to ask, and how to run a step of a build. Must not know what is compiled or cached.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import BuildError

# In the order in which CMake looks for them.
_NAMES = {"CC": ("cc", "gcc", "cl", "icx", "clang"), "CXX": ("c++", "g++", "CC", "cl", "icpx", "clang++")}
_LANGUAGES = {"CC": "C", "CXX": "C++"}

INSTALL_HINT = (
    "install one (Debian and Ubuntu: apt install build-essential; Fedora: dnf install gcc-c++; "
    "macOS: xcode-select --install; Windows: Visual Studio Build Tools with C++), then run the command again"
)


def compiler_versions(configured: str) -> dict[str, str]:
    """First `--version` line of each compiler by variable; empty where none answers.

    `configured` holds the CMake arguments: with CUDA among them nvcc counts too.
    """
    found = {variable: _version(_command(variable)) for variable in _NAMES}
    if "CUDA" in configured.upper():
        found["CUDACXX"] = _version([os.environ.get("CUDACXX") or "nvcc"])
    return found


def require_compilers(configured: str) -> None:
    """Raise BuildError if CMake could find no C or C++ compiler here.

    On Windows, and where CMake is told its compiler, CMake itself is the judge.
    """
    told = ("CMAKE_CXX_COMPILER=", "CMAKE_CXX_COMPILER:", "CMAKE_TOOLCHAIN_FILE")
    if sys.platform == "win32" or "CMAKE_TOOLCHAIN_FILE" in os.environ or any(word in configured for word in told):
        return
    for variable, language in _LANGUAGES.items():
        if not _version(_command(variable)):
            named = os.environ.get(variable)
            detail = f" ({variable}={named} does not run)" if named else ""
            raise BuildError(f"no {language} compiler was found{detail}; {INSTALL_HINT}.")


def run(*command: str, failed: str) -> None:
    """Run a step of a build, its output to the terminal. Raises BuildError: `failed` if it doesn't end well."""
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise BuildError(f"{command[0]} was not found; install cmake and ninja, then run the command again.") from None
    except subprocess.CalledProcessError:
        raise BuildError(failed) from None


def cpu_features() -> str:
    """The instruction sets of this CPU, as the operating system words them."""
    lines: list[str] = []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features", "isa"))][:1]
    elif sys.platform == "darwin":
        lines = _output(["sysctl", "machdep.cpu.brand_string", "hw.optional"]).splitlines()
    words = sorted(" ".join(lines).split()) or [platform.processor(), os.environ.get("PROCESSOR_IDENTIFIER", "")]
    return " ".join([platform.machine(), *words])


def cpu_count() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _command(variable: str) -> list[str]:
    named = os.environ.get(variable)
    if named:
        return shlex.split(named, posix=sys.platform != "win32")
    for name in _NAMES[variable]:
        if shutil.which(name):
            return [name]
    return []


def _version(command: list[str]) -> str:
    return _output([*command, "--version"]).strip().partition("\n")[0] if command else ""


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
