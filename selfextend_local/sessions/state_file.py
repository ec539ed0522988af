"""The file of a saved state: a session file of llama.cpp whose prompt tokens carry our header.

    offset 0    magic and version of llama.cpp, number of words that follow           3 x u32
    offset 12   our header: magic, checksums, sizes                                   FIXED
                token ids                                                             n_tokens x i32
                identity, group attention, names: JSON, padded to whole words         json_bytes
    then        keys, values and their positions, as llama.cpp writes them            state_bytes

All numbers are little-endian. llama.cpp streams the state between its buffers and the file, so that no second copy of
it is ever in memory. One checksum covers the header, so that a folder is listed without reading the states; the other
covers the rest, and is verified before llama.cpp gets to see the file, whose parser trusts what it reads.

Knows the format. Must not know which entry is wanted, nor where entries lie.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from selfextend_local.engine.cuts import as_runs, common_prefix, from_runs
from selfextend_local.positions import GroupAttention
from selfextend_local.storage.plain_json import loads

from .identity import Identity

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

MAGIC = b"SXSTATE"
FORMAT = 3
"""Raised when the layout of the file changes, or what the same (n, w, r) does, so that old states don't pass for new ones."""

_PREFIX = 12
_FIXED = struct.Struct("<7sBQQQII")  # magic, format, header checksum, state checksum, state_bytes, n_tokens, json_bytes
_CHUNK = 4 << 20
_LATEST = 1e11  # seconds since 1970: the year 5138

Tokens = npt.NDArray[np.int32]


class Damaged(Exception):
    """The file is not what was written; the message says how."""


class Foreign(Exception):
    """The file is of another program, or of another version of this one."""


@dataclass(frozen=True)
class StateInfo:
    """What a saved state is about, for people: the model's name and the titles of the documents."""

    model: str = ""
    documents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A saved state: the tokens that it holds, and what a context needs to be like to take it.

    Attributes:
        stops: where parts of it ended, see engine/cuts.py.
        file_bytes, used: size of its file, and when it was last written or restored, in seconds since 1970.
        created: when it was written, likewise.
    """

    path: Path
    identity: Identity
    group_attention: GroupAttention
    tokens: Tokens = field(repr=False, compare=False)
    info: StateInfo
    stops: tuple[int, ...]
    created: float
    file_bytes: int
    used: float
    state_checksum: int
    state_bytes: int
    header_bytes: int

    @property
    def id(self) -> str:
        """What the entry is called: the name of its file."""
        return self.path.stem

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def common_prefix(self, tokens: Tokens) -> int:
        """How many tokens at the start are the same."""
        return common_prefix(self.tokens, tokens)


def entry_id(identity: Identity, ga: GroupAttention, tokens: Tokens) -> str:
    """The name of the state of these tokens."""
    hash_ = xxhash.xxh3_64(f"{identity.digest} {ga.n} {ga.w} {ga.r} {ga.progressive} {ga.recall} ".encode())
    hash_.update(tokens.tobytes())
    return hash_.hexdigest()


def write_entry(path: Path, llm: SelfExtendLlama, identity: Identity, info: StateInfo, created: float) -> None:
    """Write the state that `llm` holds. Raises OSError if the file can't be written in full."""
    ga, tokens = llm.group_attention, llm.cached_tokens()
    meta = _json(identity, ga, info, llm.stops, created)
    state_bytes = llm.state_bytes()
    blank = _header(0, state_bytes, tokens, meta)
    llm.save_state_file(path, blank)
    with path.open("r+b") as file:
        expected = _PREFIX + len(blank) + state_bytes
        if os.fstat(file.fileno()).st_size != expected:
            raise OSError(f"{os.fstat(file.fileno()).st_size:,} bytes of {expected:,} were written")
        header = _header(_state_checksum(file, len(blank)), state_bytes, tokens, meta)
        file.seek(_PREFIX)
        file.write(header)


def read_entry(path: Path) -> Entry:
    """The header of a saved state; the state itself is not looked at. Raises Damaged, Foreign, OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(_PREFIX)
        fixed = file.read(_FIXED.size)
        if len(fixed) < _FIXED.size:
            raise Damaged("it is cut short")
        magic, version, checksum, state_checksum, state_bytes, n_tokens, json_bytes = _FIXED.unpack(fixed)
        if magic != MAGIC:
            raise Foreign("it is no saved state")
        if version != FORMAT:
            raise Foreign(f"it has format {version}, and this program reads format {FORMAT}")
        header_bytes = _FIXED.size + 4 * n_tokens + json_bytes
        if status.st_size != _PREFIX + header_bytes + state_bytes:
            raise Damaged(f"it has {status.st_size:,} bytes instead of {_PREFIX + header_bytes + state_bytes:,}")
        rest = file.read(4 * n_tokens + json_bytes)
    if _header_checksum(fixed, rest) != checksum:
        raise Damaged("the checksum of its header is wrong")
    meta = loads(rest[4 * n_tokens :])
    _check(meta, n_tokens)
    return Entry(
        path=path,
        identity=Identity(**meta["identity"]),
        group_attention=GroupAttention(*meta["group_attention"]),
        tokens=np.frombuffer(rest, dtype="<i4", count=n_tokens).astype(np.int32, copy=False),
        info=StateInfo(meta["model"], tuple(meta["documents"])),
        stops=tuple(from_runs(meta["stops"])),
        created=meta["created"],
        file_bytes=status.st_size,
        used=status.st_mtime,
        state_checksum=state_checksum,
        state_bytes=state_bytes,
        header_bytes=header_bytes,
    )


def _check(meta: Any, n_tokens: int) -> None:
    """Raises Damaged, KeyError, TypeError or AttributeError where a value isn't what `_json` writes."""
    identity = meta["identity"]
    texts = [meta["model"], *meta["documents"], *identity["settings"].keys(), *(identity[k] for k in ("model", "library", "byte_order"))]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in meta["group_attention"]):
        raise Damaged("a value in it is none that this program writes")
    if not isinstance(meta["created"], (int, float)) or not 0 <= meta["created"] < _LATEST:
        raise Damaged("the time in it is none")
    at = -1
    for first, last in meta["stops"]:
        # Only where a prefill that was stopped wanted to go lies behind the tokens.
        if not (isinstance(first, int) and isinstance(last, int) and at < first <= last and (last <= n_tokens or first == last)):
            raise Damaged("its stops lie outside of its tokens")
        at = last


def verify_state(entry: Entry) -> None:
    """Read the whole file of an entry. Raises Damaged if it is not what was written, OSError."""
    with entry.path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != entry.file_bytes:
            raise Damaged("its size has changed")
        if _state_checksum(file, entry.header_bytes) != entry.state_checksum:
            raise Damaged("its checksum is wrong")


def _json(identity: Identity, ga: GroupAttention, info: StateInfo, stops: Sequence[int], created: float) -> bytes:
    meta: Mapping[str, Any] = {
        "identity": {
            "model": identity.model,
            "library": identity.library,
            "settings": dict(identity.settings),
            "byte_order": identity.byte_order,
        },
        "group_attention": [ga.n, ga.w, ga.r, ga.progressive, ga.recall],
        "stops": as_runs(stops),
        "model": info.model,
        "documents": list(info.documents),
        "created": created,
    }
    text = json.dumps(meta, ensure_ascii=False).encode("utf-8", "replace")
    return text + b" " * (-len(text) % 4)


def _header(state_checksum: int, state_bytes: int, tokens: Tokens, meta: bytes) -> bytes:
    rest = tokens.astype("<i4", copy=False).tobytes() + meta
    sizes = (state_checksum, state_bytes, len(tokens), len(meta))
    checksum = _header_checksum(_FIXED.pack(MAGIC, FORMAT, 0, *sizes), rest)
    return _FIXED.pack(MAGIC, FORMAT, checksum, *sizes) + rest


def _header_checksum(fixed: bytes, rest: bytes) -> int:
    hash_ = xxhash.xxh3_64(fixed[:8] + fixed[16:])  # all but the checksum itself
    hash_.update(rest)
    return hash_.intdigest()


def _state_checksum(file: io.BufferedIOBase | io.RawIOBase, header_bytes: int) -> int:
    """Of everything but our header: what llama.cpp wrote in front of it, and the state."""
    file.seek(0)
    hash_ = xxhash.xxh3_64(file.read(_PREFIX))
    file.seek(_PREFIX + header_bytes)
    buffer = memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):
        hash_.update(buffer[:count])
    return hash_.intdigest()
