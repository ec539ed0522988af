"""Single operations with data, computed by ggml on the CPU.

Knows ggml's functions for it. Arrays are numpy's: the last axis is ggml's first, rows of quantised tensors are packed by gguf.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from .driver import library
from .tensors import Tensors

ROOM = 64 << 20

WITHOUT_AVX2 = ("x64", "sse42", "sandybridge", "ivybridge", "piledriver")
"""Kinds of CPU, as files of a portable library are called, for which our products of bytes aren't compiled."""

Planes = Callable[[int, int, Callable[[int, int, int], int], Callable[[int, int], int]], int]
"""Of a tensor of so many planes one plane, by `planes(tensor, first, count)` and `added(tensor, tensor)`."""


@dataclass(frozen=True)
class Packed:
    """Values as a tensor of some type holds them."""

    kind: gguf.GGMLQuantizationType
    data: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, kind: str) -> Packed:
        found = gguf.GGMLQuantizationType[kind.upper()]
        return cls(found, gguf.quants.quantize(values.astype(np.float32), found))

    @property
    def values(self) -> np.ndarray:
        return np.asarray(gguf.quants.dequantize(self.data, self.kind), dtype=np.float64)


@functools.cache
def cpu_library() -> Path:
    """The file with the CPU's kernels; of a portable library's the one that was loaded."""
    found = sorted(library().ggml_base.parent.glob("*ggml-cpu*"))
    maps = Path("/proc/self/maps")
    loaded = maps.read_text(encoding="utf-8") if len(found) > 1 and maps.exists() else ""
    return next((path for path in found if str(path.resolve()) in loaded), found[0])


def lacks_products_of_bytes() -> str:
    """Why the library has no products of our own, or ""."""
    cpu = ctypes.CDLL(str(cpu_library()))
    compiled = all(getattr(cpu, f"ggml_cpu_has_{feature}")() for feature in ("avx2", "fma", "f16c"))
    flags = Path("/proc/cpuinfo")
    knows_avx2 = not flags.exists() or re.search(r"\bavx2\b", flags.read_text(encoding="utf-8")) is not None
    return why_none(platform.machine().lower(), compiled, cpu_library().name, knows_avx2)


def why_none(machine: str, compiled: bool, file: str, knows_avx2: bool) -> str:
    """A library that lacks them does, if it was built for such a CPU, as its file is called, or runs on one; otherwise something was
    lost when it was built."""
    if machine not in ("x86_64", "amd64"):
        return "ggml's own kernel is as fast elsewhere"
    if compiled:
        return ""
    if (built_for := re.search(r"ggml-cpu-(\w+)", file)) and built_for[1] in WITHOUT_AVX2:
        return f"the library was built for {built_for[1]}, without AVX2"
    return "" if knows_avx2 else "this CPU has no AVX2"


class _Plan(ctypes.Structure):
    _fields_ = (
        ("work_size", ctypes.c_size_t), ("work_data", ctypes.c_void_p), ("n_threads", ctypes.c_int), ("threadpool", ctypes.c_void_p),
        ("abort", ctypes.c_void_p), ("abort_data", ctypes.c_void_p), ("use_ref", ctypes.c_bool),
    )  # fmt: skip


class CpuOps(Tensors):
    """A context manager; each method computes one operation on `n_threads`. `scratch`: bytes that the last one was given for it."""

    def __init__(self, n_threads: int = 2) -> None:
        super().__init__(ROOM, with_data=True)
        self._n_threads = n_threads
        self.scratch = 0
        self._cpu = ctypes.CDLL(str(cpu_library()))

    def attention(
        self, q: np.ndarray, k: Packed, v: Packed, mask: np.ndarray | None, scale: float, *,
        softcap: float = 0.0, sinks: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Flash attention. q [heads, queries, n], k and v [key heads, keys, n], mask [queries, keys], sinks [heads].
        Returns [queries, heads, n]."""
        masked = ctypes.c_void_p() if mask is None else self._tensor(Packed.of(mask, "f16"))
        floats = map(ctypes.c_float, (scale, 0.0, softcap))
        tensors = (self._tensor(Packed.of(q, "f32")), self._tensor(k), self._tensor(v), masked)
        result = self._call("ggml_flash_attn_ext", *tensors, *floats)
        if sinks is not None:
            self._ggml.ggml_flash_attn_ext_add_sinks(ctypes.c_void_p(result), self._tensor(Packed.of(sinks, "f32")))
        return self._computed(result, (q.shape[1], q.shape[0], v.values.shape[-1]))

    def product(self, weights: Packed, x: np.ndarray) -> np.ndarray:
        """weights [outputs, inputs] times x [tokens, inputs]; returns [tokens, outputs]."""
        result = self._call("ggml_mul_mat", self._tensor(weights), self._tensor(Packed.of(x, "f32")))
        return self._computed(result, (len(x), len(weights.data)))

    def turned(self, x: np.ndarray) -> np.ndarray:
        """Rows of x [rows, n] times the Hadamard matrix of n, which ggml is told that it is."""
        n = x.shape[1]
        result = self._call("ggml_mul_mat", self._tensor(Packed.of(np.zeros((n, n)), "f32")), self._tensor(Packed.of(x, "f32")))
        self._ggml.ggml_mul_mat_set_hint(ctypes.c_void_p(result), ctypes.c_int(1))
        return self._computed(result, x.shape)

    def shares(
        self, looks: np.ndarray, k: Packed, mask: np.ndarray | None, scale: float, side: int, sums: Planes, parts: int = 1
    ) -> np.ndarray:
        """The operations by which recall chooses: the largest share that a look of a part gives to one of `side` keys.
        looks [heads, looks, n], k [key heads, keys, n], mask [looks, keys]. `sums`: which planes are added in the end, of those that
        there are by then. Returns [parts, keys / side]."""
        n_heads, n_looks, n = looks.shape
        n_key_heads, n_keys, _ = k.values.shape
        rows = n_heads // n_key_heads * n_looks  # that share keys
        masked = ctypes.c_void_p() if mask is None else self._tensor(Packed.of(np.tile(mask, (rows // n_looks, 1)), "f32"))
        scores = self._call("ggml_mul_mat", self._tensor(k), self._tensor(Packed.of(looks.reshape(n_key_heads, rows, n), "f32")))
        weights = self._call("ggml_soft_max_ext", ctypes.c_void_p(scores), masked, ctypes.c_float(scale), ctypes.c_float(0.0))
        whole = self._call("ggml_reshape_3d", ctypes.c_void_p(weights), *map(ctypes.c_int64, (n_keys, n_looks, n_heads)))
        row = 4 * n_keys

        def planes(of: int, first: int, n: int) -> int:
            sizes = map(ctypes.c_int64, (n_keys, n_looks, n))
            strides = map(ctypes.c_size_t, (row, n_looks * row, first * n_looks * row))
            return self._call("ggml_view_3d", ctypes.c_void_p(of), *sizes, *strides)

        def added(a: int, b: int) -> int:
            return self._call("ggml_add", ctypes.c_void_p(a), ctypes.c_void_p(b))

        summed = sums(whole, n_heads, planes, added)
        found = self._largest(summed, 1, n_looks // parts)
        return self._computed(self._largest(found, side, 1) if side > 1 else found, (parts, n_keys // side))

    def _largest(self, of: int, n0: int, n1: int) -> int:
        sizes = map(ctypes.c_int, (0, n0, n1, n0, n1))
        return self._call("ggml_pool_2d", ctypes.c_void_p(of), *sizes, ctypes.c_float(0.0), ctypes.c_float(0.0))

    def _tensor(self, packed: Packed) -> ctypes.c_void_p:
        block, size = gguf.GGML_QUANT_SIZES[packed.kind]
        *shape, row = packed.data.shape
        extents = [row * packed.data.itemsize * block // size, *reversed(shape)]
        sizes = (ctypes.c_int64 * len(extents))(*extents)
        tensor = self._call("ggml_new_tensor", ctypes.c_int(packed.kind), ctypes.c_int(len(extents)), sizes)
        data = np.ascontiguousarray(packed.data)  # must outlive the copy
        ctypes.memmove(self._data(tensor), data.ctypes.data, data.nbytes)
        return ctypes.c_void_p(tensor)

    def _computed(self, tensor: int, shape: tuple[int, ...]) -> np.ndarray:
        graph = ctypes.c_void_p(self._call("ggml_new_graph"))
        self._ggml.ggml_build_forward_expand(graph, ctypes.c_void_p(tensor))
        context = ctypes.c_void_p(self._context)
        self._cpu.ggml_graph_plan.restype = _Plan
        self.scratch = int(self._cpu.ggml_graph_plan(graph, ctypes.c_int(self._n_threads), None).work_size)
        assert self._cpu.ggml_graph_compute_with_ctx(context, graph, ctypes.c_int(self._n_threads)) == 0
        data = (ctypes.c_float * int(np.prod(shape))).from_address(self._data(tensor))
        return np.array(data, dtype=np.float64).reshape(shape)

    def _data(self, tensor: int) -> int:
        self._ggml.ggml_get_data.restype = ctypes.c_void_p
        return int(self._ggml.ggml_get_data(ctypes.c_void_p(tensor)))
