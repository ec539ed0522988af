"""The native boundary: the only module that touches ctypes and the C functions of llama.cpp.

One Python function a C call (or a short sequence that belongs together); codes become exceptions, plain Python values
come out. It knows no plans, prompts or documents. llama_cpp, and with it the shared library, is imported on first use.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfextend_local.errors import ContextOverflow, GroupAttentionError, LibraryError, ModelError, ModelUnsupported, SelfExtendError
from selfextend_local.positions import GroupAttention

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INSTALL_HINT = "Install the patched library with: pip install ./patches (from a checkout of selfextend-local)"

KV_TYPES: Mapping[str, int] = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
"""KV cache types by name, as numbers of ggml_type."""

_SESSION_PREFIX = 12  # bytes of llama.cpp in front of the words of a session file: magic, version, number of words
_SEQUENCE_PREFIX = 8  # bytes of llama.cpp in front of the memory in a sequence's state: magic, sequence


class Status(IntEnum):
    """llama_group_attn_status in llama.h."""

    OK = 0
    INVALID = -1
    MEMORY = -2
    NO_ROPE = -3
    ROPE_KIND = -4
    STREAMS = -5
    SHARED_CELLS = -6


REFUSALS: Mapping[Status, tuple[type[SelfExtendError], str]] = {
    Status.INVALID: (GroupAttentionError, "n and w must be at least 1 and the boundary step a multiple of n"),
    Status.MEMORY: (
        ModelUnsupported,
        "this model keeps its past in a memory without keys that could be grouped (recurrent, or a special KV cache)",
    ),
    Status.NO_ROPE: (ModelUnsupported, "this model has no rotary positions (RoPE), which group attention works on"),
    Status.ROPE_KIND: (
        ModelUnsupported,
        "this model's rotary positions can't be moved (M-RoPE, or RoPE dimensions that differ by layer)",
    ),
    Status.STREAMS: (ModelUnsupported, "sequences have KV caches of their own; create the context with kv_unified"),
    Status.SHARED_CELLS: (ModelUnsupported, "sequences share parts of the KV cache; give each its own copy"),
}
"""What each refusal of llama_set_group_attn means to the caller."""


class DecodeStatus(IntEnum):
    """Return codes of llama_decode."""

    OK = 0
    NO_SLOT = 1
    ABORTED = 2
    INVALID_BATCH = -1
    ALLOCATION = -2
    COMPUTE = -3


@dataclass(frozen=True)
class LibraryInfo:
    """What `probe` found."""

    version: str
    patched: bool
    path: Path
    backends: tuple[str, ...]
    devices: tuple[str, ...]
    system_info: str


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on the host, or on devices: the weights, the KV cache (or other memory), the compute buffers."""

    weights: int
    kv_cache: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


@cache
def bindings() -> Any:
    """The low-level module llama_cpp.llama_cpp. Raises LibraryError if the library is missing or can't be loaded."""
    _prefer_system_cxx_runtime()
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


class _Level(ctypes.Structure):
    """struct llama_group_attn_level in llama.h."""

    _fields_ = (("n", ctypes.c_int32), ("w", ctypes.c_int32), ("r", ctypes.c_int32))


@cache
def _set_group_attention() -> Any:
    """llama_set_group_attn, None on a stock library."""
    try:
        function = bindings()._lib.llama_set_group_attn
    except AttributeError:
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Level), ctypes.c_int32]
    function.restype = ctypes.c_int32
    return function


def is_patched() -> bool:
    """True if the library that is loaded has group attention."""
    return _set_group_attention() is not None


def require_patched() -> None:
    """Raises LibraryError on a stock library."""
    if not is_patched():
        raise LibraryError(f"The installed llama.cpp ({_path()}) is a stock one without group attention. {INSTALL_HINT}")


def _path() -> Path:
    return Path(str(bindings()._lib._name))


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


def set_group_attention(context: Any, ga: GroupAttention) -> None:
    """Read keys at a distance of w or more in groups of n from the next decode on. n = 1 turns it off.

    Raises LibraryError on a stock library, GroupAttentionError or ModelUnsupported if the context refuses.
    """
    function = _set_group_attention()
    if function is None:
        if ga.enabled:
            require_patched()
        return
    levels = [_Level(level.n, level.w, level.r) for level in ga.levels]
    status = Status(function(context, (_Level * len(levels))(*levels), len(levels)))
    if status is not Status.OK:
        error, reason = REFUSALS[status]
        raise error(f"Group attention (n={ga.n}, w={ga.w}) was refused: {reason}. Use ga_n=1 with this model.")


@contextmanager
def abort_when(context: Any, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Poll `should_stop` while the context computes, some hundred times a micro-batch; a true answer ends llama_decode
    with DecodeStatus.ABORTED. An exception in it ends the computation too, and is raised when the block is left."""
    llama_cpp = bindings()
    raised: list[BaseException] = []

    @llama_cpp.ggml_abort_callback  # type: ignore[untyped-decorator]
    def poll(_: Any) -> bool:
        try:
            return should_stop()
        except BaseException as error:
            raised.append(error)
            return True

    llama_cpp.llama_set_abort_callback(context, poll, ctypes.c_void_p(0))
    try:
        yield
    finally:
        llama_cpp.llama_set_abort_callback(context, llama_cpp.ggml_abort_callback(0), ctypes.c_void_p(0))
        if raised:
            raise raised[0]


def report_loading(params: Any, progress: Callable[[int, int], None]) -> Any:
    """Have llama_model_params report (percent done, 100) while the weights are loaded. Keep what is returned alive."""

    @bindings().llama_progress_callback  # type: ignore[untyped-decorator]
    def report(share: float, _: Any) -> bool:
        progress(round(100 * share), 100)
        return True

    params.progress_callback = report
    return report


class Decoder:
    """Evaluates tokens of sequence 0 and draws from their logits. The structures of a call are kept from one to the next, and
    no logits are copied, so that a token costs microseconds of Python."""

    def __init__(self, context: Any) -> None:
        self._api = bindings()
        self._context = context
        self._decode = self._api.llama_decode
        self._sample = self._api.llama_sampler_sample
        self._token, self._position = (ctypes.c_int32 * 1)(), (ctypes.c_int32 * 1)()
        self._one = self._api.llama_batch(n_tokens=1, token=self._token, pos=self._position)
        self.n_vocab = int(self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._api.llama_get_model(context))))

    def one(self, token: int, position: int) -> DecodeStatus:
        """Evaluate a token at `position`."""
        self._token[0], self._position[0] = token, position
        code = self._decode(self._context, self._one)
        return DecodeStatus.OK if code == 0 else _status(code)

    def many(self, tokens: Sequence[int] | NDArray[np.int32], position: int, *, every_logit: bool = False) -> DecodeStatus:
        """Evaluate a batch, its first token at `position`; logits are kept of every token or of the last one."""
        import numpy as np

        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        positions = np.arange(position, position + len(ids), dtype=np.int32)
        batch = self._api.llama_batch(
            n_tokens=len(ids),
            token=ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            pos=positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
        )
        if every_logit:
            marks = np.ones(len(ids), dtype=np.int8)
            batch.logits = marks.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return _status(self._decode(self._context, batch))

    def logits(self, rows: int) -> NDArray[np.float32]:
        """The logits of the last `rows` tokens of a batch with every logit, or of its last token: float32 [rows, n_vocab], in
        memory that the next call overwrites."""
        import numpy as np

        return np.ctypeslib.as_array(self._api.llama_get_logits(self._context), (rows, self.n_vocab))

    def draw(self, chain: Any) -> int:
        """The next token, drawn by a sampler chain from the logits of the last one."""
        return int(self._sample(chain, self._context, -1))


class Sequences:
    """A context of its own on a loaded model: `count` sequences, each with a KV cache of its own for `n_ctx` tokens, so that
    none reads or moves what another one holds. No group attention.

    Raises ModelError if it can't be made.
    """

    def __init__(self, model: Any, params: Any, count: int, n_ctx: int) -> None:
        self._api = bindings()
        own = type(params).from_buffer_copy(params)
        own.n_seq_max, own.n_ctx, own.kv_unified = count, count * n_ctx, False
        native_reason()
        self.context = self._api.llama_init_from_model(model, own)
        if not self.context:
            raise ModelError(f"A context for {count} sequences of {n_ctx:,} tokens can't be made: {native_reason()}.")
        self._memory = self._api.llama_get_memory(self.context)
        self._tokens, self._positions, self._ids = ((ctypes.c_int32 * count)() for _ in range(3))
        self._all = (ctypes.c_int8 * count)(*[1] * count)
        width = ctypes.sizeof(ctypes.c_int32)
        pointers = [_int32_pointer(ctypes.addressof(self._ids) + i * width) for i in range(count)]
        self._step = self._api.llama_batch(
            token=self._tokens,
            pos=self._positions,
            n_seq_id=(ctypes.c_int32 * count)(*[1] * count),
            seq_id=(ctypes.POINTER(ctypes.c_int32) * count)(*pointers),
            logits=self._all,
        )

    def read(self, sequence: int, tokens: Sequence[int], position: int) -> DecodeStatus:
        """Evaluate tokens of one sequence, the first at `position`; logits are kept of the last one."""
        n = len(tokens)
        of = ctypes.pointer(ctypes.c_int32(sequence))
        batch = self._api.llama_batch(
            n_tokens=n,
            token=(ctypes.c_int32 * n)(*tokens),
            pos=(ctypes.c_int32 * n)(*range(position, position + n)),
            n_seq_id=(ctypes.c_int32 * n)(*[1] * n),
            seq_id=(ctypes.POINTER(ctypes.c_int32) * n)(*[of] * n),
        )
        return _status(self._api.llama_decode(self.context, batch))

    def step(self, tokens: Sequence[tuple[int, int, int]]) -> DecodeStatus:
        """Evaluate one token each of some sequences: (sequence, token, position), sequences ascending."""
        for i, (sequence, token, position) in enumerate(tokens):
            self._ids[i], self._tokens[i], self._positions[i] = sequence, token, position
        self._step.n_tokens = len(tokens)
        return _status(self._api.llama_decode(self.context, self._step))

    def draw(self, chain: Any, row: int) -> int:
        """The next token, drawn by a sampler chain from the logits of the `row`-th token of the last step, -1 = the last one."""
        return int(self._api.llama_sampler_sample(chain, self.context, row))

    def forget(self, sequence: int, first: int) -> bool:
        """Drop a sequence from position `first` on; False if this memory can't drop a part."""
        return bool(self._api.llama_memory_seq_rm(self._memory, sequence, first, -1))

    def copy(self, source: int, target: int) -> None:
        """Have an empty sequence hold what `source` holds."""
        self._api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        self._api.llama_free(self.context)


def _int32_pointer(address: int) -> Any:
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_int32))


def _status(code: int) -> DecodeStatus:
    try:
        return DecodeStatus(code)
    except ValueError:
        return DecodeStatus.COMPUTE


def drop_positions(context: Any, first: int) -> bool:
    """Forget sequence 0 from position `first` on; False if this memory can't forget a part."""
    return bool(bindings().llama_memory_seq_rm(bindings().llama_get_memory(context), 0, first, -1))


def add_to_positions(context: Any, seq: int, first: int, end: int, delta: int) -> None:
    """Move the keys at positions first ... end - 1 by `delta`: llama_memory_seq_add. Raises ModelUnsupported."""
    _move_positions("llama_memory_seq_add", context, seq, first, end, delta)


def divide_positions(context: Any, seq: int, first: int, end: int, divisor: int) -> None:
    """Divide the positions of the keys at first ... end - 1: llama_memory_seq_div. Raises ModelUnsupported."""
    _move_positions("llama_memory_seq_div", context, seq, first, end, divisor)


def _move_positions(name: str, context: Any, *arguments: int) -> None:
    # The patched library tells whether it could; the stock one returns nothing, and aborts where it can't.
    function = bindings()._lib[name]
    function.argtypes = [ctypes.c_void_p] + [ctypes.c_int32] * 4
    function.restype = ctypes.c_bool
    if not function(bindings().llama_get_memory(context), *arguments) and is_patched():
        raise ModelUnsupported("The positions of this model's keys can't be moved. Leave the method upstream out.")


def decode_error(status: DecodeStatus, n_tokens: int, n_ctx: int) -> SelfExtendError:
    """The exception for a decode that failed with `status`; ABORTED is the caller's to handle."""
    reason = native_reason()
    if status is DecodeStatus.NO_SLOT:
        return ContextOverflow(
            f"The context of {n_ctx:,} tokens is full ({n_tokens:,} used). Make it larger with n_ctx.", n_tokens, n_ctx
        )
    if status is DecodeStatus.ALLOCATION:
        return ModelError(f"llama.cpp ran out of memory while computing ({reason}). Take a smaller n_ctx or kv_type q8_0.")
    return ModelError(f"llama.cpp could not decode: {reason or status.name.lower()}.")


def metadata(model: Any) -> dict[str, str]:
    """The scalar GGUF metadata of a model."""
    llama_cpp = bindings()
    found: dict[str, str] = {}
    for index in range(llama_cpp.llama_model_meta_count(model)):
        key = _string(llama_cpp.llama_model_meta_key_by_index, model, index)
        found[key] = _string(llama_cpp.llama_model_meta_val_str_by_index, model, index)
    return found


def _string(function: Any, model: Any, index: int) -> str:
    size = 1024
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = function(model, index, buffer, size)
        if length < size:
            return buffer.value.decode("utf-8", "replace")
        size = length + 1


def open_model_without_weights(path: Path, gpu_layers: int = -1) -> Any:
    """A model handle with vocabulary, metadata and tensor shapes, but no weights in memory, which says what it would take
    with `gpu_layers` layers on the GPU (-1 = all). Free it with `free_model`.

    Raises ModelError if the file is not a GGUF that this llama.cpp knows.
    """
    llama_cpp = bindings()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.no_alloc = True
    params.n_gpu_layers = gpu_layers
    params.use_extra_bufts = False  # weights that are repacked for the CPU would count as a device's
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    native_reason()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"{path} can't be loaded: {native_reason() or 'not a GGUF model'}. Download it again, or convert it anew.")
    return model


def free_model(model: Any) -> None:
    bindings().llama_model_free(model)


def trained_window(model: Any) -> int:
    """The trained context window, in tokens."""
    return int(bindings().llama_model_n_ctx_train(model))


def n_layers(model: Any) -> int:
    """The repeating layers, without embeddings and output."""
    return int(bindings().llama_model_n_layer(model))


def sliding_window(model: Any) -> int:
    """The window of the sliding-window layers in tokens, 0 without such layers."""
    return int(bindings().llama_model_n_swa(model))


def tokenize(model: Any, text: str, special: bool) -> list[int]:
    """Token ids of a text, without BOS; with `special`, text that looks like a control token becomes one."""
    llama_cpp = bindings()
    vocab = llama_cpp.llama_model_get_vocab(model)
    raw = text.encode("utf-8", "replace")
    room = len(raw) + 8
    tokens = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, room, False, special)
    if count < 0:
        tokens = (llama_cpp.llama_token * -count)()
        count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, -count, False, special)
    return list(tokens[:count])


@cache
def grammar_compiles(rules: str) -> bool:
    """Whether llama.cpp takes a GBNF grammar, whose root is called root."""
    llama_cpp = bindings()
    sampler = llama_cpp.llama_sampler_init_grammar(None, rules.encode(), b"root")
    if sampler:
        llama_cpp.llama_sampler_free(sampler)
    return bool(sampler)


class Pieces(dict[int, bytes]):
    """Token -> the bytes that it stands for, however many; with `special` also a control token's name, else nothing of it.
    Filled as they are asked for."""

    def __init__(self, model: Any, special: bool) -> None:
        super().__init__()
        self._vocab = bindings().llama_model_get_vocab(model)
        self._special = special

    def __missing__(self, token: int) -> bytes:
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = bindings().llama_token_to_piece(self._vocab, token, buffer, size, 0, self._special)
            if length >= 0:
                return self.setdefault(token, buffer.raw[:length])
            size = -length


def state_bytes(context: Any) -> int:
    """Bytes of all keys, values and positions that a context holds, as `save_state` writes them."""
    return int(bindings().llama_state_get_size(context))


def save_state(context: Any, path: Path, header: bytes) -> None:
    """Write a session file: the magic numbers of llama.cpp (12 bytes), `header` (whole words), then the state.

    Raises OSError if llama.cpp can't write it. Its last few bytes may be missing on a full disk: compare the size.
    """
    llama_cpp = bindings()
    words = (llama_cpp.llama_token * (len(header) // 4)).from_buffer_copy(header)
    native_reason()
    if not llama_cpp.llama_state_save_file(context, os.fsencode(path), words, len(words)):
        raise OSError(native_reason() or "llama.cpp could not write the file")


def load_state(context: Any, path: Path, header_bytes: int, *, sliding_window: bool) -> None:
    """Replace what a context holds by a file of `save_state`, whose content must have been verified: llama.cpp trusts it.

    Raises ModelError if the context doesn't take it; the context is to be cleared then. Raises OSError.
    """
    native_reason()
    load = _load_as_sequence if sliding_window else _load_file
    if not load(context, path, header_bytes):
        raise ModelError(f"llama.cpp refuses the state in {path.name}: {native_reason()}. Remove the file.")


def _load_file(context: Any, path: Path, header_bytes: int) -> bool:
    llama_cpp = bindings()
    words, count = (llama_cpp.llama_token * (header_bytes // 4))(), ctypes.c_size_t()
    return bool(llama_cpp.llama_state_load_file(context, os.fsencode(path), words, len(words), ctypes.byref(count)))


def _load_as_sequence(context: Any, path: Path, header_bytes: int) -> bool:
    # After llama_state_load_file new tokens go into the first cells that are free or behind the sliding window, so that
    # a later roll-back would miss their keys. Loading a sequence puts new tokens behind the old ones. The two formats
    # are the same from the memory on; in front of it stand a string (the architecture) or a magic number and a sequence.
    llama_cpp = bindings()
    clear_memory(context)
    size = llama_cpp.llama_state_seq_get_size(context, 0)
    empty = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data(context, empty, size, 0)
    prefix = bytes(empty[:_SEQUENCE_PREFIX])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        start = _SESSION_PREFIX + header_bytes
        memory = start + 4 + int.from_bytes(view[start : start + 4], "little")
        view[memory - len(prefix) : memory] = prefix  # in our copy of that page, not in the file
        first = ctypes.c_uint8.from_buffer(view, memory - len(prefix))
        data = ctypes.cast(ctypes.addressof(first), ctypes.POINTER(ctypes.c_uint8))
        loaded = llama_cpp.llama_state_seq_set_data(context, data, len(view) - memory + len(prefix), 0)
        del first  # a mapping that is pointed to can't be closed
        return bool(loaded)


def clear_memory(context: Any) -> None:
    """Forget all keys and values."""
    llama_cpp = bindings()
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


def keeps_all_keys(model: Any) -> bool:
    """False for models with a recurrent part, whose past can't be cut back to an earlier token."""
    llama_cpp = bindings()
    return not (llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))


def opening_tokens(model: Any) -> list[int]:
    """What the vocabulary puts in front of a text: BOS or nothing."""
    vocab = bindings().llama_model_get_vocab(model)
    return [bindings().llama_vocab_bos(vocab)] if bindings().llama_vocab_get_add_bos(vocab) else []


def memory_use(
    model: Any,
    *,
    n_ctx: int,
    n_batch: int,
    n_ubatch: int,
    kv_type: str,
    flash_attn: bool,
    group_attention: GroupAttention | None = None,
) -> tuple[MemoryUse, MemoryUse] | None:
    """What a context on a model opened without weights would take on the host, and on GPUs; None on a library that can't tell.

    Under group attention a q4_0 cache keeps exact copies of w + 2r keys, which count. Raises ModelError if such a context can't be made.
    """
    llama_cpp = bindings()
    try:
        report = llama_cpp._lib.llama_get_memory_use
    except AttributeError:
        return None
    report.argtypes = [ctypes.c_void_p, ctypes.c_bool] + [ctypes.POINTER(ctypes.c_uint64)] * 3
    report.restype = None
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_ubatch
    params.type_k = params.type_v = KV_TYPES[kv_type]
    params.flash_attn_type = _flash_attention(flash_attn)
    native_reason()
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise ModelError(f"A context of {n_ctx:,} tokens with a {kv_type} KV cache can't be made: {native_reason()}.")
    try:
        if group_attention is not None:
            with suppress(ModelUnsupported):  # said where the model is opened
                set_group_attention(context, group_attention)
        parts = [ctypes.c_uint64() for _ in range(3)]
        report(context, True, *map(ctypes.byref, parts))
        host = MemoryUse(*(part.value for part in parts))
        report(context, False, *map(ctypes.byref, parts))
        return host, MemoryUse(*(part.value for part in parts))
    finally:
        llama_cpp.llama_free(context)


def _flash_attention(enabled: bool) -> int:
    llama_cpp = bindings()
    return int(llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if enabled else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
