"""What a saved state belongs to: a model, a library and the settings that its bytes depend on.

The text is no part of it: documents, system prompt and chat template are all in the tokens, which are compared one by
one. Nor are the context's size, the threads and the devices, which change where a key lies and not what it is.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    from selfextend_local.model import SelfExtendLlama

HEAD_BYTES = 16 << 20
"""Read from the start of a model file: its metadata (chat template and vocabulary too) and tensor table. Five to ten
MiB in models with 262,000 tokens of vocabulary."""

SAMPLES, SAMPLE_BYTES = 256, 64 << 10
"""Read from the rest of it, evenly spread."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class Identity:
    """Two states can stand for each other only if all of this is equal.

    Attributes:
        model: `model_identity` of the file.
        library: version of llama-cpp-python, which carries the number of our patch set.
        settings: of the context, as `SelfExtendLlama.state_settings`.
        byte_order: of the machine; the bytes of a state are otherwise the same on all.
    """

    model: str
    library: str
    settings: Mapping[str, Any]
    byte_order: str = sys.byteorder

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(json.dumps(asdict(self), sort_keys=True).encode())

    def difference(self, now: Identity) -> str | None:
        """What this identity has that `now` has not, in words; None if they are equal."""
        if self.model != now.model:
            return "another model"
        if self.library != now.library:
            return f"llama-cpp-python {self.library}, and this is {now.library}"
        if self.byte_order != now.byte_order:
            return "a machine with another byte order"
        changed = [n for n in sorted({*self.settings, *now.settings}) if self.settings.get(n) != now.settings.get(n)]
        return ", ".join(f"{n}={self.settings.get(n)} instead of {now.settings.get(n)}" for n in changed) or None


def identity_of(llm: SelfExtendLlama) -> Identity:
    """The identity of the states of a loaded model. Raises OSError if its file has gone."""
    from selfextend_local import _native

    return Identity(model_identity(llm.info.path), _native.library_version(), llm.state_settings())


def model_identity(path: Path) -> str:
    """A hash that tells models apart, whatever the file is called and whenever it was written.

    It covers the size, the head (metadata, vocabulary, names, shapes and types of all tensors) and 256 samples of the
    weights. Fine-tuning and quantising change nearly every block of nearly every tensor, so two models that people
    make differ in all samples; reading all of a file of 40 GB would take longer than many a prefill. Of a model in
    several files all are covered. Raises OSError.
    """
    path = path.resolve()
    status = path.stat()
    return _model_identity(path, status.st_size, status.st_mtime_ns)


@cache
def _model_identity(path: Path, size: int, modified: int) -> str:
    hash_ = xxhash.xxh3_128()
    for part in _shards(path):
        _add_samples(part, hash_)
    return hash_.hexdigest()


def _shards(path: Path) -> list[Path]:
    match = _SHARD.search(path.name)
    if match is None:
        return [path]
    stem = path.name[: match.start()]
    return [path.with_name(f"{stem}-{i:05d}-of-{match[1]}.gguf") for i in range(1, int(match[1]) + 1)]


def _add_samples(path: Path, hash_: Any) -> None:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        hash_.update(size.to_bytes(8, "little"))
        hash_.update(file.read(HEAD_BYTES))
        rest = size - HEAD_BYTES
        if rest <= SAMPLES * SAMPLE_BYTES:
            hash_.update(file.read())
            return
        for i in range(SAMPLES):
            file.seek(HEAD_BYTES + i * (rest - SAMPLE_BYTES) // (SAMPLES - 1))
            hash_.update(file.read(SAMPLE_BYTES))
