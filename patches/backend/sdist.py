"""The pinned source distribution: find it, download it with the user's own pip, check it, read it.

Knows the tarball and its hash. Must not know patches or builds, and names no host: where packages come from
is pip's configuration.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .cache import cache_root, file_sha256, replace_file, writable
from .errors import BuildError
from .pin import Pin

SDIST_VARIABLE = "SELFEXTEND_LLAMA_SDIST"

# Parts of the tarball that no build reads; they are five sixths of it.
UNUSED = tuple(
    PurePosixPath(name).parts
    for name in (
        ".git",
        ".github",
        "docker",
        "docs",
        "examples",
        "tests",
        "vendor/llama.cpp/.devops",
        "vendor/llama.cpp/.git",
        "vendor/llama.cpp/.github",
        "vendor/llama.cpp/benches",
        "vendor/llama.cpp/conversion",
        "vendor/llama.cpp/docs",
        "vendor/llama.cpp/examples",
        "vendor/llama.cpp/gguf-py",
        "vendor/llama.cpp/media",
        "vendor/llama.cpp/models",
        "vendor/llama.cpp/tests",
        "vendor/llama.cpp/tools/server",
        "vendor/llama.cpp/tools/ui",
    )
)


def local_sdist(pin: Pin) -> Path | None:
    """The checked source distribution if this machine has it, without any download."""
    named = os.environ.get(SDIST_VARIABLE)
    if named:
        return _named_sdist(Path(named).expanduser(), pin)
    kept = cache_root() / "sdists" / pin.sdist_name
    return kept if kept.is_file() and file_sha256(kept) == pin.sha256 else None


def fetch_sdist(pin: Pin) -> Path:
    """The checked source distribution: $SELFEXTEND_LLAMA_SDIST, the cache, or a download by pip into the cache."""
    found = local_sdist(pin)
    if found is not None:
        return found
    folder = cache_root() / "sdists"
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".download-")
    with scratch as name:
        replace_file(_download(pin, Path(name)), folder / pin.sdist_name)
    return folder / pin.sdist_name


def members(sdist: Path, pin: Pin, everything: bool = False) -> Iterator[tuple[str, bytes]]:
    """Regular files of the tarball as (path below its top folder, bytes), less what no build reads."""
    try:
        with tarfile.open(sdist, "r:gz") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isfile() or parts[0] != pin.sdist_stem or ".." in parts:
                    continue
                inner = parts[1:]
                if not everything and any(inner[: len(unused)] == unused for unused in UNUSED):
                    continue
                stream = tar.extractfile(member)
                if stream is not None:
                    yield "/".join(inner), stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BuildError(f"{sdist} cannot be unpacked ({error}); delete it and build again.") from None


def _named_sdist(file: Path, pin: Pin) -> Path:
    if not file.is_file():
        raise BuildError(
            f"{SDIST_VARIABLE} names {file}, which is not a file; point it at {pin.sdist_name} or unset it."
        )
    actual = file_sha256(file)
    if actual != pin.sha256:
        raise BuildError(
            f"{file} has SHA-256 {actual}, but patches/pin demands {pin.sha256}; "
            f"point {SDIST_VARIABLE} at an unaltered {pin.sdist_name} or unset it to download one."
        )
    return file


def _download(pin: Pin, folder: Path) -> Path:
    """Run `pip download`; the hash goes into its requirement, so that pip runs no code of an unknown archive."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{pin.package}=={pin.version} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", pin.package]
    if importlib.util.find_spec("scikit_build_core") and (shutil.which("cmake") or importlib.util.find_spec("cmake")):
        command.append("--no-build-isolation")
    command += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(requirement)]
    print(f"downloading {pin.package} {pin.version} with pip", flush=True)
    # pip tells its build backends where they lie in variables, which this pip must not take for its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("_PYPROJECT_HOOKS_", "PEP517_"))}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    archives = sorted(folder.glob("*.tar.gz"))
    if "DO NOT MATCH THE HASHES" in done.stdout:
        raise BuildError(_wrong_hash(pin, _first(r"Got\s+([0-9a-f]{64})", done.stdout)))
    if done.returncode != 0 or len(archives) != 1:
        reason = _first(r"ERROR: (.+)", done.stdout) or _first(r"\w+Error: (.+)", done.stdout)
        if not reason:
            print(done.stdout, flush=True)
            reason = "see above"
        raise BuildError(
            f"pip could not download {pin.package} {pin.version} ({reason.rstrip('.')}); check the network and the "
            f"package index pip is configured with, or set {SDIST_VARIABLE} to a local {pin.sdist_name}."
        )
    actual = file_sha256(archives[0])
    if actual != pin.sha256:
        raise BuildError(_wrong_hash(pin, actual))
    return archives[0]


def _wrong_hash(pin: Pin, actual: str) -> str:
    return (
        f"the {pin.sdist_name} that pip downloaded has SHA-256 {actual or 'unknown'}, but patches/pin demands "
        f"{pin.sha256}; check which package index pip is configured with, or set {SDIST_VARIABLE} to a good copy."
    )


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
