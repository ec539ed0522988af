"""The shared library: finding it, what it can do, what it logs, and the devices that it sees.

llama_cpp, and with it the shared library, is imported on first use.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from selfextend_local.errors import LibraryError

_M_ARENA_MAX = -8  # of mallopt(3)

INSTALL_HINT = "Install the patched library with: pip install ./patches (from a checkout of selfextend-local)"


@dataclass(frozen=True)
class LibraryInfo:
    """What `probe` found."""

    version: str
    patched: bool
    path: Path
    backends: tuple[str, ...]
    devices: tuple[str, ...]
    system_info: str


@cache
def bindings() -> Any:
    """The low-level module llama_cpp.llama_cpp. Raises LibraryError if the library is missing or can't be loaded."""
    _prefer_system_cxx_runtime()
    _leave_cores_to_others()
    try:
        from llama_cpp import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise LibraryError(f"The llama.cpp library can't be loaded ({error}). {INSTALL_HINT}") from error
    _quieten(llama_cpp)
    return llama_cpp


def _prefer_system_cxx_runtime() -> None:
    # CUDA builds with some compilers export a static copy of libstdc++ whose std::regex crashes in the tokenizer when
    # it shadows the system's. Loading the system's first decides which one is used.
    if sys.platform == "linux":
        with suppress(OSError):
            ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)


def _leave_cores_to_others() -> None:
    # GNU's OpenMP reads this when it is loaded. By default its threads wait for each other by spinning for as long as it takes: beside
    # other programs, through the time that the awaited thread needs (docs/measured.md). Twenty microseconds are enough where it has a core.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = "1000"


_last_errors: list[str] = []
_log_callback: Any = None


def _quieten(llama_cpp: Any) -> None:
    # llama.cpp logs hundreds of lines to stderr. Errors are kept for the exceptions, the rest is dropped.
    global _log_callback

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def keep_errors(level: int, text: bytes, _: Any) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            _last_errors.append(text.decode("utf-8", "replace").strip())
            del _last_errors[:-8]

    _log_callback = keep_errors
    llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))


def native_reason() -> str:
    """The last errors that llama.cpp logged, joined, and forgets them."""
    reason = "; ".join(line.split(": ", 1)[-1] for line in _last_errors)
    _last_errors.clear()
    return reason


def is_patched() -> bool:
    """True if the library that is loaded has group attention."""
    return hasattr(bindings()._lib, "llama_set_group_attn")


def require_patched() -> None:
    """Raises LibraryError on a stock library."""
    if not is_patched():
        raise LibraryError(f"The installed llama.cpp ({_path()}) is a stock one without group attention. {INSTALL_HINT}")


def _path() -> Path:
    return Path(str(bindings()._lib._name))


def limit_arenas(count: int) -> None:
    """Have glibc's threads share so many heaps: each of its own keeps what was freed there. Nothing where there is another C library."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)


@cache
def library_version() -> str:
    """The version of llama-cpp-python; ours ends in the number of the patch set, as in "0.3.36+selfextend.1"."""
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        import llama_cpp as package

        return str(package.__version__)


def probe() -> LibraryInfo:
    """What library is loaded, whether it is patched, and what it can compute on. Raises LibraryError if there is none."""
    llama_cpp = bindings()
    llama_cpp.llama_backend_init()
    registries, devices = _backends()
    return LibraryInfo(
        version=library_version(),
        patched=is_patched(),
        path=_path(),
        backends=registries,
        devices=devices,
        system_info=llama_cpp.llama_print_system_info().decode(),
    )


def _backends() -> tuple[tuple[str, ...], tuple[str, ...]]:
    ggml = bindings()._lib
    calls: dict[str, tuple[Any, list[Any]]] = {
        "ggml_backend_reg_count": (ctypes.c_size_t, []),
        "ggml_backend_reg_get": (ctypes.c_void_p, [ctypes.c_size_t]),
        "ggml_backend_reg_name": (ctypes.c_char_p, [ctypes.c_void_p]),
        "ggml_backend_dev_count": (ctypes.c_size_t, []),
        "ggml_backend_dev_get": (ctypes.c_void_p, [ctypes.c_size_t]),
        "ggml_backend_dev_name": (ctypes.c_char_p, [ctypes.c_void_p]),
        "ggml_backend_dev_description": (ctypes.c_char_p, [ctypes.c_void_p]),
    }
    try:
        _declare(ggml, calls)
    except AttributeError:
        return (), ()
    registries = tuple(
        ggml.ggml_backend_reg_name(ggml.ggml_backend_reg_get(i)).decode() for i in range(ggml.ggml_backend_reg_count())
    )
    devices = tuple(
        f"{ggml.ggml_backend_dev_name(d).decode()}: {ggml.ggml_backend_dev_description(d).decode().strip()}"
        for d in (ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count()))
    )
    return registries, devices


_GPU, _INTEGRATED_GPU = 1, 2  # of enum ggml_backend_dev_type


def free_gpu_memory() -> int:
    """Bytes that are free on the GPUs that llama.cpp would use (integrated ones only without another); 0 without a GPU."""
    ggml = bindings()._lib
    size = ctypes.c_size_t
    calls: dict[str, tuple[Any, list[Any]]] = {
        "ggml_backend_dev_count": (size, []),
        "ggml_backend_dev_get": (ctypes.c_void_p, [size]),
        "ggml_backend_dev_type": (ctypes.c_int, [ctypes.c_void_p]),
        "ggml_backend_dev_memory": (None, [ctypes.c_void_p, ctypes.POINTER(size), ctypes.POINTER(size)]),
    }
    try:
        _declare(ggml, calls)
    except AttributeError:
        return 0
    found = {_GPU: 0, _INTEGRATED_GPU: 0}
    for device in map(ggml.ggml_backend_dev_get, range(ggml.ggml_backend_dev_count())):
        kind, free, total = ggml.ggml_backend_dev_type(device), size(), size()
        if kind in found:
            ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            found[kind] += free.value
    return found[_GPU] or found[_INTEGRATED_GPU]


def _declare(library: Any, calls: Mapping[str, tuple[Any, list[Any]]]) -> None:
    """Give functions their types. Raises AttributeError on Windows, which doesn't look a symbol up in the libraries that a
    library links to."""
    for name, (restype, argtypes) in calls.items():
        function = getattr(library, name)
        function.restype, function.argtypes = restype, argtypes
