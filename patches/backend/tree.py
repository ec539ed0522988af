"""The patched source tree: unpacked source distribution, patches applied, own sources copied, version set.

Knows the layout of llama-cpp-python. Must not know where the tarball came from or what is built from the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import BuildError
from .pin import Pin
from .sdist import members
from .series import Patch, Tree, apply_series

OWN_SOURCES = {"": "vendor/llama.cpp/src", "ggml-cpu": "vendor/llama.cpp/ggml/src/ggml-cpu"}
"""Where the files of `patches/src` and of its folders go in the tree."""
VERSION_FILE = "llama_cpp/__init__.py"

# What `prepare_metadata_for_build_wheel` needs; the rest of the tarball is for the compiler.
METADATA_FILES = ("pyproject.toml", "README.md", "LICENSE.md", VERSION_FILE)


def own_place(name: str) -> str:
    """Where the file `name` of `patches/src` goes in the tree."""
    below, _, file = name.rpartition("/")
    return f"{OWN_SOURCES[below]}/{file}"


def own_sources(folder: Path) -> dict[str, bytes]:
    """The project's own C++ files in `folder` and its folders, by their path in the tree."""
    places = {folder / below: place for below, place in OWN_SOURCES.items()}
    return {f"{places[file.parent]}/{file.name}": file.read_bytes() for file in own_files(folder)}


def own_files(folder: Path) -> list[Path]:
    """The files of `folder` and its folders that are sources; there need be none."""
    return [file for below in OWN_SOURCES for file in sorted((folder / below).glob("[!.]*")) if file.is_file()]


def patched_files(
    sdist: Path, pin: Pin, patches: Sequence[Patch], own: dict[str, bytes], everything: bool = False
) -> dict[str, bytes]:
    """Every file of the patched tree by path; raises BuildError if a patch does not fit exactly."""
    tree: Tree = dict(members(sdist, pin, everything))
    clash = sorted(set(own) & set(tree))
    if clash:
        raise BuildError(f"patches/src would overwrite {clash[0]} of the pinned source; rename the file there.")
    apply_series(patches, tree)
    tree.update(own)
    tree[VERSION_FILE] = _with_version(tree.get(VERSION_FILE) or b"", pin)
    return {path: data for path, data in tree.items() if data is not None}


def metadata_files(sdist: Path, pin: Pin) -> dict[str, bytes]:
    tree = {path: data for path, data in members(sdist, pin) if path in METADATA_FILES}
    tree[VERSION_FILE] = _with_version(tree.get(VERSION_FILE, b""), pin)
    return tree


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write files below `folder`; one that has the same bytes already keeps its time stamp."""
    for path, data in files.items():
        target = folder / path
        if target.is_file() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _with_version(text: bytes, pin: Pin) -> bytes:
    old = f'__version__ = "{pin.version}"'.encode()
    if text.count(old) != 1:
        raise BuildError(
            f"{VERSION_FILE} of the pinned source does not say {old.decode()} once; "
            "check that the version and the hash in patches/pin belong together."
        )
    return text.replace(old, f'__version__ = "{pin.patched_version}"'.encode())
