"""The folder of saved states: a document that was read once is not read again.

Finds the entry that shares the longest start with a prompt, and keeps the folder within its size. Whatever is wrong
with an entry or the disk costs a sentence in `notes` and a prefill, never an answer from a wrong state and never an
exception. Several processes may use one folder: an entry appears whole by a rename and is never changed, so the worst
that one can do to another is to evict what it was about to read.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfextend_local.engine.cuts import common_prefix
from selfextend_local.errors import GroupAttentionError, ModelError, SessionError
from selfextend_local.storage.disk import free_bytes, replacing, sweep
from selfextend_local.storage.folders import is_ours, make_private, state_folder
from selfextend_local.storage.identity import model_identity

from .identity import Identity, identity_of
from .state_file import (
    Damaged,
    Entry,
    Foreign,
    StateInfo,
    Tokens,
    entry_id,
    read_entry,
    verify_state,
    write_entry,
)

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama

MAX_BYTES_VARIABLE = "SELFEXTEND_CACHE_MAX_BYTES"
MAX_BYTES = 20 << 30
MAX_SHARE_OF_DISK = 0.1
"""Without a given size, the folder takes at most MAX_BYTES, and at most this share of what the disk has left for it."""

RESTORE_GAIN = 256
"""A state is restored if it saves evaluating at least that many tokens; fewer are read faster than a file of some
hundred MiB."""

_NAME = re.compile(r"^[0-9a-f]{16}\.state$")
_MIB = 1 << 20


class StateCache:
    """States on disk, used by the process's chats and by other processes.

    Opening it tidies the folder: a kill between the steps of a save can leave a temporary file, or one entry too many.

    Args:
        root: the folder; None = `sessions` in the user's cache folder, or in $SELFEXTEND_CACHE_DIR.
        max_bytes: its size; None = $SELFEXTEND_CACHE_MAX_BYTES, or 20 GiB, or a tenth of the free disk if that is less.

    Attributes:
        notes: sentences for the user about what could not be saved or used; the caller shows and clears them.
    """

    def __init__(self, root: Path | None = None, max_bytes: int | None = None) -> None:
        self.root = state_folder() if root is None else Path(root)
        self._max_bytes = _given_size() if max_bytes is None else max_bytes
        self.notes: list[str] = []
        self.prune()

    @property
    def max_bytes(self) -> int:
        """The most bytes that the folder may take."""
        if self._max_bytes is not None:
            return self._max_bytes
        try:
            free = free_bytes(self.root)
        except OSError:
            return MAX_BYTES
        return min(MAX_BYTES, int(MAX_SHARE_OF_DISK * (free + self.total_bytes())))

    def total_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(status.st_size for _, status in self._files())

    def entries(self) -> list[Entry]:
        """All entries, the last used first. Damaged ones are removed, with a note; those of other versions are left out."""
        found = [entry for path, _ in self._files() if (entry := self._read(path))]
        return sorted(found, key=lambda e: e.used, reverse=True)

    def restore(self, llm: SelfExtendLlama, tokens: Sequence[int], *, expect: int | None = None) -> int:
        """Load the state with the longest start of `tokens`, if that is more than `llm` has in memory.

        expect: the length that the text is known to reach, as for `SelfExtendLlama.prefill`, which is to follow.
        Returns the tokens that need not be evaluated thanks to it; 0 if nothing was loaded.
        """
        wanted = np.asarray(tokens, dtype=np.int32)
        least = common_prefix(llm.cached_tokens(), wanted) + RESTORE_GAIN
        identity = self._identity(llm)
        if identity is None:
            return 0
        found = [(e.common_prefix(wanted), e) for e in self.entries() if e.identity.model == identity.model]
        # Of states with the same start the shortest: keys behind it would be turned back, which costs a rounding each.
        useful = sorted(((c, e) for c, e in found if c >= least), key=lambda pair: (-pair[0], pair[1].n_tokens))
        obstacles = [_obstacle(e, c, llm, identity, wanted, expect or 0) for c, e in useful]
        for (common, entry), obstacle in zip(useful, obstacles, strict=True):
            if obstacle is None and self._load(llm, entry):
                return common
        if obstacles and all(obstacles):
            self.notes.append(f"The saved state {useful[0][1].id} {obstacles[0]}: the text is read again.")
        return 0

    def save(self, llm: SelfExtendLlama, *, info: StateInfo = StateInfo()) -> bool:  # noqa: B008 (frozen)
        """Save what `llm` holds, unless the folder holds it already. Returns whether it is on disk.

        An entry that the new one continues is dropped once the new one is there.
        """
        identity = self._identity(llm)
        tokens = llm.cached_tokens()
        if identity is None or not len(tokens):
            return False
        ga = llm.group_attention
        path = self.root / f"{entry_id(identity, ga, tokens)}.state"
        alike = [e for e in self.entries() if e.identity == identity and e.group_attention == ga]
        for entry in alike:
            common = entry.common_prefix(tokens)
            if entry.path == path or (llm.can_roll_back and common == len(tokens)):
                _touch(entry.path)
                return True
        replaced = [e for e in alike if llm.can_roll_back and e.common_prefix(tokens) == e.n_tokens]
        try:
            make_private(self.root)
            if not self._make_room(llm.state_bytes() + _header_room(tokens), replaced):
                return False
            with replacing(path) as temporary:
                write_entry(temporary, llm, identity, info, time.time())
        except OSError as error:
            self.notes.append(f"The state could not be saved in {self.root} ({error}): the next start reads the text again.")
            return False
        for entry in replaced:
            _unlink(entry.path)
        # Another process may have written into the room that was made.
        self._evict(self.max_bytes, keep={path})
        return True

    def room_for(self, model_path: Path, tokens: Sequence[int]) -> int:
        """Tokens that a context must hold for the states of this model to be restored for `tokens`; 0 if there are none.

        A state goes into a context whole, also where only its beginning is wanted.
        """
        wanted = np.asarray(tokens, dtype=np.int32)
        with suppress(OSError):
            model = model_identity(model_path)
            sizes = [
                (common, e.n_tokens)
                for e in self.entries()
                if e.identity.model == model and (common := e.common_prefix(wanted)) >= RESTORE_GAIN
            ]
            return max(sizes, default=(0, 0), key=lambda pair: (pair[0], -pair[1]))[1]
        return 0

    def find(self, name: str) -> Entry:
        """The entry whose id begins with `name`. Raises SessionError if there is none, or more than one."""
        found = [e for e in self.entries() if e.id.startswith(name)]
        if len(found) != 1:
            many = f"{len(found)} saved states begin" if found else "No saved state begins"
            raise SessionError(f"{many} with {name!r}. See: selfextend sessions list")
        return found[0]

    def remove(self, name: str) -> Entry:
        """Remove the entry whose id begins with `name`, and return it. Raises SessionError."""
        entry = self.find(name)
        if not _unlink(entry.path):
            raise SessionError(f"{entry.path} can't be removed. Check who owns the folder.")
        return entry

    def prune(self, max_bytes: int | None = None) -> int:
        """Remove abandoned files, then the entries used longest ago until `max_bytes` hold the rest; returns the bytes freed."""
        sweep(self.root)
        before = self.total_bytes()
        self._evict(self.max_bytes if max_bytes is None else max_bytes, keep=set())
        return before - self.total_bytes()

    def _identity(self, llm: SelfExtendLlama) -> Identity | None:
        try:
            return identity_of(llm)
        except OSError as error:
            self.notes.append(f"Saved states are not used: the model file can't be read any more ({error}).")
            return None

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        found: list[tuple[Path, os.stat_result]] = []
        with suppress(OSError):
            for path in self.root.iterdir():
                if _NAME.match(path.name):
                    with suppress(OSError):
                        status = path.stat()
                        # A pipe would keep whoever opens it, and a state of somebody else could hold anything.
                        if stat.S_ISREG(status.st_mode) and is_ours(status):
                            found.append((path, status))
        return found

    def _read(self, path: Path) -> Entry | None:
        try:
            return read_entry(path)
        except Foreign:
            return None
        except OSError:
            return None  # evicted by another process, or not ours to read
        except (Damaged, ValueError, KeyError, TypeError, AttributeError, GroupAttentionError) as error:
            self._discard(path, str(error))
            return None

    def _discard(self, path: Path, reason: str) -> None:
        _unlink(path)
        self.notes.append(f"The saved state {path.stem} is damaged ({reason}): it was removed, and the text is read again.")

    def _load(self, llm: SelfExtendLlama, entry: Entry) -> bool:
        try:
            verify_state(entry)
            llm.load_state_file(entry.path, entry.header_bytes, entry.tokens, entry.group_attention, entry.stops)
        except Damaged as error:
            self._discard(entry.path, str(error))
            return False
        except (OSError, ModelError) as error:
            self.notes.append(f"The saved state {entry.id} can't be used ({error}): the text is read again.")
            return False
        _touch(entry.path)
        return True

    def _make_room(self, needed: int, replaced: Sequence[Entry]) -> bool:
        limit = self.max_bytes
        if needed > limit:
            self.notes.append(
                f"The state of {needed / _MIB:,.0f} MiB is not saved: sessions may take {limit / _MIB:,.0f} MiB. "
                f"Set {MAX_BYTES_VARIABLE} to more."
            )
            return False
        going = sum(e.file_bytes for e in replaced)
        self._evict(limit - needed + going, keep={e.path for e in replaced})
        return True

    def _evict(self, limit: int, keep: set[Path]) -> None:
        files = sorted(self._files(), key=lambda pair: pair[1].st_mtime)
        total = sum(status.st_size for _, status in files)
        for path, status in files:
            if total <= limit:
                return
            if path not in keep and _unlink(path):
                total -= status.st_size


def _obstacle(
    entry: Entry, common: int, llm: SelfExtendLlama, identity: Identity, wanted: Tokens, expect: int
) -> str | None:
    """Why the state can't serve this prompt, or None if it can."""
    if difference := entry.identity.difference(identity):
        return f"was made with {difference}"
    if entry.n_tokens > llm.plan.n_ctx:
        return f"holds {entry.n_tokens:,} tokens, and this context {llm.plan.n_ctx:,}"
    if not llm.can_roll_back and not common == entry.n_tokens < len(wanted):
        return "goes on differently, and this model can't go back"
    if not llm.takes_group_attention(entry.group_attention, max(len(wanted), expect)):
        return f"was read with n={entry.group_attention.n}, and this text is not"
    return None


def _header_room(tokens: Tokens) -> int:
    return tokens.nbytes + _MIB // 256  # the names in it take some hundred bytes


def _given_size() -> int | None:
    text = os.environ.get(MAX_BYTES_VARIABLE)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise SessionError(f"{MAX_BYTES_VARIABLE}={text} is no number of bytes. Take 5000000000 for 5 GB.") from error


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
