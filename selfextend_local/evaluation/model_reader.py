"""One loaded model that reads, answers and measures under a method, and keeps the prefix that the next text shares.

Knows the model and the native boundary. It knows no tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfextend_local import native
from selfextend_local.engine.cuts import common_prefix, micro_batch
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.engine.plan import Settings
from selfextend_local.errors import Interrupted
from selfextend_local.positions import MICRO_BATCH, PLAIN

from .methods import Setup
from .upstream_schedule import UpstreamSchedule

Progress = Callable[[int], None]
"""Called with the tokens of the present text that have been read."""

_ROWS = 64

MEASURED = Settings(kv_type="f16")
"""What is measured is one KV type, whatever memory is free."""


class _Keys:
    """llama_memory_seq_add and llama_memory_seq_div on one context."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def seq_add(self, seq: int, p0: int, p1: int, delta: int) -> None:
        native.add_to_positions(self._context, seq, p0, p1, delta)

    def seq_div(self, seq: int, p0: int, p1: int, divisor: int) -> None:
        native.divide_positions(self._context, seq, p0, p1, divisor)


class ModelReader:
    """A model under one setup. Reading a text that begins as the last one did costs only what is new."""

    def __init__(self, llm: SelfExtendLlama, *, should_stop: Callable[[], bool] | None = None) -> None:
        self._llm, self._should_stop = llm, should_stop
        # As no setup says, whatever was tuned, and whatever the context was opened for.
        llm.pin_group_attention(PLAIN)
        llm.set_attention_temperature(0.0)
        self._decoder = native.Decoder(llm.ctx)
        self._setup = Setup()
        self._known: list[int] = []
        self._schedule: UpstreamSchedule | None = None
        self._batch = MICRO_BATCH
        self.progress: Progress = lambda done: None

    def set_up(self, setup: Setup) -> None:
        """Read by `setup` from now on; the cache is emptied if that changes anything."""
        if setup != self._setup:
            self._setup = setup
            self.forget()
            self._llm.pin_group_attention(Setup().group_attention if setup.upstream else setup.group_attention)
            self._llm.set_attention_temperature(setup.temperature)

    def forget(self) -> None:
        """Empty the cache."""
        native.clear_memory(self._llm.ctx)
        self._known = []
        self._start_schedule()

    def _start_schedule(self) -> None:
        ga = self._setup.group_attention
        self._schedule = UpstreamSchedule(_Keys(self._llm.ctx), ga.n, ga.w) if self._setup.upstream else None
        # Upstream's schedule divides what is full before a batch: a batch longer than w would escape it.
        self._batch = min(MICRO_BATCH, ga.w) if self._schedule else MICRO_BATCH

    def read(self, tokens: Sequence[int]) -> None:
        """See Reader. Raises Interrupted."""
        shared = common_prefix(self._known, tokens)
        if shared < len(tokens):
            self._rewind(shared)
            self._read(tokens)

    def answer(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_tokens: Collection[int],
        stop_text: str = "",
        enough: Callable[[str], bool] | None = None,
    ) -> str:
        """See Reader. Raises Interrupted."""
        self._rewind(min(common_prefix(self._known, prompt), len(prompt) - 1))
        token = int(np.argmax(self._read(prompt)[-1]))
        answer: list[int] = []
        while token not in stop_tokens:
            answer.append(token)
            text = self._text(answer)
            if len(answer) >= max_tokens or (stop_text and stop_text in text.lstrip()) or (enough and enough(text)):
                break
            token = int(np.argmax(self._read([*prompt, *answer])[-1]))
        return self._text(answer)

    def _text(self, tokens: list[int]) -> str:
        return self._llm.detokenize(tokens).decode("utf-8", "replace")

    def nll(self, tokens: Sequence[int], start: int = 1) -> NDArray[np.float64]:
        """See Reader. Raises Interrupted."""
        self._rewind(min(common_prefix(self._known, tokens), start - 1))
        parts: list[NDArray[np.float64]] = []

        def collect(first: int, logits: NDArray[np.float32]) -> None:
            # The row of token i predicts token i + 1.
            skip = max(0, start - 1 - first)
            targets = np.asarray(tokens[first + 1 + skip : first + 1 + len(logits)])
            if len(targets):
                parts.append(_nats(logits[skip : skip + len(targets)], targets))

        self._read(tokens, collect, start - 1)
        return np.concatenate(parts)

    def _rewind(self, length: int) -> None:
        if length == len(self._known):
            return
        place: int | None = length
        if self._schedule:
            place = self._schedule.place_to_rewind(length)
        if length == 0 or place is None or not native.drop_positions(self._llm.ctx, place):
            self.forget()
            return
        self._known = self._known[:length]

    def _read(
        self,
        tokens: Sequence[int],
        collect: Callable[[int, NDArray[np.float32]], None] | None = None,
        collect_from: int = 0,
    ) -> NDArray[np.float32]:
        """Evaluate what isn't known yet; `collect(place, logits)` sees each batch that reaches `collect_from`."""
        logits = np.empty((0, 0), dtype=np.float32)
        while (at := len(self._known)) < len(tokens):
            ga = PLAIN if self._schedule else self._setup.group_attention
            if ga.recall and collect is None:  # as SelfExtendLlama: the end of a prompt looks for itself
                end = at + micro_batch(ga, at, len(tokens) - at, self._batch)
            else:
                end = min(len(tokens), at + ga.batch(at, self._batch))
            every = collect is not None and end > collect_from
            logits = self._decode(tokens[at:end], self._schedule(at) if self._schedule else at, every)
            self._known += tokens[at:end]
            if collect and every:
                collect(at, logits)
            self.progress(end)
        return logits

    def _decode(self, batch: Sequence[int], position: int, every: bool) -> NDArray[np.float32]:
        guard = native.abort_when(self._llm.ctx, self._should_stop) if self._should_stop else nullcontext()
        stopped = self._should_stop is not None and self._should_stop()
        with guard:
            status = native.DecodeStatus.ABORTED if stopped else self._decoder.many(batch, position, every_logit=every)
        if status is native.DecodeStatus.OK:
            return self._decoder.logits(len(batch) if every else 1)
        if status is not native.DecodeStatus.ABORTED:
            raise native.decode_error(status, len(self._known), self._llm.plan.n_ctx)
        done = len(self._known)
        self.forget()
        raise Interrupted("Stopped; the results so far are kept.", done)

    def close(self) -> None:
        self._llm.close()


def _nats(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """-log softmax(logits)[targets], row by row. Slices go to threads: with a large vocabulary this would otherwise take
    longer than the model on a GPU."""

    def part(at: int) -> NDArray[np.float64]:
        rows, wanted = logits[at : at + _ROWS], targets[at : at + _ROWS]
        top = rows.max(axis=1)
        total = np.exp(rows - top[:, None]).sum(axis=1, dtype=np.float64)
        chosen: NDArray[np.float64] = rows[np.arange(len(rows)), wanted].astype(np.float64)
        nats: NDArray[np.float64] = np.log(total) + top - chosen
        return nats

    with ThreadPoolExecutor() as pool:
        return np.concatenate(list(pool.map(part, range(0, len(logits), _ROWS))))


class ModelReaders:
    """Opens readers; the weights are loaded once as long as the context parameters stay."""

    def __init__(
        self,
        model: Path,
        settings: Settings = MEASURED,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._model, self._settings, self._should_stop = model, settings, should_stop
        self._reader: ModelReader | None = None
        self._opened: tuple[int, dict[str, float]] = (0, {})

    def reader(self, setup: Setup, n_ctx: int) -> ModelReader:
        """A reader under `setup` with room for `n_ctx` tokens. Raises what SelfExtendLlama raises."""
        context = dict(setup.context)
        if self._reader is None or self._opened[1] != context or self._opened[0] < n_ctx:
            self.close()
            # Recall reads longer texts than groups, and a reader is told how to read anyway.
            mode = "recall" if setup.group_attention.recall else self._settings.ga_mode
            llm = SelfExtendLlama.of(self._model, replace(self._settings, n_ctx=n_ctx, ga_mode=mode), **dict[str, Any](context))
            self._reader = ModelReader(llm, should_stop=self._should_stop)
            self._opened = (n_ctx, context)
        self._reader.set_up(setup)
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> ModelReaders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
