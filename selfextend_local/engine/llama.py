"""SelfExtendLlama: llama_cpp.Llama with group attention, a context sized from the need, and a prefill that can stop.

Knows the plan, the positions and the native boundary. It knows no documents, no templates and no terminal.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from selfextend_local import native
from selfextend_local.errors import (
    ContextOverflow,
    GroupAttentionError,
    Interrupted,
    ModelError,
    ModelNotFound,
    ModelUnsupported,
    SelfExtendError,
)
from selfextend_local.positions import MICRO_BATCH, PLAIN, GroupAttention
from selfextend_local.storage.folders import make_private

from .cuts import common_prefix, kept, micro_batch, next_stop
from .grammar import ToolGrammars, grammar_of, schema_of
from .grouping import Grouping
from .machine import kv_place
from .peek import ModelInfo, ModelPeek
from .plan import ContextPlan, GpuLayers, GroupMode, GroupSize, Settings, check_settings
from .repeats import Repeats
from .tuned import with_profile

native.bindings()

from llama_cpp import Llama  # noqa: E402  (after the check that gives a clear error)

_GENERATE = signature(Llama.generate)
_CHAT = signature(Llama.create_chat_completion)
_CHAIN = frozenset(signature(Llama._init_sampler).parameters) - {"self", "logits_processor"}

_UNKNOWN = -1

SECONDS_WITHOUT_POLL = 0.05
"""While single tokens take less than this, asking between them is soon enough to stop; polling within them would cost."""

NO_IMAGES = (
    "SelfExtendLlama reads text only. What an image leaves in the KV cache can't be grouped, found again or saved: "
    "take llama_cpp.Llama for images."
)

Fetched = native.Fetched

Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all) at the start and after each micro-batch."""


@dataclass(frozen=True)
class Prefill:
    """A prefill that is done: tokens of the prompt, those found in the cache, those evaluated, and seconds."""

    n_prompt: int
    n_reused: int
    n_evaluated: int
    seconds: float


_ASKED = ("ga_n", "ga_w", "ga_fraction", "ga_mode", "ga_recall", "n_ctx", "need_tokens", "kv_type", "kv_file")
_SCALED = (1, 2)  # linear and YaRN of enum llama_rope_scaling_type


def _named_type(kv_type: str, options: Mapping[str, Any]) -> str:
    """The name of a type that was asked for as llama-cpp-python wants it, type_k and type_v, if it is one for both."""
    if kv_type == "f16" and options.get("type_k") is not None and options.get("type_k") == options.get("type_v"):
        return next((name for name, number in native.KV_TYPES.items() if number == options["type_k"]), kv_type)
    return kv_type


def _window(info: ModelInfo, options: Mapping[str, Any]) -> int:
    """The trained window that the caller's options make of the file's, in tokens."""
    overrides = options.get("kv_overrides") or {}
    return int(int(overrides.get(f"{info.architecture}.context_length", info.n_ctx_train)) / _scale(options))


def _scale(options: Mapping[str, Any]) -> float:
    """What linear or YaRN scaling makes of a step between positions: 1.0 without one."""
    scale = float(options.get("rope_freq_scale") or 1.0)
    return scale if options.get("rope_scaling_type") in _SCALED and 0 < scale < 1 else 1.0


def _pools(info: ModelInfo, options: Mapping[str, Any]) -> bool:
    """Whether there is one embedding for a text, because the caller or the file says so."""
    pooling = int(options.get("pooling_type", -1))
    said = info.metadata.get(f"{info.architecture}.pooling_type", "")
    return pooling > 0 or (pooling < 0 and bool(options.get("embedding")) and said.isdecimal() and said != "0")


def _plain_where_needed(asked: Settings, peek: ModelPeek, options: Mapping[str, Any]) -> Settings:
    """Without groups, and with no more than the window, where the model can't have them, the positions are scaled already, or texts
    are read or pooled as a whole."""
    scaled = _scale(options) < 1
    if scaled and asked.ga_n not in ("auto", 1):
        raise GroupAttentionError(f"ga_n={asked.ga_n} with scaled positions (rope_scaling_type, rope_freq_scale): take one of the two.")
    window = peek.info.n_ctx_train
    if asked.n_ctx == 0:
        asked = replace(asked, n_ctx=window)
    whole = _pools(peek.info, options) or peek.info.reads_at_once
    if asked.ga_n != "auto" or asked.recalls or (peek.can_group and not scaled and not whole):
        return asked
    size = window if asked.n_ctx is None and asked.need_tokens is None else asked.n_ctx
    return replace(asked, ga_n=1, n_ctx=None if size is None else min(size, window))


class SelfExtendLlama(Llama):
    """A drop-in for llama_cpp.Llama that reads texts beyond the trained window.

    Args:
        ga_n: group size, or "auto": the plain model, bit for bit, while the text fits `ga_fraction` of the trained window;
            then 2, 4, 8, … as the text grows.
        ga_w: neighbour window in tokens, exact for every query; None = as tuned, else an eighth of the trained window,
            or five 64ths where recall reads a long text.
        ga_mode: "two-level", "progressive" (the farther the key, the larger its group), "recall" (of the far text, each step attends to
            the `ga_recall` tokens that its queries look at most), or "auto": as tuned, else two-level with an n that is given, else what
            was measured best for the length, progressive or recall (`selfextend plan --why`).
        ga_recall: None = 2,048, fewer with a small window, and of more than three windows of text.
        ga_fraction: share of the trained window to rely on; None = as tuned (`selfextend tune`), else 3/8.
        ga_temperature: c of the factor 1 + c ln((i + 1)/L) of queries beyond the trained window L; 0 = off, None = as tuned, else 0.
            Part of what a saved state is of.
        need_tokens: tokens that the context has to hold. Without it and n_ctx four trained windows, if the memory allows. A model without
            rotary positions gets one at most, and no groups.
        n_ctx: the size of the context, if you know better; 0 = the trained window.
        kv_type: "f16", "q8_0", "q4_0", or "auto": the first of them that fits the free memory.
        kv_file: whether the KV cache lies in a file that the system reads and writes as it is used: "off", "on", a folder, or "auto": where
            recall reads a text whose cache memory doesn't hold.
        n_gpu_layers: layers on the GPU, -1 = all, "auto" = as many as its free memory holds, none without a GPU.
        flash_attn: whether attention is computed without a matrix of all scores; quantised caches need it.
        load_progress: called with (percent done, 100) while the weights are loaded.
        plan: what `ModelPeek.plan` made of the same settings; None = made here.
        chat_handler: one for images is refused, as are messages that hold images: text only.

    Attributes:
        being_saved: a lock that a thread holds while it reads the state; whatever changes the state waits for it.

    Raises ModelNotFound, ModelError, ModelUnsupported, GroupAttentionError, ContextOverflow, MemoryBudgetError,
    LibraryError; all but ModelUnsupported before the weights are loaded.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        ga_n: GroupSize = "auto",
        ga_w: int | None = None,
        ga_fraction: float | None = None,
        ga_mode: GroupMode = "auto",
        ga_temperature: float | None = None,
        ga_recall: int | None = None,
        need_tokens: int | None = None,
        n_ctx: int | None = None,
        kv_type: str = "f16",
        kv_file: str = "auto",
        n_gpu_layers: GpuLayers = 0,
        n_threads: int | None = None,
        flash_attn: bool = True,
        load_progress: Progress | None = None,
        plan: ContextPlan | None = None,
        verbose: bool = False,
        **llama_kwargs: Any,
    ) -> None:
        self._load_progress = load_progress
        self.being_saved = threading.Lock()
        self._tool_grammars = ToolGrammars()
        self._stack = ExitStack()  # Llama.close() wants it, also after a constructor that failed early
        if getattr(llama_kwargs.get("chat_handler"), "clip_model_path", None):
            raise ModelUnsupported(f"chat_handler: {NO_IMAGES}")
        if not Path(model_path).is_file():
            # The second sentence has llama-cpp-python's words, which others look for.
            raise ModelNotFound(f"There is no model file {model_path}. Name a GGUF file. Model path does not exist: {model_path}")
        if llama_kwargs.get("vocab_only"):
            self._open_vocabulary(model_path, n_threads=n_threads, verbose=verbose, **llama_kwargs)
            return
        asked = Settings(
            ga_n,
            ga_w,
            ga_fraction,
            n_ctx,
            need_tokens,
            _named_type(kv_type, llama_kwargs),
            n_gpu_layers,
            ga_mode=ga_mode,
            ga_temperature=ga_temperature,
            ga_recall=ga_recall,
            kv_file=kv_file,
        )
        with ModelPeek(model_path) as peek:
            self.info = peek.info = replace(peek.info, n_ctx_train=_window(peek.info, llama_kwargs))
            if peek.info.n_ctx_train < 1:
                raise ModelUnsupported(f"{model_path} doesn't say which context window it was trained with.")
            self._settings = with_profile(_plain_where_needed(asked, peek, llama_kwargs), peek.info.path)
            self.plan = plan or peek.plan(self._settings, flash_attn=flash_attn)
            self._settings = replace(self._settings, groups_only=self.plan.groups_only)
        if self.plan.group_attention.enabled:
            native.require_patched()
        threads = n_threads or psutil.cpu_count(logical=False) or 1
        batch = dict(n_batch=MICRO_BATCH, n_ubatch=MICRO_BATCH, n_threads_batch=threads) | llama_kwargs
        type_ = native.KV_TYPES[self.plan.kv_type]
        native.native_reason()
        try:
            with native.kv_in(self._kv_folder()):
                super().__init__(
                    str(model_path),
                    n_ctx=self.plan.n_ctx,
                    n_gpu_layers=self.plan.gpu_layers if n_gpu_layers == "auto" else n_gpu_layers,
                    n_threads=threads,
                    flash_attn=self.plan.flash_attn,
                    verbose=verbose,
                    **dict(type_k=type_, type_v=type_) | batch,
                )
        except (ValueError, AssertionError) as error:  # assertions of llama-cpp-python
            advice = " Free some disk, or take --kv-file FOLDER." if self.plan.in_file else ""
            raise ModelError(f"{model_path} can't be loaded: {native.native_reason() or error}.{advice}") from error
        self._ga = PLAIN
        self._grouping = Grouping(self._settings, self.plan.n_ctx_train, self.info.sliding_window, self.plan.capacity)
        self._stop: Callable[[], bool] | None = None
        self._progress: Progress | None = None
        self._expected = 0
        self._step_s = 0.0
        self._grows_at = 0
        self._held = _UNKNOWN  # the tokens whose keys, and no others, are in the cache
        self._stops: list[int] = []  # where parts of what is held ended, see cuts.py
        self._aim = 0  # where the last part that was begun ends
        self._parts: Sequence[int] = ()  # the same of what is being read
        self._keeps_all_keys = native.keeps_all_keys(self._model.model)
        self._decoder = native.Decoder(self.ctx)
        self._pieces = tuple(native.Pieces(self._model.model, special) for special in (False, True))
        self._token_bos = self.token_bos()
        self._check_support()
        try:
            self.set_attention_temperature(self._settings.ga_temperature or 0.0)
        except SelfExtendError:
            self.close()
            raise

    def _kv_folder(self) -> Path | None:
        if not self.plan.in_file:
            return None
        folder = kv_place(self._settings.kv_file)
        try:
            make_private(folder)
        except OSError as error:
            raise ModelError(f"No KV cache can be kept in {folder} ({error.strerror or error}): take --kv-file FOLDER.") from error
        return folder

    def _open_vocabulary(self, model_path: str | Path, **llama_kwargs: Any) -> None:
        # Tokens and pieces of a file that may have no weights: there is nothing to plan.
        super().__init__(str(model_path), **llama_kwargs)
        self._pieces = tuple(native.Pieces(self._model.model, special) for special in (False, True))
        self._token_bos = self.token_bos()

    @classmethod
    def of(
        cls,
        model_path: str | Path,
        settings: Settings,
        *,
        plan: ContextPlan | None = None,
        load_progress: Progress | None = None,
        **llama_kwargs: Any,
    ) -> SelfExtendLlama:
        """The model as `settings` say; the constructor has the defaults of llama_cpp.Llama instead."""
        return cls(
            model_path,
            ga_n=settings.ga_n,
            ga_w=settings.ga_w,
            ga_fraction=settings.ga_fraction,
            ga_mode=settings.ga_mode,
            ga_temperature=settings.ga_temperature,
            ga_recall=settings.ga_recall,
            need_tokens=settings.need_tokens,
            n_ctx=settings.n_ctx,
            kv_type=settings.kv_type,
            kv_file=settings.kv_file,
            n_gpu_layers=settings.gpu_layers,
            n_threads=settings.threads,
            plan=plan,
            load_progress=load_progress,
            **llama_kwargs,
        )

    def __getstate__(self) -> dict[str, Any]:
        """As Llama.__getstate__, and what was asked of this class."""
        s = self._settings
        ours = {name: getattr(s, name) for name in _ASKED}
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state |= ours | {"ga_temperature": self._ga_temperature}
        if s.kv_type != "auto" and s.kv_type in native.KV_TYPES and native.KV_TYPES[s.kv_type] == state["type_k"] == state["type_v"]:
            del state["type_k"], state["type_v"]
        return state

    @property
    def model_params(self) -> Any:
        """llama_model_params of this model."""
        return self._model_params

    @model_params.setter
    def model_params(self, params: Any) -> None:
        # Llama fills these in and loads the weights in one go: this is the moment to ask for reports.
        self._model_params = params
        if self._load_progress:
            self._load_callback = native.report_loading(params, self._load_progress)

    def _check_support(self) -> None:
        # What is set stays until `eval` sets what its text needs: a program that decodes on `ctx` itself has the whole capacity.
        if self.plan.capacity <= self.plan.n_ctx_train and not self.plan.group_attention.enabled:
            return
        try:
            self._set_group_attention(self.group_attention_for(self.plan.capacity))
        except SelfExtendError as error:
            if self._settings.chooses and self.group_attention_for(self.plan.capacity).recall:
                self._keep_groups(str(error))
                return self._check_support()
            self.close()
            raise
        if self.context_params.embeddings:  # `embed` doesn't come through `eval`
            self._set_group_attention(self.group_attention_for(1))

    def _keep_groups(self, reason: str) -> None:
        # Recall was chosen, not asked for.
        self._settings = replace(self._settings, groups_only=reason)
        most = check_settings(self._settings, self.plan.n_ctx_train, self.info.sliding_window)
        capacity = min(self.plan.capacity, most)
        self._grouping = replace(self._grouping, settings=self._settings, capacity=capacity)
        planned = self._settings.need_tokens or capacity
        self.plan = replace(self.plan, capacity=capacity, group_attention=self.group_attention_for(planned), groups_only=reason)
        if planned > capacity:
            self.close()
            raise self._grouping.overflow(planned)

    @property
    def group_attention(self) -> GroupAttention:
        """The (n, w, r) in use."""
        return self._ga

    @property
    def capacity(self) -> int:
        """The most tokens that this context can hold."""
        return self.plan.capacity

    def prefill(
        self,
        tokens: Sequence[int],
        *,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
        expect: int | None = None,
        stops: Sequence[int] = (),
    ) -> Prefill:
        """Evaluate a prompt, less the prefix that is in the cache already.

        expect: the length that the text is known to reach; the group size is set for it once.
        stops: positions, ascending, where a document or an earlier prompt or answer ends: under recall what is read up to there doesn't
        depend on what follows.
        Raises Interrupted when `should_stop` says so: what was evaluated stays, and the next call goes on from there.
        Raises ContextOverflow, with the cache as it was.
        """
        wanted = list(tokens)
        self._check_length(len(wanted))
        self._settle()
        started = time.perf_counter()
        self._expected = expect or 0
        self._plain_again_if_it_fits(len(wanted))
        self._parts = [*(stop for stop in stops if 0 < stop < len(wanted)), len(wanted)]
        self._progress, self._stop = progress, should_stop
        try:
            reused = self._reuse(wanted)
            if reused < len(wanted):
                self.eval(wanted[reused:])
        finally:
            self._progress, self._stop, self._parts = None, None, ()
        return Prefill(len(wanted), reused, len(wanted) - reused, time.perf_counter() - started)

    def restart(self, prefix: Sequence[int], *, expect: int) -> int:
        """Bring the cache to exactly `prefix`, grouped as a text of `expect` tokens needs it; how many were there already.

        All of the prefix is kept or none of it, so that what is read next doesn't depend on what was read before.
        """
        wanted = list(prefix)
        # Keys that a border has passed were rotated there and back, which rounds them.
        untouched = self._ga == self.group_attention_for(expect) and self._ga.boundary(int(self.n_tokens) - 1) == 0
        if untouched and self._common_prefix(wanted) == len(wanted) and self._truncate(len(wanted)) == len(wanted):
            return len(wanted)
        self.reset()  # type: ignore[no-untyped-call]
        self.prefill(wanted, expect=expect)
        return 0

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens behind those in the cache, in micro-batches. See `prefill` for what it raises."""
        pending = np.asarray(tokens, dtype=np.intc)
        self._settle()
        self._check_length(self.n_tokens + len(pending))
        pending = np.concatenate([self._lost(), pending])
        total = len(pending)
        self._grow(max(self.n_tokens + total, self._expected))
        done = 0
        if self._progress:
            self._progress(0, total)
        polls = self._stop is not None and (total > 1 or self._step_s > SECONDS_WITHOUT_POLL)
        guard = native.abort_when(self.ctx, self._stop) if self._stop and polls else nullcontext()
        started = time.perf_counter()
        end = self.n_tokens + total
        with guard:
            while done < total:
                if self._stop and self._stop():
                    raise self._interrupted()
                self._aim = min(end, next_stop(self._parts, self.n_tokens)) if self._parts and self._ga.recall else end
                chunk = pending[done : done + micro_batch(self._ga, self.n_tokens, self._aim - self.n_tokens, int(self.n_batch))]
                self._evaluate(chunk)
                done += len(chunk)
                if self._progress:
                    self._progress(done, total)
        self._step_s = (time.perf_counter() - started) / max(1, total)

    def _evaluate(self, chunk: npt.NDArray[np.intc]) -> None:
        start, end = self.n_tokens, self.n_tokens + len(chunk)
        self._held = _UNKNOWN
        copy = native.copy_recurrent_state(self.ctx) if start and self._stop and not self._keeps_all_keys else b""
        status = self._decoder.many(chunk, start, every_logit=self._logits_all)
        if status is not native.DecodeStatus.OK:
            if copy:
                native.restore_recurrent_state(self.ctx, copy)
            raise self._failed(status)
        self.input_ids[start:end] = chunk
        if self._logits_all:
            self.scores[start:end] = self._decoder.logits(len(chunk))
        self._advanced(end)

    def _evaluate_next(self, token: int) -> None:
        """As `eval` of one token, without what only matters to many or to slow ones."""
        place = self.n_tokens
        usual = place == self._held and place + 1 < self._grows_at and place < self.plan.capacity
        if not usual or self._step_s > SECONDS_WITHOUT_POLL:
            self.eval([token])
            return
        if self._stop and self._stop():
            raise self._interrupted()
        self._settle()
        started = time.perf_counter()
        self._held = _UNKNOWN
        status = self._decoder.one(token, place)
        if status is not native.DecodeStatus.OK:
            raise self._failed(status)
        self.input_ids[place] = token
        self._advanced(place + 1)
        self._step_s = time.perf_counter() - started

    def _advanced(self, end: int) -> None:
        self._cut_stops()
        if end >= self._aim:
            self._stops.append(end)
        self.n_tokens = end
        self._requires_eval = False
        self._held = end

    def _cut_stops(self) -> None:
        while self._stops and self._stops[-1] > self.n_tokens:
            self._stops.pop()

    @property
    def stops(self) -> list[int]:
        """Where parts of what is held ended; the last is beyond it if the reading ended within a part. See cuts.py."""
        self._cut_stops()
        return [*self._stops, self._aim] if self._aim > self.n_tokens else list(self._stops)

    def _lost(self) -> npt.NDArray[np.intc]:
        """The tokens that must be read again: none, or all where the memory can't drop what an unfinished micro-batch left in it."""
        if self._held == self.n_tokens or native.drop_positions(self.ctx, int(self.n_tokens)):
            return np.empty(0, dtype=np.intc)
        kept = self.cached_tokens()
        self.reset()  # type: ignore[no-untyped-call]
        return kept

    def _failed(self, status: native.DecodeStatus) -> SelfExtendError:
        self._requires_eval = True
        self._lost()  # what is held is what n_tokens says, also for who saves it
        if status is native.DecodeStatus.ABORTED:
            return self._interrupted()
        return native.decode_error(status, self.n_tokens, self.plan.n_ctx)

    def _init_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """As Llama._init_sampler."""
        if kwargs.get("grammar") is not None:
            kwargs["grammar"] = self._tool_grammars.ours(kwargs["grammar"])
        return super()._init_sampler(*args, **kwargs)

    def sampler(self, *, dry: float = 0.0, **chain: Any) -> tuple[Any, Repeats]:
        """What draws an answer: a sampler, and what keeps it from saying the same again, if that costs anything."""
        return self._init_sampler(**chain), Repeats(lambda token: self._pieces[False][token].decode("utf-8", "ignore"), dry)

    def generate(
        self, tokens: Sequence[int], *args: Any, dry: float = 0.0, should_stop: Callable[[], bool] | None = None, **kwargs: Any
    ) -> Generator[int, Sequence[int] | None, None]:
        """As Llama.generate. `dry`: what saying something again costs (repeats.py), 0 for nothing; without effect where something
        else looks at the logits. Raises ContextOverflow if the prompt doesn't fit, Interrupted when `should_stop` says so: between
        tokens, and within one where a token takes long."""
        prompt = list(tokens)
        self._check_length(len(prompt))
        self._settle()
        self._plain_again_if_it_fits(len(prompt))
        asked = dict(_GENERATE.bind(self, prompt, *args, **kwargs).arguments)
        looks_at_logits = asked.get("logits_processor") or asked.get("stopping_criteria") or self._logits_all
        if looks_at_logits or self.draft_model is not None:
            drawn = super().generate(prompt, *args, **kwargs)
        else:
            chain = {name: value for name, value in asked.items() if name in _CHAIN}
            drawn = self._draw(prompt, chain, dry, afresh=asked.get("reset", True))
        return drawn if should_stop is None else self._stoppable(drawn, should_stop)

    def _draw(self, prompt: list[int], chain: dict[str, Any], dry: float, *, afresh: bool) -> Generator[int, Sequence[int] | None, None]:
        # Llama.generate does the same, but with lists, checks and numpy between any two tokens.
        sampler, repeats = self.sampler(dry=dry, **chain)
        self._sampler = sampler
        if pending := prompt[self._reuse(prompt) :] if afresh else prompt:
            self.eval(pending)
        while True:
            token = repeats.drawn(self._decoder.draw(sampler.sampler, repeats.costs()))
            more = yield token
            if more:
                self.eval([token, *more])
            else:
                self._evaluate_next(token)

    def _stoppable(
        self, generator: Generator[int, Sequence[int] | None, None], should_stop: Callable[[], bool]
    ) -> Generator[int, Sequence[int] | None, None]:
        self._stop = should_stop
        try:
            yield from generator
        finally:
            self._stop = None

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """As Llama.tokenize, which makes room for as many tokens as the trained window has in each call, and ends the process on words
        of 48,000 letters."""
        if type(self.tokenizer_).__name__ != "LlamaTokenizer":  # one that the caller gave
            return list(super().tokenize(text, add_bos, special))
        return native.tokenize(self._model.model, text, special, add_special=add_bos)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """As Llama.detokenize, which garbles tokens of more than 32 bytes."""
        pieces = self._pieces[special]
        text = b"".join([pieces[token] for token in tokens])
        return text[1:] if tokens and tokens[0] == self._token_bos and text[:1] == b" " else text

    def ends_answers(self, token: int) -> bool:
        """Whether a token is the end of an answer: a grammar allows any of these where its text is complete."""
        return native.ends_answers(self._model.model, token)

    def fetched(self) -> list[Fetched]:
        """What each layer fetched at its last choice under recall; nothing where nothing is left out."""
        return native.fetched(self.ctx, native.n_layers(self._model.model), self._ga.recall) if self._ga.recall else []

    def cached_tokens(self) -> npt.NDArray[np.int32]:
        """The tokens whose keys are in the cache: a copy, int32 (n_tokens,)."""
        return self.input_ids[: self.n_tokens].astype(np.int32, copy=True)

    @property
    def can_roll_back(self) -> bool:
        """Whether the cache can be cut back to an earlier token. Not with recurrent layers, nor with sliding-window layers
        that keep their window only."""
        full_window = self.info.sliding_window == 0 or bool(self.context_params.swa_full)
        return full_window and self._keeps_all_keys

    def takes_group_attention(self, ga: GroupAttention, n_tokens: int) -> bool:
        """Whether keys that were read with `ga` may serve a text of `n_tokens`. See Grouping.accepts."""
        return self._grouping.accepts(ga, n_tokens)

    def state_settings(self) -> dict[str, Any]:
        """The settings that the keys and values of a text depend on, the model file and the text apart."""
        p = self.context_params
        types = {number: name for name, number in native.KV_TYPES.items()}
        settings: dict[str, Any] = {
            "kv_type_k": types.get(p.type_k, p.type_k),
            "kv_type_v": types.get(p.type_v, p.type_v),
            "flash_attn": p.flash_attn_type,
            "ga_n": self._grouping.mode,
            "swa_full": bool(p.swa_full),
            "attention_type": p.attention_type,
            "rope": [p.rope_scaling_type, p.rope_freq_base, p.rope_freq_scale, p.yarn_orig_ctx],
            "yarn": [p.yarn_ext_factor, p.yarn_attn_factor, p.yarn_beta_fast, p.yarn_beta_slow],
        }
        if self._ga_temperature:
            settings["ga_temperature"] = self._ga_temperature
        if self.lora_path:
            status = Path(self.lora_path).stat()
            settings["lora"] = [str(self.lora_path), status.st_size, status.st_mtime_ns, self.lora_scale]
        if self.kv_overrides:
            settings["kv_overrides"] = {key: str(value) for key, value in self.kv_overrides.items()}
        return settings

    def state_bytes(self) -> int:
        """Bytes of what the cache holds: keys, values, positions."""
        return native.state_bytes(self.ctx)

    def save_state_file(self, path: Path, header: bytes) -> None:
        """Write what the cache holds behind `header`. May run in a thread that holds `being_saved`, while no other uses
        this model.

        Raises OSError.
        """
        native.save_state(self.ctx, path, header)

    def load_state_file(
        self, path: Path, header_bytes: int, tokens: npt.NDArray[np.int32], group_attention: GroupAttention, stops: Sequence[int] = ()
    ) -> None:
        """Replace what the cache holds by the state of `tokens` in a file of `save_state_file`, read with
        `group_attention` and these `stops`. The file's content must have been verified.

        Raises ModelError if the context doesn't take it, OSError; the cache is empty then.
        """
        self._settle()
        self.reset()  # type: ignore[no-untyped-call]
        self._set_group_attention(group_attention)
        try:
            native.load_state(self.ctx, path, header_bytes, sliding_window=self.info.sliding_window > 0)
        except (ModelError, OSError):
            native.clear_memory(self.ctx)
            raise
        self.input_ids[: len(tokens)] = tokens
        self.n_tokens = len(tokens)
        self._restored(stops)

    def _restored(self, stops: Sequence[int]) -> None:
        self._stops, self._aim = list(stops), max(stops, default=0)
        self._cut_stops()

    def save_state(self) -> Any:
        """As Llama.save_state; the state says with which group attention it was read."""
        self._settle()
        self._lost()
        state = super().save_state()
        state.group_attention, state.stops = self._ga, self.stops  # type: ignore[attr-defined]
        return state

    def load_state(self, state: Any) -> None:
        """As Llama.load_state, with the group attention that the state was read with."""
        self._settle()
        self.reset()  # type: ignore[no-untyped-call]
        native.clear_memory(self.ctx)
        self._set_group_attention(getattr(state, "group_attention", self.group_attention_for(int(state.n_tokens))))
        super().load_state(state)
        self._held, self._grows_at = _UNKNOWN, 0
        self._restored(getattr(state, "stops", ()))

    def embed(self, input: str | list[str], *args: Any, **kwargs: Any) -> Any:
        """As Llama.embed; warns of texts beyond the trained window, which are embedded by the plain model."""
        texts = [input] if isinstance(input, str) else input
        longest = max((len(self.tokenize(text.encode())) for text in texts), default=0)
        if longest > self.plan.n_ctx_train:
            warnings.warn(
                f"A text of {longest:,} tokens is embedded without groups, beyond the trained window of {self.plan.n_ctx_train:,}: cut it.",
                stacklevel=2,
            )
        embedded = super().embed(input, *args, **kwargs)
        self.reset()  # type: ignore[no-untyped-call]
        self._held = _UNKNOWN
        return embedded

    def _settle(self) -> None:
        # What is being saved must not change under the thread that saves it.
        with self.being_saved:
            pass

    def close(self) -> None:
        """Free the model, once a state that is being saved is on disk."""
        with self.being_saved:
            super().close()

    def create_completion(self, prompt: str | list[int], *args: Any, **kwargs: Any) -> Any:
        """As Llama.create_completion. Raises ContextOverflow if the prompt doesn't fit."""
        length = len(self.tokenize(prompt.encode(), special=True)) if isinstance(prompt, str) else len(prompt)
        # The prompt and one token of the answer have to fit.
        self._check_length(length + 1)
        return super().create_completion(prompt, *args, **kwargs)

    def create_chat_completion(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        """As Llama.create_chat_completion; `response_format` may be OpenAI's {"type": "json_schema", "json_schema": {"schema": …}}.

        Raises ModelUnsupported for images and sound, ContextOverflow if the prompt doesn't fit, SelfExtendError for a schema that is too
        much for a grammar.
        """
        asked = dict(_CHAT.bind(self, messages, *args, **kwargs).arguments)
        del asked["self"], asked["messages"]
        if (schema := schema_of(asked.pop("response_format", None))) is not None:
            asked["grammar"] = grammar_of(schema)
        self._tool_grammars = ToolGrammars(self._schemas_of_tools(asked))
        for message in messages:
            content = message.get("content")
            kinds = {part.get("type", "text") for part in content} - {"text", "refusal"} if isinstance(content, list) else set()
            if kinds:
                raise ModelUnsupported(f"A message holds {', '.join(sorted(kinds))}: {NO_IMAGES}")
        return super().create_chat_completion(messages, **asked)

    def _schemas_of_tools(self, asked: Mapping[str, Any]) -> list[Any]:
        # Those that an answer may have to follow: of the function that was named, or of all where the model chooses.
        functions = [*(tool.get("function", {}) for tool in asked.get("tools") or ()), *(asked.get("functions") or ())]
        choice, call = asked.get("tool_choice"), asked.get("function_call")
        named = choice.get("function", {}) if isinstance(choice, dict) else call if isinstance(call, dict) else {}
        every = self.chat_format == "chatml-function-calling"
        return [one["parameters"] for one in functions if "parameters" in one and (every or one.get("name") == named.get("name", ""))]

    def _check_length(self, n_tokens: int) -> None:
        if n_tokens > self.plan.capacity:
            found = self._grouping.overflow(n_tokens)
            words = f"Requested tokens ({n_tokens}) exceed context window of {self.plan.capacity}"  # others look for llama-cpp-python's
            raise ContextOverflow(f"{words}: {found}", n_tokens, self.plan.capacity)

    def pin_group_attention(self, ga: GroupAttention) -> None:
        """Use this (n, w, r) from now on, whatever the length of the text: for experiments and comparisons.

        Raises GroupAttentionError or ModelUnsupported if the context refuses it.
        """
        self._set_group_attention(ga)
        self._grouping = replace(self._grouping, pinned=ga)

    def set_attention_temperature(self, c: float) -> None:
        """Use this attention temperature from now on, for experiments: see `ga_temperature`. Keys in the cache stay as they are.

        Raises GroupAttentionError or ModelUnsupported if the context refuses it.
        """
        native.set_attention_temperature(self.ctx, c)
        self._ga_temperature = c

    def group_attention_for(self, n_tokens: int) -> GroupAttention:
        """The (n, w, r) that a text of `n_tokens` is read with."""
        return self._grouping.for_length(n_tokens)

    def next_growth(self, coming: int = 0) -> tuple[int, GroupAttention] | None:
        """(tokens, group attention): the length of text at which it goes over to larger groups or to recall; None if it stays.

        coming: while nothing is read, the length that will be read with one group size.
        """
        now = self._ga if self.n_tokens else self.group_attention_for(coming)
        return self._grouping.next_growth(now, max(int(self.n_tokens), coming))

    def _set_group_attention(self, ga: GroupAttention) -> None:
        if ga != self._ga:
            native.set_group_attention(self.ctx, ga)
            self._ga = ga
            self._grows_at = 0

    def _grow(self, n_tokens: int) -> None:
        # While keys are kept the group only grows: going back would not give the plain model's very bits.
        if self.n_tokens > 0 and n_tokens < self._grows_at:
            return
        wanted = self.group_attention_for(n_tokens)
        if self.n_tokens == 0 or wanted.stage > self._ga.stage:
            self._set_group_attention(wanted)
        growth = self.next_growth(n_tokens)
        self._grows_at = self.capacity + 1 if growth is None else growth[0]

    def _plain_again_if_it_fits(self, n_tokens: int) -> None:
        # A short text after a long one: drop the regrouped keys, so that the results are those of the plain model.
        if self._ga.enabled and not self.group_attention_for(max(n_tokens, self._expected)).enabled:
            self.reset()  # type: ignore[no-untyped-call]

    def _common_prefix(self, tokens: list[int]) -> int:
        return common_prefix(self.input_ids[: self.n_tokens], tokens)

    def _must_replay(self, reused: int, n_tokens: int) -> bool:
        complete = reused == n_tokens == self.n_tokens
        return not (complete and not self._requires_eval)

    def _reuse(self, tokens: list[int]) -> int:
        """Cut the cache back to what `tokens` begins with; how many of them needn't be evaluated."""
        reused = self._common_prefix(tokens)
        if not self._must_replay(reused, len(tokens)):
            return reused
        if self._ga.recall and self.can_roll_back:
            wanted = self._parts or [len(tokens)]
            return self._truncate(kept(self._ga, int(self.n_batch), self.stops, wanted, reused, int(self.n_tokens)))
        if reused < self.n_tokens or reused == len(tokens):
            # The last token is evaluated again, since its logits are what the answer starts from.
            return self._truncate(min(reused, len(tokens) - 1))
        return reused

    def _truncate(self, length: int) -> int:
        if length == self.n_tokens:
            return length
        if length < 1 or not native.drop_positions(self.ctx, length):
            self.reset()  # type: ignore[no-untyped-call]
            return 0
        self.n_tokens = length
        self._requires_eval = True
        return length

    def _interrupted(self) -> Interrupted:
        kept = "they are kept" if self.n_tokens else "nothing is kept"
        return Interrupted(f"Stopped after {self.n_tokens:,} tokens; {kept}.", int(self.n_tokens))
