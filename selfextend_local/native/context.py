"""What a context holds and takes: group attention, the positions of keys, states on disk, memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from selfextend_local.errors import GroupAttentionError, ModelError, ModelUnsupported, SelfExtendError
from selfextend_local.positions import (
    RECALL_EACH,
    RECALL_FIRST,
    RECALL_KEEP,
    RECALL_SINKS,
    RECALL_SPAN,
    RECALL_STRETCH,
    GroupAttention,
)

from . import library
from .library import bindings, native_reason

KV_TYPES: Mapping[str, int] = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2}
"""KV cache types by name, as numbers of ggml_type."""

_SESSION_PREFIX = 12  # bytes of llama.cpp in front of the words of a session file: magic, version, number of words
_SEQUENCE_PREFIX = 8  # bytes of llama.cpp in front of the memory in a sequence's state: magic, sequence


class Status(IntEnum):
    """llama_group_attn_status in llama-group-attn-api.h."""

    OK = 0
    INVALID = -1
    MEMORY = -2
    NO_ROPE = -3
    ROPE_KIND = -4
    STREAMS = -5
    SHARED_CELLS = -6
    ARCH = -7
    SELF_TEST = -8
    POOLING = -9
    TEMPERATURE = -10
    INVALID_RECALL = -11
    FLASH_ATTN = -12
    SEQUENCES = -13
    QUANTIZED = -14


REFUSALS: Mapping[Status, tuple[type[SelfExtendError], str]] = {
    Status.INVALID: (GroupAttentionError, "n and w must be at least 1 and the boundary step a multiple of n"),
    Status.MEMORY: (
        ModelUnsupported,
        "this model keeps its past in a memory without keys that could be grouped (recurrent, or a special KV cache)",
    ),
    Status.NO_ROPE: (ModelUnsupported, "this model has no rotary positions (RoPE), which group attention works on"),
    Status.ROPE_KIND: (
        ModelUnsupported,
        "this model's rotary positions can't be moved (RoPE dimensions that differ by layer, or an image in the context)",
    ),
    Status.STREAMS: (ModelUnsupported, "sequences have KV caches of their own; create the context with kv_unified"),
    Status.SHARED_CELLS: (ModelUnsupported, "sequences share parts of the KV cache; give each its own copy"),
    Status.ARCH: (ModelUnsupported, "this model's keys aren't plain rotations, so they can't be moved (docs/backends.md)"),
    Status.SELF_TEST: (ModelUnsupported, "nobody has tested this architecture, and moving its keys changed what the model says"),
    Status.POOLING: (ModelUnsupported, "embeddings are pooled over whole texts (mean, cls or rank)"),
    Status.TEMPERATURE: (ModelUnsupported, "this model has an attention temperature of its own"),
    Status.INVALID_RECALL: (GroupAttentionError, "its figures are no multiples of the span, or w is less than the model's sliding window"),
    Status.FLASH_ATTN: (GroupAttentionError, "recall needs flash attention"),
    Status.SEQUENCES: (GroupAttentionError, "recall reads one text in a context, not several side by side"),
    Status.QUANTIZED: (GroupAttentionError, "recall with a quantised KV cache is right on a CPU only; take --kv-type f16"),
}
"""What each refusal of llama_set_group_attn means to the caller."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on the host, or on devices: the weights, the KV cache (or other memory), the compute buffers; `file`: of the KV cache in
    a file, in none of the others."""

    weights: int
    kv_cache: int
    compute: int
    file: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


class _Level(ctypes.Structure):
    """struct llama_group_attn_level in llama-group-attn.h."""

    _fields_ = (("n", ctypes.c_int32), ("w", ctypes.c_int32), ("r", ctypes.c_int32))


class _Recall(ctypes.Structure):
    """struct llama_recall_params in llama-recall.h."""

    _fields_ = tuple(
        (name, ctypes.c_int32) for name in ("w", "r", "n_sinks", "n_fetched", "n_span", "n_stretch", "n_each", "n_first", "n_keep")
    )


@cache
def _set_recall() -> Any:
    """llama_set_recall of a patched library."""
    function = bindings()._lib.llama_set_recall
    function.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Recall)]
    function.restype = ctypes.c_int32
    return function


@cache
def _set_group_attention() -> Any:
    """llama_set_group_attn of a patched library."""
    function = bindings()._lib.llama_set_group_attn
    function.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Level), ctypes.c_int32]
    function.restype = ctypes.c_int32
    return function


def recall_figures(ga: GroupAttention) -> list[int]:
    """The fields of struct llama_recall_params, in their order."""
    first = max(RECALL_FIRST, ga.recall)
    return [ga.w, ga.r, RECALL_SINKS, ga.recall, RECALL_SPAN, RECALL_STRETCH, RECALL_EACH, first, RECALL_KEEP]


def set_group_attention(context: Any, ga: GroupAttention) -> None:
    """Read keys at a distance of w or more in groups of n from the next decode on. n = 1 turns it off.

    Raises LibraryError on a stock library, GroupAttentionError or ModelUnsupported if the context refuses.
    """
    if not library.is_patched():
        if ga.enabled:
            library.require_patched()
        return
    if ga.recall:
        status = Status(_set_recall()(context, ctypes.byref(_Recall(*recall_figures(ga)))))
    else:
        levels = [_Level(level.n, level.w, level.r) for level in ga.levels]
        status = Status(_set_group_attention()(context, (_Level * len(levels))(*levels), len(levels)))
    if status is not Status.OK:
        error, reason = REFUSALS[status]
        advice = "Take another --ga-mode" if ga.recall else "Use ga_n=1 with this model"
        raise error(f"Group attention ({ga.label}) was refused: {reason}. {advice}.")


def set_attention_temperature(context: Any, c: float) -> None:
    """Multiply queries beyond the trained window L by 1 + c ln((i + 1)/L), i the place in the text, from the next decode on. 0 turns
    it off.

    Raises LibraryError on a stock library, GroupAttentionError if c is not in [0, 10], ModelUnsupported if the model refuses.
    """
    if not library.is_patched():
        if c:
            library.require_patched()
        return
    function = bindings()._lib.llama_set_attn_temperature
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_float], ctypes.c_int32
    status = Status(function(context, c))
    if status is Status.INVALID:
        raise GroupAttentionError(f"ga_temperature={c}: it must lie in [0, 10].")
    if status is not Status.OK:
        error, reason = REFUSALS[status]
        raise error(f"The attention temperature {c} was refused: {reason}. Use ga_temperature=0 with this model.")


def drop_positions(context: Any, first: int) -> bool:
    """Forget sequence 0 from position `first` on; False if this memory can't forget a part."""
    return bool(bindings().llama_memory_seq_rm(bindings().llama_get_memory(context), 0, first, -1))


def copy_recurrent_state(context: Any) -> bytes:
    """What the recurrent layers hold of sequence 0, and nothing of the keys."""
    llama_cpp = bindings()
    part = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
    size = llama_cpp.llama_state_seq_get_size_ext(context, 0, part)
    copy = (ctypes.c_uint8 * size)()
    return bytes(copy[: llama_cpp.llama_state_seq_get_data_ext(context, copy, size, 0, part)])


def restore_recurrent_state(context: Any, copy: bytes) -> bool:
    """Put a `copy_recurrent_state` back; False if the context doesn't take it."""
    llama_cpp = bindings()
    data = (ctypes.c_uint8 * len(copy)).from_buffer_copy(copy)
    part = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
    return bool(llama_cpp.llama_state_seq_set_data_ext(context, data, len(copy), 0, part) == len(copy))


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
    if not function(bindings().llama_get_memory(context), *arguments) and library.is_patched():
        raise ModelUnsupported("The positions of this model's keys can't be moved. Leave the method upstream out.")


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


@contextmanager
def kv_in(folder: Path | None) -> Iterator[None]:
    """Contexts that are made meanwhile, by this thread, have the keys and values of the host in a file without a name in `folder`; None:
    in memory. Where that can't be they fail, and `native_reason` says why.

    Raises LibraryError on a stock library.
    """
    if folder is None:
        yield
        return
    library.require_patched()
    choose = bindings()._lib.llama_set_kv_folder
    choose.argtypes, choose.restype = [ctypes.c_char_p], None
    choose(os.fsencode(folder))
    try:
        yield
    finally:
        choose(None)


def _file_size(context: Any) -> int:
    size = bindings()._lib.llama_get_kv_file_size
    size.argtypes, size.restype = [ctypes.c_void_p], ctypes.c_uint64
    return int(size(context))


@dataclass(frozen=True)
class Fetched:
    """What a layer fetched under recall: of each span its first token, and the largest share of attention among far text that one of
    the queries gave to a token of it, summed over heads."""

    tokens: tuple[int, ...]
    shares: tuple[float, ...]


def fetched(context: Any, n_layers: int, recall: int) -> list[Fetched]:
    """Of each layer its last choice under recall of `recall` tokens; nothing for layers that fetch nothing."""
    read = bindings()._lib.llama_recall_fetched
    read.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
    read.restype = ctypes.c_int32
    most = recall // RECALL_SPAN
    spans, shares = (ctypes.c_int32 * most)(), (ctypes.c_float * most)()
    found = []
    for layer in range(n_layers):
        n = min(most, read(context, layer, spans, shares, most))
        found.append(Fetched(tuple(span * RECALL_SPAN for span in spans[:n]), tuple(shares[:n])))
    return found


def memory_use(
    model: Any,
    *,
    n_ctx: int,
    n_batch: int,
    n_ubatch: int,
    kv_type: str,
    flash_attn: bool,
    group_attention: GroupAttention | None = None,
    in_file: bool = False,
) -> tuple[MemoryUse, MemoryUse] | None:
    """What a context on a model opened without weights would take on the host, and on GPUs; None on a library that can't tell.

    in_file: with the KV cache of the host in a file, see `kv_in`.
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
    with kv_in(Path(".") if in_file else None):  # nothing is made there
        context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise ModelError(f"A context of {n_ctx:,} tokens with a {kv_type} KV cache can't be made: {native_reason()}.")
    try:
        if group_attention is not None:
            with suppress(ModelUnsupported):  # said where the model is opened
                set_group_attention(context, group_attention)
        parts = [ctypes.c_uint64() for _ in range(3)]
        report(context, True, *map(ctypes.byref, parts))
        host = replace(MemoryUse(*(part.value for part in parts)), file=_file_size(context) if in_file else 0)
        report(context, False, *map(ctypes.byref, parts))
        return host, MemoryUse(*(part.value for part in parts))
    finally:
        llama_cpp.llama_free(context)


def _flash_attention(enabled: bool) -> int:
    llama_cpp = bindings()
    return int(llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if enabled else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
