"""The wheel for other machines: `-C portable=all`. One library for each kind of CPU, of which the right one is loaded at run time.

Knows what of the tree and of the settings differs from a wheel for this machine. Must not know how either is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .errors import BuildError

SETTING = "portable"
"""Value: all, or the names of ggml's variants with commas, such as haswell,sse42."""

Settings = Mapping[str, "str | list[str]"]

_DEFINES = {
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_OPENMP": "OFF",  # a wheel would carry an OpenMP runtime of its own beside the process's; ggml has threads
    "CMAKE_INSTALL_BINDIR": "llama_cpp/lib",  # where ggml installs the variants
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",  # a wheel has no symbolic links: each name would be a whole file
}
_SCRIPTS = "/llama_cpp/lib/*.py"
_LOADS = "_lib = load_shared_library(_lib_base_name, _base_path)\n"
_LOADS_MORE = "from ._backends import load_backends  # noqa: E402\n\nload_backends(_base_path)\n"
_VARIANTS = "vendor/llama.cpp/ggml/src/CMakeLists.txt"
_VARIANT = re.compile(rb"^ *ggml_add_cpu_backend_variant\((\S+?)[ )].*\n", re.MULTILINE)


def variants(settings: Settings | None) -> str | None:
    """The value of the setting, None for a wheel of this machine."""
    value = (settings or {}).get(SETTING)
    return value if isinstance(value, str) and value else None


def files(folder: Path) -> list[Path]:
    """What such a wheel depends on besides."""
    return sorted(path for path in (folder / "portable").iterdir() if path.is_file())


def portable_settings(settings: Settings, own: Settings, folder: Path) -> dict[str, str | list[str]]:
    """`own`, the settings of a wheel for this machine, and the caller's, for a portable one."""
    exclude = own["wheel.exclude"]
    defines = {f"cmake.define.{name}": value for name, value in _DEFINES.items()}
    project = {"cmake.define.CMAKE_PROJECT_llama.cpp_INCLUDE": (folder / "portable" / "portable.cmake").as_posix()}
    more = {"wheel.exclude": [*exclude, _SCRIPTS]}
    return {**own, **defines, **project, **more, **{name: value for name, value in settings.items() if name != SETTING}}


def portable_tree(tree: dict[str, bytes], chosen: str, folder: Path) -> dict[str, bytes]:
    """The tree with the loader of variants, and with no others than the chosen ones. Raises BuildError."""
    source = tree["llama_cpp/llama_cpp.py"].decode()
    if source.count(_LOADS) != 1:
        raise BuildError("llama_cpp/llama_cpp.py of the pinned source loads its library otherwise; see patches/backend/portable.py.")
    loader = (folder / "portable" / "_backends.py").read_bytes()
    changed = {"llama_cpp/llama_cpp.py": source.replace(_LOADS, _LOADS + _LOADS_MORE).encode(), "llama_cpp/_backends.py": loader}
    if chosen != "all":
        changed[_VARIANTS] = _only(chosen.split(","), tree[_VARIANTS])
    return {**tree, **changed}


def _only(names: list[str], cmake: bytes) -> bytes:
    known = {found.decode() for found in _VARIANT.findall(cmake)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise BuildError(f"-C portable={','.join(names)}: ggml has no variant {unknown[0]}; it has {', '.join(sorted(known))}.")
    return _VARIANT.sub(lambda match: match[0] if match[1].decode() in names else b"", cmake)
