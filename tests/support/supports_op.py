"""Whether a backend can compute an operation, by its own word and on any machine: the cases of its `supports_op` that matter here,
cut out of its source and compiled.

Knows how the sources of the pin are laid out and what stands for a device in them. Knows no graph and no patch.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OPERATIONS = (
    "RESHAPE", "VIEW", "GET_ROWS", "MUL_MAT", "ROPE", "SET_ROWS", "CONCAT", "MUL",
    "ADD", "CONT", "CPY", "SOFT_MAX", "POOL_2D", "TOP_K", "ARGSORT",
)  # fmt: skip
"""Operations whose cases are cut out; the compiled function refuses all others."""

GGML = "vendor/llama.cpp/ggml"
HEADERS = f"{GGML}/include/"
IMPLEMENTATION = f"{GGML}/src/ggml-impl.h"

Sources = Mapping[str, str]
"""Text of the source distribution by path."""


@dataclass(frozen=True)
class BackendSource:
    """Where a backend says what it can compute."""

    file: str
    function: str
    helpers: tuple[tuple[str, str], ...]  # file and name of the functions that the cases call
    device: str  # declarations of what the cases read of a device

    @property
    def files(self) -> set[str]:
        return {f"{GGML}/src/{file}" for file in (self.file, *(file for file, _ in self.helpers))}


def _metal(simdgroups: bool) -> BackendSource:
    has = str(simdgroups).lower()
    return BackendSource(
        "ggml-metal/ggml-metal-device.m",
        "ggml_metal_device_supports_op",
        (
            ("ggml-metal/ggml-metal-common.cpp", "ggml_metal_fwht_supported_size"),
            ("ggml-metal/ggml-metal-common.cpp", "ggml_metal_op_mul_mat_use_fwht"),
            ("ggml-metal/ggml-metal-common.cpp", "ggml_metal_op_mul_mat_use_mm"),
            ("ggml-metal/ggml-metal-device.m", "ggml_metal_supports_mul_mat_op"),
        ),
        f"const bool has_simdgroup_mm = {has}, has_simdgroup_reduction = {has}, has_bfloat = {has};"
        "struct { struct { size_t max_theadgroup_memory_size; } props; } device = { { 32768 } }, * dev = &device;",
    )


BACKENDS = {
    "Metal": _metal(simdgroups=True),
    "Metal without simdgroup reduction": _metal(simdgroups=False),
    "CUDA": BackendSource(
        "ggml-cuda/ggml-cuda.cu",
        "ggml_backend_cuda_device_supports_op",
        (),
        "const int QK_K = 256; auto ggml_cuda_op_mul_mat_use_fwht = [](const ggml_tensor *) { return false; };"
        "struct { int device = 0; } none, * dev_ctx = &none; struct { struct { size_t smpb = 48 << 10; } devices[1]; } info;"
        "auto ggml_cuda_info = [&]() { return info; };",
    ),
    "Vulkan": BackendSource(
        "ggml-vulkan/ggml-vulkan.cpp",
        "ggml_backend_vk_device_supports_op",
        (("ggml-vulkan/ggml-vulkan.cpp", "ggml_vk_dim01_contiguous"), ("ggml-vulkan/ggml-vulkan.cpp", "ggml_vk_concat_supported")),
        "const uint32_t num_argsort_pipelines = 11, num_topk_pipelines = 11;"
        "struct { bool mul_mat_id_s[GGML_TYPE_COUNT], mul_mat_id_m[GGML_TYPE_COUNT], mul_mat_id_l[GGML_TYPE_COUNT];"
        " bool vulkan_memory_model; uint32_t max_workgroup_size_log2, subgroup_size_log2; const char * pipeline_topk_f32[11];"
        " const char * pipeline_topk_radix_f32; } none = {}, * device = &none;"
        "device->max_workgroup_size_log2 = 10; device->subgroup_size_log2 = 5; device->pipeline_topk_radix_f32 = \"\";",
    ),
}


def wanted(path: str) -> bool:
    """Whether a file of the source distribution is needed here."""
    return path.startswith(HEADERS) or path == IMPLEMENTATION or any(path in backend.files for backend in BACKENDS.values())


class SupportsOp:
    """The compiled cases of one backend."""

    def __init__(self, backend: BackendSource, sources: Sources, ggml_base: Path, folder: Path) -> None:
        """`ggml_base` is the loaded library, whose functions the cases call. Raises CalledProcessError when they don't compile."""
        for path, text in sources.items():
            if path.startswith(HEADERS) or path == IMPLEMENTATION:
                (folder / Path(path).name).write_text(text, encoding="utf-8")
        source, library = folder / "supports_op.cpp", folder / "supports_op.so"
        source.write_text(_program(backend, sources), encoding="utf-8")
        compiler = shutil.which("c++")
        assert compiler, "the caller sees to it that there is a compiler"
        command = [compiler, "-std=c++17", "-w", "-shared", "-fPIC", f"-I{folder}", str(source), str(ggml_base), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self._supports = ctypes.CDLL(str(library)).supports
        self._supports.restype, self._supports.argtypes = ctypes.c_bool, [ctypes.c_void_p]

    def __call__(self, tensor: int) -> bool:
        """`tensor` is the address of a struct ggml_tensor."""
        return bool(self._supports(tensor))


def _program(backend: BackendSource, sources: Sources) -> str:
    helpers = [_function(sources[f"{GGML}/src/{file}"], name) for file, name in backend.helpers]
    groups = _cases(_function(sources[f"{GGML}/src/{backend.file}"], backend.function))
    cases = [text for labels, text in groups if labels & set(OPERATIONS)]
    found = set().union(*(labels for labels, _ in groups))
    assert found >= set(OPERATIONS), f"{backend.file} has no case for {set(OPERATIONS) - found}"
    head = ["#include <algorithm>", "#include <cmath>", '#include "ggml.h"', '#include "ggml-impl.h"', *helpers]
    body = [backend.device, "switch (op->op) {", *cases, "default: return false; }", "return false;"]
    return "\n".join([*head, 'extern "C" bool supports(const ggml_tensor * op) {', *body, "}", ""])


def _function(text: str, name: str) -> str:
    """A function's definition; these sources close one, and nothing inside one, with a brace at the margin."""
    found = re.search(rf"^(?:static )?bool {name}\([^;]*?\) \{{\n.*?^\}}\n", text, re.DOTALL | re.MULTILINE)
    assert found, f"no definition of {name}"
    return found[0]


def _cases(function: str) -> list[tuple[set[str], str]]:
    """The cases of the outer switch, whose labels are indented by eight: operations that share a body, and labels with body."""
    text = function.partition("    switch (op->op) {\n")[2]
    pieces = re.split(r"^(?= {8}(?:case GGML_OP_\w+|default):)", text, flags=re.MULTILINE)
    groups: list[tuple[set[str], str]] = [(set(), "")]
    for piece in pieces:
        label = re.match(r" {8}case GGML_OP_(\w+):", piece)
        if not label:
            continue
        labels, body = groups[-1]
        groups[-1] = (labels | {label[1]}, body + piece)
        if piece[label.end() :].strip():
            groups.append((set(), ""))
    return groups
