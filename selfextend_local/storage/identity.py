"""Which model a file holds: what saved states, tuned settings and results are kept by.

Knows bytes. It knows no GGUF and loads nothing.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

HEAD_BYTES = 16 << 20
"""Read from the start of a model file: its metadata (chat template and vocabulary too) and tensor table. Five to ten
MiB in models with 262,000 tokens of vocabulary."""

SAMPLES, SAMPLE_BYTES = 256, 64 << 10
"""Read from the rest of it, evenly spread."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


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
