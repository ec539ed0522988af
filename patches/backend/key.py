"""What a finished wheel depends on, as one hash. Two equal keys promise interchangeable wheels.

Knows every input of a build. Must not know where wheels are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from . import portable
from .errors import BuildError
from .series import series_names
from .toolchain import compiler_versions, cpu_features
from .tree import own_files

# Raise it when the backend itself builds differently from the same inputs.
BACKEND_VERSION = 1

ConfigSettings = Mapping[str, "str | list[str]"]

_VARIABLES = (
    "CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "ARCHFLAGS", "MACOSX_DEPLOYMENT_TARGET",
    "CUDACXX", "CUDAFLAGS", "CUDAARCHS", "CUDA_PATH", "HIPCXX", "HIPFLAGS", "VULKAN_SDK",
)  # fmt: skip
_PREFIXES = ("CMAKE_", "SKBUILD_")
_HARMLESS = ("CMAKE_BUILD_PARALLEL_LEVEL", "CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER")


def source_inputs(folder: Path, settings: ConfigSettings | None = None) -> dict[str, str]:
    """SHA-256 of each file of the `patches` folder that shapes the source or how it is configured."""
    files = [folder / "pin", folder / "series", folder / "lean.cmake"]
    files += [folder / name for name in series_names(folder)]
    files += own_files(folder / "src")
    files += portable.files(folder) if portable.variants(settings) else []
    try:
        return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    except OSError as error:
        raise BuildError(f"{error.filename} cannot be read ({error.strerror}); restore it from git.") from None


def flag_inputs() -> dict[str, str]:
    """The environment variables that CMake, scikit-build-core or a compiler would read."""
    names = [name for name in os.environ if name in _VARIABLES or name.startswith(_PREFIXES)]
    return {name: os.environ[name] for name in sorted(names) if name not in _HARMLESS}


def configured_arguments(settings: ConfigSettings | None) -> str:
    """CMAKE_ARGS and the config settings as one text, to look words up in."""
    return os.environ.get("CMAKE_ARGS", "") + " " + json.dumps(dict(settings or {}), sort_keys=True)


def wheel_key(folder: Path, settings: ConfigSettings | None) -> str:
    """32 hex digits that change whenever the wheel might."""
    inputs = {
        "backend": BACKEND_VERSION,
        "sources": source_inputs(folder, settings),
        "flags": flag_inputs(),
        "settings": dict(settings or {}),
        # The wheel is tagged py3-none-PLATFORM, so that every Python 3 shares it.
        "python": f"py{sys.version_info.major}",
        "platform": [sysconfig.get_platform(), platform.machine(), *platform.libc_ver()],
        "compilers": compiler_versions(configured_arguments(settings)),
        "cpu": cpu_features(),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
