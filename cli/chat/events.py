"""--jsonl: what happens, as it happens, one JSON object a line on stdout.

Knows the shapes of the events; fields are added, never renamed. Must not know models or what leads to an event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..errors import explain

if TYPE_CHECKING:
    from selfextend_local.engine.plan import ContextPlan
    from selfextend_local.generation.thinking import Part

    from ..terminal.progress import Update

_SECONDS_BETWEEN = 0.25


def emit(event: str, **fields: Any) -> None:
    """Write one event, at once."""
    click.echo(json.dumps({"event": event, **fields}, ensure_ascii=False))


def planned(plan: ContextPlan) -> None:
    """The context that is about to be opened."""
    group = plan.group_attention
    emit("plan", text=plan.describe(), n_ctx=plan.n_ctx, n_ctx_train=plan.n_ctx_train, capacity=plan.capacity,
         ga_n=group.n, ga_w=group.w, ga_mode=group.mode, kv_type=plan.kv_type, kv_bytes=plan.kv_bytes)  # fmt: skip


def prefill() -> Update:
    """Reports of a prefill, in tokens: the first one, the last one, and a few a second in between."""
    last = 0.0

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= _SECONDS_BETWEEN:
            last = now
            emit("prefill", done=done, total=total)

    return update


class EventView:
    """An answer as events: "token" for its text, "thinking" for what is thought aloud before it."""

    def write(self, part: Part) -> None:
        emit("thinking" if part.thought else "token", text=part.text)

    def close(self) -> None:
        """Nothing is held back."""


@contextmanager
def errors_reported(wanted: bool) -> Iterator[None]:
    """An error that ends the program is an event too, if that is `wanted`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if wanted:
            failed(error)
        raise


def failed(error: BaseException) -> int:
    """Tell of an error; returns its exit code."""
    message, code = explain(error)
    emit("error", message=message, exit_code=code)
    return code
