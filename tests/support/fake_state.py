"""A stand-in for a loaded model as sessions see it: its state is a function of its tokens, and it writes real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from selfextend_local.errors import ModelError
from selfextend_local.positions import GroupAttention
from selfextend_local.sessions import state_file

PREFIX = b"llama.cpp 12"


def with_header(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """A saved state with other values in its header, and the checksum that they need."""
    fixed, start = state_file._FIXED, state_file._PREFIX
    magic, version, _, *sizes, n_tokens, length = fixed.unpack_from(data, start)
    at = start + fixed.size + 4 * n_tokens
    meta = json.dumps(change(json.loads(data[at : at + length]))).encode()
    rest = data[start + fixed.size : at] + meta
    blank = fixed.pack(magic, version, 0, *sizes, n_tokens, len(meta))
    head = fixed.pack(magic, version, state_file._header_checksum(blank, rest), *sizes, n_tokens, len(meta))
    return data[:start] + head + rest + data[at + length :]


@dataclass
class FakeState:
    """`bytes_per_token` sets the size of what it saves."""

    model: Path
    tokens: list[int] = field(default_factory=list)
    group_attention: GroupAttention = GroupAttention(1, 16, 8)
    settings: dict[str, Any] = field(default_factory=lambda: {"kv_type_k": "f16"})
    can_roll_back: bool = True
    n_ctx: int = 100_000
    bytes_per_token: int = 64
    refuses: bool = False
    stops: list[int] = field(default_factory=list)

    @property
    def info(self) -> Any:
        return SimpleNamespace(path=self.model, name="Fake")

    @property
    def plan(self) -> Any:
        return SimpleNamespace(n_ctx=self.n_ctx)

    def cached_tokens(self) -> np.ndarray:
        return np.array(self.tokens, dtype=np.int32)

    def state_settings(self) -> dict[str, Any]:
        return dict(self.settings)

    def takes_group_attention(self, ga: GroupAttention, n_tokens: int) -> bool:
        return ga.n <= self.group_attention.n

    def state(self) -> bytes:
        return np.repeat(self.cached_tokens(), self.bytes_per_token // 4).tobytes()

    def state_bytes(self) -> int:
        return len(self.state())

    def save_state_file(self, path: Path, header: bytes) -> None:
        path.write_bytes(PREFIX + header + self.state())

    def load_state_file(
        self, path: Path, header_bytes: int, tokens: np.ndarray, group_attention: GroupAttention, stops: Sequence[int] = ()
    ) -> None:
        self.tokens, self.stops = [], list(stops)
        if self.refuses:
            raise ModelError("refused")
        found = path.read_bytes()[len(PREFIX) + header_bytes :]
        self.tokens = [int(t) for t in tokens]
        assert found == self.state()
