"""Batches: many documents in, a result for each out, nothing lost; on this machine, on many, or over servers.

    job, items, outcome          plain values
    worker, slots_worker         one item, or several side by side, with one model
    runner                       many items; local_runner here, dask_runner on Dask workers, http_runner over HTTP
    results, tables              what is written
    batch                        what is to do, and the one writer

Importing this loads none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "summarize": "api",
    "Instruction": "..summarize",
    "Limits": "job",
    "Result": "outcome",
    "Failure": "outcome",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    return getattr(import_module(home if home.startswith(".") else f".{home}", __name__), name)
