"""Loads the library for this CPU: ggml itself looks beside the executable and in the working directory, where it isn't.

LLAMA_CPU_VARIANT names another one, such as haswell (AVX2) or sse42, to compare.
"""

import ctypes
import os
import pathlib
import sys

from llama_cpp._ctypes_extensions import load_shared_library


def load_backends(folder: pathlib.Path) -> None:
    ggml = load_shared_library("ggml", folder)
    if ggml.ggml_backend_reg_count():
        return
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    quiet = callback(lambda *_: None)
    ggml.ggml_log_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    ggml.ggml_log_set(ctypes.cast(quiet, ctypes.c_void_p), None)
    try:
        _load(ggml, folder)
    finally:
        ggml.ggml_log_set(None, None)


def _load(ggml: ctypes.CDLL, folder: pathlib.Path) -> None:
    variant = os.environ.get("LLAMA_CPU_VARIANT")
    if not variant:
        ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))
        return
    name = f"ggml-cpu-{variant}.dll" if sys.platform == "win32" else f"libggml-cpu-{variant}.so"
    ggml.ggml_backend_load.argtypes, ggml.ggml_backend_load.restype = [ctypes.c_char_p], ctypes.c_void_p
    if not ggml.ggml_backend_load(os.fsencode(folder / name)):
        names = sorted(path.stem.split("ggml-cpu-")[1] for path in folder.glob("*ggml-cpu-*"))
        raise RuntimeError(f"LLAMA_CPU_VARIANT={variant}: this CPU can't, or there is none of that name: {', '.join(names)}")
