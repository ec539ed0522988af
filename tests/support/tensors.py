"""Tensors and operations, without data to ask of a backend whether it could compute them.

Knows ggml's functions that make them. Runs nothing.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from .driver import library

if TYPE_CHECKING:
    from typing_extensions import Self

TYPES = {"f32": 0, "q8_0": 8, "q2_K": 10, "i32": 26}
ROOM = 1 << 20
POSITION_BASE = 10_000.0


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Tensors:
    """A context manager; its methods return addresses of struct ggml_tensor, good until it closes. `room`: bytes for them, and
    for their data if there is any."""

    def __init__(self, room: int = ROOM, *, with_data: bool = False) -> None:
        self._params = _InitParams(room, None, not with_data)

    def __enter__(self) -> Self:
        self._ggml = ctypes.CDLL(str(library().ggml_base))
        self._ggml.ggml_init.restype = ctypes.c_void_p
        self._ggml.ggml_init.argtypes = [_InitParams]
        self._context = self._ggml.ggml_init(self._params)
        return self

    def __exit__(self, *error: object) -> None:
        self._ggml.ggml_free(ctypes.c_void_p(self._context))

    def new(self, type_: str, *shape: int) -> int:
        extents = (ctypes.c_int64 * len(shape))(*shape)
        return self._call("ggml_new_tensor", ctypes.c_int(TYPES[type_]), ctypes.c_int(len(shape)), extents)

    def slice(self, tensor: int, first: int, size: int) -> int:
        """`size` values of each row of an f32 tensor of three dimensions, from `first` on."""
        head = library().tensor_head(tensor)
        _, n_rows, n_matrices, _ = head.ne
        sizes = map(ctypes.c_int64, (size, n_rows, n_matrices))
        strides = map(ctypes.c_size_t, (*head.nb[1:3], first * head.nb[0]))
        return self._call("ggml_view_3d", ctypes.c_void_p(tensor), *sizes, *strides)

    def swapped(self, tensor: int) -> int:
        """The first two dimensions swapped."""
        return self._call("ggml_permute", ctypes.c_void_p(tensor), *map(ctypes.c_int, (1, 0, 2, 3)))

    def rope(self, tensor: int, n_dims: int) -> int:
        positions = self.new("i32", library().tensor_head(tensor).ne[2])
        integers = map(ctypes.c_int, (n_dims, 0, 0))
        floats = map(ctypes.c_float, (POSITION_BASE, 1.0, 0.0, 1.0, 32.0, 1.0))
        return self._call("ggml_rope_ext", ctypes.c_void_p(tensor), ctypes.c_void_p(positions), ctypes.c_void_p(), *integers, *floats)

    def set_rows(self, target: int, source: int, rows: int) -> int:
        return self._call("ggml_set_rows", *map(ctypes.c_void_p, (target, source, rows)))

    def concat(self, first: int, second: int) -> int:
        """Along the rows."""
        return self._call("ggml_concat", *map(ctypes.c_void_p, (first, second)), ctypes.c_int(0))

    def _call(self, name: str, *arguments: object) -> int:
        function = getattr(self._ggml, name)
        function.restype = ctypes.c_void_p
        return int(function(ctypes.c_void_p(self._context), *arguments))
