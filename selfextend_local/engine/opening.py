"""Opening a model file in a child process first: llama.cpp ends the process on some that are well-formed and wrong.

What has been opened once is remembered by its content and the library's version. Knows files and the native boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from selfextend_local import native
from selfextend_local.child import Child, ChildFailed
from selfextend_local.errors import ModelError, ModelUnsupported
from selfextend_local.positions import MICRO_BATCH, GroupAttention, fixed
from selfextend_local.storage.disk import replacing
from selfextend_local.storage.folders import is_ours, make_private, model_folder
from selfextend_local.storage.identity import model_identity

SECONDS = 300.0
"""For a vocabulary and the shapes of the tensors: a second, more from a slow disk."""

_TRIAL = 2  # raise it when more is tried

SMALL = 256 << 20
"""Bytes of a model that is tried with its weights."""


class WrongValue(ValueError):
    """A value in the header with which llama.cpp would end the process."""


def check(path: Path) -> None:
    """Raises ModelError if opening the file would end the process, or take for ever."""
    try:
        status = path.stat()
        _check(path.resolve(), status.st_size, status.st_mtime_ns)
    except OSError:
        return  # opening it says why


@cache
def _check(path: Path, size: int, modified: int) -> None:
    mark = model_folder() / f"{model_identity(path)}-{native.library_version()}-{_TRIAL}"
    with suppress(OSError):
        if is_ours(mark.stat()):
            return
    _try(path)
    with suppress(OSError):
        make_private(mark.parent)
        with replacing(mark):
            pass


def _try(path: Path) -> None:
    child = Child(f"{__name__}:opened", seconds=SECONDS, mib=0)
    try:
        child.ask(str(path))
    except ChildFailed as error:
        if error.reason == "time":
            reason = f"llama.cpp doesn't come to an end with it within {SECONDS:g} s"
        else:
            reason = f"llama.cpp ends the process ({_last_line(error.words)})"
        raise _refusal(path, reason) from error
    except ValueError as error:
        kind, _, reason = str(error).partition(": ")
        if kind == WrongValue.__name__:
            raise _refusal(path, reason) from None
        return  # said better where it is opened
    finally:
        child.close()


def _refusal(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} can't be loaded: {reason}. Its header is wrong: download it again, or convert it anew.")


def _last_line(words: str) -> str:
    return next((line.strip()[-300:] for line in reversed(words.splitlines()) if "ASSERT" in line or "what()" in line), "a crash")


def opened(path: str) -> None:
    """What opening a model does before its weights are read, and one token of a small one. Runs in the child.

    Raises ValueError for what llama.cpp only finds while it computes.
    """
    model = native.open_model_without_weights(Path(path), 0)
    _check_values(native.metadata(model), rotary=native.can_group(model))
    native.opening_tokens(model)
    native.try_vocabulary(model)
    window, sliding = native.trained_window(model), native.sliding_window(model)
    groups: list[GroupAttention | None] = [None]
    with suppress(Exception):
        groups.append(fixed(2, None, window, sliding))
    for group in groups:
        for kv_type in ("f16", "q4_0"):
            with suppress(ModelError, ModelUnsupported):
                native.memory_use(
                    model,
                    n_ctx=MICRO_BATCH,
                    n_batch=MICRO_BATCH,
                    n_ubatch=MICRO_BATCH,
                    kv_type=kv_type,
                    flash_attn=True,
                    group_attention=group,
                )
    native.free_model(model)
    if Path(path).stat().st_size <= SMALL:
        native.try_model(Path(path))


def _check_values(metadata: Mapping[str, str], *, rotary: bool) -> None:
    for key, value in metadata.items():
        if rotary and key.endswith(".rope.dimension_count") and int(value) == 0:
            raise WrongValue(f"{key} is 0")  # for ever
        if key.endswith("_epsilon") and not 0 <= float(value) < float("inf"):
            raise WrongValue(f"{key} is {value}")
    alignment = metadata.get("general.alignment", "32")
    if int(alignment) < 8:
        raise WrongValue(f"general.alignment is {alignment}")
