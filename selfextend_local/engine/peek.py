"""What a model file says of itself and what contexts on it would take, without its weights.

Knows the plan and the native boundary. Importing it loads no C library; opening a file does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from selfextend_local import native
from selfextend_local.errors import ModelError, ModelNotFound
from selfextend_local.positions import MICRO_BATCH, GroupAttention

from . import opening
from .machine import free_memory
from .plan import ContextPlan, Settings, Shape, Use, group_attention_for, make_plan, restricted, why
from .tuned import with_profile


@dataclass(frozen=True)
class ModelInfo:
    """What a GGUF file says of itself. `n_ctx_train` and `sliding_window` in tokens, 0 = no sliding window."""

    path: Path
    name: str
    architecture: str
    n_ctx_train: int
    sliding_window: int
    chat_template: str | None
    metadata: Mapping[str, str]

    @property
    def reads_at_once(self) -> bool:
        """Whether each token sees those behind it too, as in BERT: there is no cache."""
        return self.metadata.get(f"{self.architecture}.attention.causal") == "false"


class ModelPeek:
    """Metadata and vocabulary of a GGUF file, without its weights: opens in about 0.1 s.

    Raises ModelNotFound, ModelError, LibraryError.
    """

    def __init__(self, model_path: str | Path) -> None:
        path = Path(model_path)
        if not path.is_file():
            raise ModelNotFound(f"There is no model file {path}. Name a GGUF file with --model.")
        opening.check(path)
        self._model: Any = native.open_model_without_weights(path, 0)
        metadata = native.metadata(self._model)
        self.info = ModelInfo(
            path=path,
            name=metadata.get("general.name", path.stem),
            architecture=metadata.get("general.architecture", "unknown"),
            n_ctx_train=native.trained_window(self._model),
            sliding_window=native.sliding_window(self._model),
            chat_template=metadata.get("tokenizer.chat_template"),
            metadata=metadata,
        )

    @property
    def can_group(self) -> bool:
        """Whether the model has keys with rotary positions, which group attention moves."""
        return native.can_group(self._model)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids without BOS. With `special`, text that looks like a control token becomes one."""
        return native.tokenize(self._model, text, special)

    def opening_tokens(self) -> list[int]:
        """What the vocabulary puts in front of a text: BOS or nothing."""
        return native.opening_tokens(self._model)

    def plan(self, settings: Settings, *, flash_attn: bool = True) -> ContextPlan:
        """Size a context for this model and the memory that is free now. Allocates nothing.

        Raises GroupAttentionError, ContextOverflow, MemoryBudgetError.
        """
        settings = with_profile(settings, self.info.path)
        if settings.kv_type not in (*native.KV_TYPES, "auto"):
            raise ModelError(f"kv_type {settings.kv_type!r} is unknown; take auto or one of {', '.join(native.KV_TYPES)}.")
        memory = free_memory(settings.kv_file)
        info = self.info
        if f"{info.architecture}.attention.key_length_mla" in info.metadata:
            settings = replace(settings, groups_only="recall takes no compressed keys (MLA)")

        def largest_group(shape: Shape) -> GroupAttention:
            there = restricted(settings, shape if memory.gpu else replace(shape, gpu_layers=0))
            return group_attention_for(there, shape.n_ctx, info.n_ctx_train, info.sliding_window)

        with _Measurement(info.path, self._model, on_gpu=memory.gpu > 0, group_attention=largest_group) as measure:
            return make_plan(
                settings,
                info.n_ctx_train,
                sliding_window=info.sliding_window,
                memory=memory,
                measure=measure,
                n_layers=native.n_layers(self._model) + 1,  # and the output
                flash_attn=flash_attn,
            )

    def why(self, settings: Settings, n_tokens: int) -> str:
        """Why a text of `n_tokens` is read as it is, in a sentence."""
        return why(with_profile(settings, self.info.path), n_tokens, self.info.n_ctx_train, self.info.sliding_window)

    def close(self) -> None:
        if self._model is not None:
            native.free_model(self._model)
            self._model = None

    def __enter__(self) -> ModelPeek:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_model", None) is not None:
            self.close()


class _Measurement:
    """What contexts on a model would take. Nothing is allocated; a model whose layers lie elsewhere is opened once more."""

    def __init__(self, path: Path, model: Any, *, on_gpu: bool, group_attention: Callable[[Shape], GroupAttention]) -> None:
        self._path, self._on_gpu = path, on_gpu
        self._group_attention = group_attention
        self._models = {0: model}

    def __call__(self, shape: Shape) -> Use | None:
        layers = shape.gpu_layers if self._on_gpu else 0
        if layers not in self._models:
            self._models[layers] = native.open_model_without_weights(self._path, layers)
        found = native.memory_use(
            self._models[layers],
            n_ctx=shape.n_ctx,
            n_batch=MICRO_BATCH,
            n_ubatch=MICRO_BATCH,
            kv_type=shape.kv_type,
            flash_attn=shape.flash_attn,
            group_attention=self._group_attention(shape),
            in_file=shape.in_file,
        )
        if found is None:
            return None
        host, gpu = found
        kv_cache = host.kv_cache + gpu.kv_cache + host.file
        return Use(kv_cache, host.kv_cache + host.compute, gpu.total if self._on_gpu else 0, host.file)

    def __enter__(self) -> _Measurement:
        return self

    def __exit__(self, *_: object) -> None:
        for layers, model in self._models.items():
            if layers:
                native.free_model(model)
