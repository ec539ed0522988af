"""A thin driver of llama.cpp's C API for the tests: decode tokens, move and save the cache, set group attention.

Knows the C functions, those that the patches add or change included. Knows no model, no positions and nothing of the package.
The library is the one that `llama_cpp` loads (LLAMA_CPP_LIB_PATH picks another build); it is loaded when the first Engine starts,
so that collecting the tests needs no library, and its log is silenced.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GPU_LAYERS = int(os.environ.get("SELFEXTEND_TEST_GPU_LAYERS", "0"))
"""How many layers the tests put on the GPU of a build that has one."""

GGML_LOG_LEVEL_ERROR = 4
SUCCESS = 0
ABORTED = 2


class MissingSymbol(AssertionError):
    """The loaded library lacks a function that the patches add."""


class DecodeFailed(RuntimeError):
    """llama_decode returned something else than 0; `code` is what it returned."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


@dataclass(frozen=True)
class Token:
    """One row of a batch; `also` names further sequences that share the token."""

    id: int
    pos: int
    seq: int = 0
    also: tuple[int, ...] = ()


@dataclass(frozen=True)
class Node:
    """One operation of a graph that runs: names as ggml gives them, types of the result and of its operands, values of the result.

    Two are equal wherever they run: `buffer` names the buffer of the result ("CPU", "Vulkan0"), and `address` is that of the
    struct ggml_tensor, which lives as long as the callback runs."""

    operation: str
    type: str
    sources: tuple[str, ...]
    n_values: int
    buffer: str = field(compare=False)
    address: int = field(compare=False)


class _TensorHead(ctypes.Structure):
    """The first fields of struct ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
    )


class _Library:
    """The binding, and a second handle of its library for functions whose prototype the patches add or change."""

    def __init__(self) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        self.path = str(llama_cpp.llama_cpp._lib._name)
        self._handle = ctypes.CDLL(self.path)
        self._errors: list[str] | None = None
        self._log = llama_cpp.llama_log_callback(self._hear)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

    def _hear(self, level: int, text: bytes, data: object) -> None:
        if self._errors is not None and level == GGML_LOG_LEVEL_ERROR:
            self._errors.append(text.decode(errors="replace").strip())

    @contextlib.contextmanager
    def errors(self) -> Iterator[list[str]]:
        """What the library logs as an error meanwhile; it is silent otherwise."""
        self._errors = []
        try:
            yield self._errors
        finally:
            self._errors = None

    @property
    def ggml_base(self) -> Path:
        """The library of tensors beside it."""
        return next(Path(self.path).parent.glob("*ggml-base*"))

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            function = getattr(self._handle, name)
        except AttributeError:
            raise MissingSymbol(f"{self.path} has no {name}: not a patched build") from None
        function.restype, function.argtypes = result, list(arguments)
        return function

    @staticmethod
    def tensor_head(address: int) -> _TensorHead:
        return _TensorHead.from_address(address)

    def eval_callback(self, on_node: Callable[[Node], None]) -> Any:
        op_name = self.function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)
        type_name = self.function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
        buffer_name = self.function("ggml_backend_buffer_name", ctypes.c_char_p, ctypes.c_void_p)

        def called(node: int, ask: bool, data: object) -> bool:
            if ask:
                tensor = _TensorHead.from_address(node)
                sources = [_TensorHead.from_address(source) for source in tensor.src if source]
                types = [type_name(one.type).decode() for one in (tensor, *sources)]
                buffer = buffer_name(tensor.buffer).decode() if tensor.buffer else ""
                on_node(Node(op_name(tensor.op).decode(), types[0], tuple(types[1:]), int(np.prod(tensor.ne)), buffer, node))
            return not ask

        return self.api.ggml_backend_sched_eval_callback(called)


@functools.cache
def library() -> _Library:
    return _Library()


def _ggml_type(api: Any, name: str) -> int:
    return int(30 if name == "bf16" else getattr(api, f"GGML_TYPE_{name.upper()}"))  # llama_cpp has no name for that one


class Engine:
    """One model and one context. Use it as a context manager; logits come back as float32 [n_tokens, n_vocab]."""

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_ubatch: int = 512,
        type_k: str = "f32",
        type_v: str = "f32",
        flash_attn: bool = False,
        n_seq_max: int = 1,
        kv_unified: bool = True,
        swa_full: bool = False,
        n_gpu_layers: int = GPU_LAYERS,
        n_threads: int = 1,
        on_node: Callable[[Node], None] | None = None,
        kv_folder: Path | None = None,
        **context_params: float,
    ) -> None:
        """`on_node` hears of each node of each graph that runs, from the first decode on. `kv_folder`: the KV cache is a file there."""
        self._model = self._ctx = None
        self._lib = library()
        self._api = api = self._lib.api

        model_params = api.llama_model_default_params()
        model_params.n_gpu_layers = n_gpu_layers
        self._model = api.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"cannot load {path}")

        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_ubatch
        params.type_k, params.type_v = _ggml_type(api, type_k), _ggml_type(api, type_v)
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attn else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_seq_max, params.kv_unified, params.swa_full = n_seq_max, kv_unified, swa_full
        params.n_threads = params.n_threads_batch = n_threads
        for name, value in context_params.items():
            setattr(params, name, value)
        if on_node:
            params.cb_eval = self._on_node = self._lib.eval_callback(on_node)
        with self._lib.errors() as errors:
            if kv_folder:
                self._kv_folder(str(kv_folder).encode())
            self._ctx = api.llama_init_from_model(self._model, params)
            if kv_folder:
                self._kv_folder(None)
        if not self._ctx:
            self.close()
            raise RuntimeError(f"cannot make a context for {path}: {'; '.join(errors)}")

        self.n_batch = n_batch
        self.n_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        self._memory = api.llama_get_memory(self._ctx)
        self._abort_callback: Any = None

    def _kv_folder(self, folder: bytes | None) -> None:
        self._lib.function("llama_set_kv_folder", None, ctypes.c_char_p)(folder)

    def file_size(self) -> int:
        """Bytes of the cache in a file."""
        return int(self._lib.function("llama_get_kv_file_size", ctypes.c_uint64, ctypes.c_void_p)(self._ctx))

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._ctx:
            self._api.llama_free(self._ctx)
        if self._model:
            self._api.llama_model_free(self._model)
        self._ctx = self._model = None

    # Decoding

    def decode(self, tokens: Sequence[int], pos0: int | None = None, seq: int = 0, batches: Iterable[int] | None = None) -> np.ndarray:
        """Decode a run of tokens; it continues the sequence unless `pos0` says where it starts. `batches` gives the sizes to cut it
        into (the last one is used again while tokens are left); without it the run is cut by n_batch."""
        first = self.pos_max(seq) + 1 if pos0 is None else pos0
        rows = [Token(token, first + offset, seq) for offset, token in enumerate(tokens)]
        sizes = list(batches or [self.n_batch])
        logits = []
        while rows:
            size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            logits.append(self.decode_batch(rows[:size]))
            rows = rows[size:]
        return np.concatenate(logits)

    def decode_batch(self, rows: Sequence[Token]) -> np.ndarray:
        """One call of llama_decode, any mix of sequences."""
        api = self._api
        batch = api.llama_batch_init(len(rows), 0, 1 + max(len(row.also) for row in rows))
        try:
            batch.n_tokens = len(rows)
            for index, row in enumerate(rows):
                batch.token[index] = row.id
                batch.pos[index] = row.pos
                batch.n_seq_id[index] = 1 + len(row.also)
                for nth, seq in enumerate((row.seq, *row.also)):
                    batch.seq_id[index][nth] = seq
                batch.logits[index] = 1
            code = api.llama_decode(self._ctx, batch)
        finally:
            api.llama_batch_free(batch)
        if code != SUCCESS:
            raise DecodeFailed(code)
        return np.stack([self._logits_of(index) for index in range(len(rows))])

    def _logits_of(self, index: int) -> np.ndarray:
        pointer = self._api.llama_get_logits_ith(self._ctx, index)
        return np.ctypeslib.as_array(pointer, (self.n_vocab,)).copy()

    def set_abort_callback(self, callback: Callable[[], bool] | None) -> None:
        """`callback` is asked after each operation of a graph; True ends the decode with code ABORTED."""
        kind = self._api.ggml_abort_callback
        self._abort_callback = kind(lambda data: callback()) if callback else kind(0)
        self._api.llama_set_abort_callback(self._ctx, self._abort_callback, None)

    def n_graphs_reused(self) -> int:
        """How many micro-batches ran on the graph of the one before, since the context was made."""
        return int(self._api.llama_perf_context(self._ctx).n_reused)

    def memory_use(self) -> int:
        """Bytes of the cache, on the host and on devices."""
        uint64_p = ctypes.POINTER(ctypes.c_uint64)
        report = self._lib.function("llama_get_memory_use", None, ctypes.c_void_p, ctypes.c_bool, uint64_p, uint64_p, uint64_p)
        total = 0
        for host in (True, False):
            parts = [ctypes.c_uint64() for _ in range(3)]
            report(self._ctx, host, *map(ctypes.byref, parts))
            total += parts[1].value
        return total

    # Group attention (patched library only)

    def set_group_attn(self, n: int, w: int, r: int) -> int:
        """0, or a negative code that tells why not."""
        return self.set_levels([(n, w, r)])

    def set_levels(self, levels: Sequence[tuple[int, int, int]]) -> int:
        """As set_group_attn, with a level after the other from the nearest to the farthest."""
        set_ = self._lib.function("llama_set_group_attn", ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
        return int(set_(self._ctx, (ctypes.c_int32 * 3 * len(levels))(*levels), len(levels)))

    def self_test(self) -> float:
        """How far logits move if all keys and queries are rotated for positions farther on, as a share of the logits' spread."""
        return float(self._lib.function("llama_group_attn_self_test", ctypes.c_float, ctypes.c_void_p)(self._ctx))

    def set_temperature(self, c: float) -> int:
        """0, or a negative code that tells why not."""
        return int(self._lib.function("llama_set_attn_temperature", ctypes.c_int32, ctypes.c_void_p, ctypes.c_float)(self._ctx, c))

    def get_temperature(self) -> float:
        return float(self._lib.function("llama_get_attn_temperature", ctypes.c_float, ctypes.c_void_p)(self._ctx))

    def get_group_attn(self) -> tuple[int, int, int]:
        return self.get_levels()[0]

    def get_levels(self) -> list[tuple[int, int, int]]:
        levels = (ctypes.c_int32 * 3 * 8)()
        get = self._lib.function("llama_get_group_attn", ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
        count = get(self._ctx, levels, len(levels))
        return [(n, w, r) for n, w, r in levels[:count]]

    def set_recall(
        self, w: int, r: int, sinks: int, fetched: int, span: int, stretch: int, each: int, first: int = 0, keep: int = 1
    ) -> int:
        """0, or a negative code that tells why not. fetched = 0 turns it off."""
        set_ = self._lib.function("llama_set_recall", ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
        return int(set_(self._ctx, (ctypes.c_int32 * 9)(w, r, sinks, fetched, span, stretch, each, first, keep)))

    def fetched(self, layer: int, n_max: int = 64) -> tuple[list[int], list[float]]:
        """The spans of the last choice of a layer, and their shares of attention."""
        read = self._lib.function(
            "llama_recall_fetched", ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
        )
        spans, shares = (ctypes.c_int32 * n_max)(), (ctypes.c_float * n_max)()
        n = min(n_max, read(self._ctx, layer, spans, shares, n_max))
        return list(spans[:n]), list(shares[:n])

    # The cache. Negative positions stand for "from the start" and "to the end".
    # seq_cp, seq_add and seq_div tell whether they could do it; the stock library returns nothing there, so only tests of the
    # patched one may look at the answer.

    def pos_max(self, seq: int = 0) -> int:
        return int(self._api.llama_memory_seq_pos_max(self._memory, seq))

    def pos_min(self, seq: int = 0) -> int:
        return int(self._api.llama_memory_seq_pos_min(self._memory, seq))

    def clear(self) -> None:
        self._api.llama_memory_clear(self._memory, True)

    def seq_rm(self, seq: int, p0: int, p1: int = -1) -> bool:
        return bool(self._api.llama_memory_seq_rm(self._memory, seq, p0, p1))

    def seq_keep(self, seq: int) -> None:
        self._api.llama_memory_seq_keep(self._memory, seq)

    def seq_cp(self, source: int, target: int, p0: int = -1, p1: int = -1) -> bool:
        return self._move("llama_memory_seq_cp", source, target, p0, p1)

    def seq_add(self, seq: int, p0: int, p1: int, delta: int) -> bool:
        return self._move("llama_memory_seq_add", seq, p0, p1, delta)

    def seq_div(self, seq: int, p0: int, p1: int, divisor: int) -> bool:
        return self._move("llama_memory_seq_div", seq, p0, p1, divisor)

    def _move(self, name: str, *arguments: int) -> bool:
        function = self._lib.function(name, ctypes.c_bool, ctypes.c_void_p, *[ctypes.c_int32] * 4)
        return bool(function(self._memory, *arguments))

    # State

    def save(self, seq: int | None = None) -> bytes:
        """The state of one sequence, or of the whole context."""
        api = self._api
        if seq is None:
            size, get = api.llama_state_get_size(self._ctx), functools.partial(api.llama_state_get_data, self._ctx)
            arguments: tuple[int, ...] = ()
        else:
            size, get = api.llama_state_seq_get_size(self._ctx, seq), functools.partial(api.llama_state_seq_get_data, self._ctx)
            arguments = (seq,)
        buffer = (ctypes.c_uint8 * size)()
        written = get(buffer, size, *arguments)
        return bytes(buffer[:written])

    def load(self, state: bytes, seq: int | None = None) -> int:
        """Bytes read; 0 when the library refuses the state."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if seq is None:
            return int(self._api.llama_state_set_data(self._ctx, buffer, len(state)))
        return int(self._api.llama_state_seq_set_data(self._ctx, buffer, len(state), seq))
