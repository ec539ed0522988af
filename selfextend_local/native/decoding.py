"""Evaluating tokens and drawing from their logits: one sequence or several, how to stop it, and what a return code means."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from selfextend_local.errors import ContextOverflow, ModelError, SelfExtendError

from .library import bindings, native_reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DecodeStatus(IntEnum):
    """Return codes of llama_decode."""

    OK = 0
    NO_SLOT = 1
    ABORTED = 2
    INVALID_BATCH = -1
    ALLOCATION = -2
    COMPUTE = -3


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


def _check_batch(n: int, most: int) -> None:
    if n > most:
        raise ValueError(f"A batch of {n:,} tokens, and the context takes {most:,} at a time.")


class Decoder:
    """Evaluates tokens of sequence 0 and draws from their logits. The structures of a call are kept from one to the next, and
    no logits are copied, so that a token costs microseconds of Python."""

    def __init__(self, context: Any) -> None:
        self._api = bindings()
        self._context = context
        self._decode = self._api.llama_decode
        self._token, self._position = (ctypes.c_int32 * 1)(), (ctypes.c_int32 * 1)()
        self._one = self._api.llama_batch(n_tokens=1, token=self._token, pos=self._position)
        self._n_batch = int(self._api.llama_n_batch(context))
        self.n_vocab = int(self._api.llama_vocab_n_tokens(self._api.llama_model_get_vocab(self._api.llama_get_model(context))))

    def one(self, token: int, position: int) -> DecodeStatus:
        """Evaluate a token at `position`."""
        self._token[0], self._position[0] = token, position
        code = self._decode(self._context, self._one)
        return DecodeStatus.OK if code == 0 else _status(code)

    def many(self, tokens: Sequence[int] | NDArray[np.int32], position: int, *, every_logit: bool = False) -> DecodeStatus:
        """Evaluate a batch, its first token at `position`; logits are kept of every token or of the last one.
        Raises ValueError if it is longer than the context's n_batch, at which llama_decode would end the process."""
        import numpy as np

        _check_batch(len(tokens), self._n_batch)
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

    def draw(self, chain: Any, costs: Mapping[int, float]) -> int:
        """The next token, drawn by a sampler chain from the logits of the last one, less what some tokens cost."""
        return _drawn(self._api, chain, self._context, -1, costs)


class Sequences:
    """A context of its own on a loaded model: `count` sequences, each with a KV cache of its own for `n_ctx` tokens, so that
    none reads or moves what another one holds. No group attention.

    Raises ModelError if it can't be made.
    """

    def __init__(self, model: Any, params: Any, count: int, n_ctx: int) -> None:
        self._api = bindings()
        own = type(params).from_buffer_copy(params)
        own.n_seq_max, own.n_ctx, own.kv_unified = count, count * n_ctx, False
        own.n_batch = max(own.n_batch, count)  # a step is a batch of all
        native_reason()
        self.context = self._api.llama_init_from_model(model, own)
        if not self.context:
            raise ModelError(f"A context for {count} sequences of {n_ctx:,} tokens can't be made: {native_reason()}.")
        self._memory = self._api.llama_get_memory(self.context)
        self._n_batch = int(self._api.llama_n_batch(self.context))
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
        """Evaluate tokens of one sequence, the first at `position`; logits are kept of the last one. Raises ValueError as
        `Decoder.many` does."""
        n = len(tokens)
        _check_batch(n, self._n_batch)
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

    def draw(self, chain: Any, row: int, costs: Mapping[int, float]) -> int:
        """The next token, drawn by a sampler chain from the logits of the `row`-th token of the last step, -1 = the last one, less
        what some tokens cost."""
        return _drawn(self._api, chain, self.context, row, costs)

    def forget(self, sequence: int, first: int) -> bool:
        """Drop a sequence from position `first` on; False if this memory can't drop a part."""
        return bool(self._api.llama_memory_seq_rm(self._memory, sequence, first, -1))

    def copy(self, source: int, target: int) -> bool:
        """Have an empty sequence hold what `source` holds; False if this memory can't."""
        self._api.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        last = self._api.llama_memory_seq_pos_max
        return bool(last(self._memory, target) == last(self._memory, source))

    def close(self) -> None:
        self._api.llama_free(self.context)


def _drawn(api: Any, chain: Any, context: Any, row: int, costs: Mapping[int, float]) -> int:
    """The logits are as they were afterwards."""
    if not costs:
        return int(api.llama_sampler_sample(chain, context, row))
    logits = api.llama_get_logits_ith(context, row)
    held = {token: logits[token] for token in costs}
    for token, cost in costs.items():
        logits[token] = held[token] - cost
    drawn = int(api.llama_sampler_sample(chain, context, row))
    for token, was in held.items():
        logits[token] = was
    return drawn


def _int32_pointer(address: int) -> Any:
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_int32))


def _status(code: int) -> DecodeStatus:
    try:
        return DecodeStatus(code)
    except ValueError:
        return DecodeStatus.COMPUTE


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
