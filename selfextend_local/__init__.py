"""SelfExtend on quantised GGUF models: read documents longer than the trained window.

Importing this package loads no C library; the names below load what they need on first use.

    storage, documents, positions -> native -> engine -> generation -> sessions -> chat, batch, evaluation
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("selfextend-local")
except PackageNotFoundError:
    __version__ = "0+unknown"

_HOME = {
    "Workspace": "chat.workspace",
    "SelfExtendLlama": "engine.llama",
    "ModelPeek": "engine.peek",
    "ModelInfo": "engine.peek",
    "Prefill": "engine.llama",
    "ContextPlan": "engine.plan",
    "Settings": "engine.plan",
    "GroupAttention": "positions",
    "Chat": "chat.conversation",
    "Document": "documents",
    "load_document": "documents",
    "find_default_model": "engine.default_model",
    "SelfExtendError": "errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
