"""Saved states, with a stand-in for the model: found, replaced, evicted; whatever is wrong with a file is never used."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.fake_state import FakeState

from selfextend_local.errors import SessionError
from selfextend_local.positions import GroupAttention
from selfextend_local.sessions import StateCache, StateInfo
from selfextend_local.sessions.state_file import FORMAT
from selfextend_local.storage.disk import replacing
from selfextend_local.storage.identity import model_identity

TEXT = list(range(1000, 4000))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF and weights")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> StateCache:
    return StateCache(tmp_path / "states", max_bytes=1 << 30)


def fake(model: Path, tokens: list[int], **options: Any) -> Any:
    return cast(Any, FakeState(model, tokens, **options))


def files(cache: StateCache) -> list[Path]:
    return sorted(cache.root.iterdir())


def test_what_was_saved_is_restored(cache: StateCache, model: Path) -> None:
    assert cache.save(fake(model, TEXT), info=StateInfo("Fake", ("A title",)))
    llm = fake(model, [])
    assert cache.restore(llm, TEXT) == len(TEXT)
    assert llm.tokens == TEXT
    assert [(e.n_tokens, e.info.documents) for e in cache.entries()] == [(3000, ("A title",))]
    assert cache.notes == []


def test_the_longest_common_start_wins(cache: StateCache, model: Path) -> None:
    for tokens in (TEXT[:600], [*TEXT[:1000], 1, 2], [*TEXT[:800], *range(5000)]):
        cache.save(fake(model, tokens))
    llm = fake(model, [])
    assert cache.restore(llm, TEXT) == 1000
    assert llm.tokens == [*TEXT[:1000], 1, 2]


def test_of_equal_starts_the_shortest_state_wins(cache: StateCache, model: Path) -> None:
    """A longer one, such as a kill between two steps of a save leaves beside it, would have to be turned back."""
    for tail in (700, 50, 300, 2, 900, 120):
        cache.save(fake(model, [*TEXT[:1000], *[7 + tail] * tail]))
    llm = fake(model, [])
    assert cache.restore(llm, TEXT) == 1000
    assert llm.tokens == [*TEXT[:1000], 9, 9]


@pytest.mark.parametrize("held", [2900, 3000])
def test_what_is_in_memory_is_not_loaded(cache: StateCache, model: Path, held: int) -> None:
    cache.save(fake(model, TEXT))
    llm = fake(model, TEXT[:held])
    assert cache.restore(llm, TEXT) == 0
    assert len(llm.tokens) == held


def test_an_entry_that_the_new_one_continues_is_dropped(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT[:1000]))
    cache.save(fake(model, [*TEXT[:900], 7]))
    cache.save(fake(model, TEXT[:2000]))
    assert sorted(e.n_tokens for e in cache.entries()) == [901, 2000]


def test_what_is_saved_already_is_not_written_again(
    cache: StateCache, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save(fake(model, TEXT))
    monkeypatch.setattr(FakeState, "save_state_file", lambda *_: pytest.fail("written"))
    assert cache.save(fake(model, TEXT))
    assert cache.save(fake(model, TEXT[:1500]))


def test_models_that_cannot_go_back_keep_each_state_and_restore_only_whole_ones(cache: StateCache, model: Path) -> None:
    for count in (1000, 2000):
        assert cache.save(fake(model, TEXT[:count], can_roll_back=False))
    assert len(cache.entries()) == 2
    llm = fake(model, [], can_roll_back=False)
    assert cache.restore(llm, [*TEXT[:1500], 1]) == 1000
    assert llm.tokens == TEXT[:1000]
    assert cache.restore(fake(model, [], can_roll_back=False), TEXT[:2000]) == 1000  # the last token is evaluated anew


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"kv_type_k": "q8_0"}}, "was made with kv_type_k=f16 instead of q8_0"),
        ({"n_ctx": 2999}, "holds 3,000 tokens, and this context 2,999"),
        ({"group_attention": GroupAttention(1, 16, 8)}, "was read with n=4"),
    ],
)
def test_a_state_of_other_settings_is_not_used_and_the_user_is_told(
    cache: StateCache, model: Path, change: dict[str, Any], reason: str
) -> None:
    grouped = GroupAttention(4, 16, 8)
    cache.save(fake(model, TEXT, group_attention=grouped))
    llm = fake(model, [], **{"group_attention": grouped, **change})
    assert cache.restore(llm, TEXT) == 0
    assert llm.tokens == []
    assert len(cache.notes) == 1
    assert reason in cache.notes[0]
    assert cache.notes[0].endswith("the text is read again.")


def test_a_state_of_another_library_is_not_used(
    cache: StateCache, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfextend_local.engine.machine.library_version", lambda: "0.3.36+selfextend.1")
    cache.save(fake(model, TEXT))
    monkeypatch.setattr("selfextend_local.engine.machine.library_version", lambda: "0.3.37+selfextend.1")
    assert cache.restore(fake(model, []), TEXT) == 0
    assert "llama-cpp-python 0.3.36+selfextend.1, and this is 0.3.37+selfextend.1" in cache.notes[0]


def test_a_state_of_another_model_with_the_same_tokens_is_not_used(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    other = model.with_name("other.gguf")
    other.write_bytes(b"GGUF and Weights")
    assert cache.restore(fake(other, []), TEXT) == 0
    assert cache.notes == []
    copy = model.with_name("renamed.gguf")
    copy.write_bytes(model.read_bytes())
    assert cache.restore(fake(copy, []), TEXT) == len(TEXT)


def test_the_identity_of_a_large_model_reads_its_head_its_samples_and_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfextend_local.storage.identity.HEAD_BYTES", 1000)
    monkeypatch.setattr("selfextend_local.storage.identity.SAMPLE_BYTES", 10)
    data = bytearray(os.urandom(20_000))

    def identity(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return model_identity(path)

    seen = {identity("a", data), identity("longer", data + b"x")}
    for place in (0, 999, 1000, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        seen.add(identity(str(place), changed))
    assert len(seen) == 6
    assert identity("b", data) == identity("a", data)


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / f"m-0000{i}-of-00002.gguf").write_bytes(b"part")
    first = tmp_path / "m-00001-of-00002.gguf"
    before = model_identity(first)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"PART")
    os.utime(first)
    assert model_identity(first) != before


def _cut(at: int | float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(at if at >= 1 else at * len(data))]


def _flip(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = int(place * (len(data) - 1)) if place <= 1 else int(place)
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return flip


DAMAGE = {
    "empty": lambda data: b"",
    "cut in the header": _cut(30),
    "cut in the tokens": _cut(2000),
    "cut in the state": _cut(0.7),
    "last byte missing": lambda data: data[:-1],
    "a byte too many": lambda data: data + b"x",
    "zeros": lambda data: bytes(len(data)),
    "magic of llama.cpp": _flip(0),
    "number of words": _flip(9),
    "our magic": _flip(13),
    "format": _flip(19),
    "header checksum": _flip(22),
    "state checksum": _flip(30),
    "size of the state": _flip(38),
    "number of tokens": _flip(45),
    "size of the JSON": _flip(49),
    "a token": _flip(60),
    "JSON": _flip(12 + 40 + 4 * len(TEXT) + 9),
    "middle of the state": _flip(0.6),
    "last bit": _flip(1.0),
    "another program's file": lambda data: b"SQLite format 3\0" + data[16:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_never_used(cache: StateCache, model: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(fake(model, TEXT))
    (path,) = files(cache)
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    monkeypatch.setattr(FakeState, "load_state_file", lambda *_: pytest.fail("llama.cpp got to see the file"))
    assert cache.restore(fake(model, []), TEXT) == 0
    monkeypatch.undo()
    assert cache.save(fake(model, TEXT))
    llm = fake(model, [])
    cache.notes.clear()
    assert cache.restore(llm, TEXT) == len(TEXT)


def test_damage_is_named_and_removed_and_the_next_best_entry_serves(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, [*TEXT[:1000], 1]))
    cache.save(fake(model, TEXT))
    path = cache.root / f"{next(e for e in cache.entries() if e.n_tokens == 3000).id}.state"
    path.write_bytes(_flip(0.9)(path.read_bytes()))
    assert cache.restore(fake(model, []), TEXT) == 1000
    assert not path.exists()
    assert cache.notes == [
        f"The saved state {path.stem} is damaged (its checksum is wrong): it was removed, and the text is read again."
    ]


def test_a_state_that_the_library_refuses_costs_a_note(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    assert cache.restore(fake(model, [], refuses=True), TEXT) == 0
    assert "can't be used (refused)" in cache.notes[0]


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_states_of_another_format_are_left_alone(cache: StateCache, model: Path, version: int) -> None:
    cache.save(fake(model, TEXT))
    (path,) = files(cache)
    data = bytearray(path.read_bytes())
    data[12 + 7] = version
    path.write_bytes(data)
    assert cache.restore(fake(model, []), TEXT) == 0
    assert path.exists()
    assert cache.notes == []


def test_foreign_files_are_neither_read_nor_removed(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    foreign = [cache.root / "notes.txt", cache.root / "x.state", cache.root / "0123456789abcdef.state.bak"]
    for path in foreign:
        path.write_text("mine")
    cache.prune(0)
    assert files(cache) == sorted(foreign)


def test_eviction_takes_what_was_used_longest_ago(tmp_path: Path, model: Path) -> None:
    cache = StateCache(tmp_path / "states", max_bytes=3 * 215_000)
    texts = [[i, *TEXT] for i in range(4)]
    for i, text in enumerate(texts[:3]):
        cache.save(fake(model, text))
        newest = max(cache.entries(), key=lambda e: e.created)
        os.utime(newest.path, (1000 + i, 1000 + i))
    assert cache.restore(fake(model, []), texts[0])  # used: now the second is the oldest
    cache.save(fake(model, texts[3]))
    assert sorted(e.tokens[0] for e in cache.entries()) == [0, 2, 3]
    assert cache.total_bytes() <= cache.max_bytes


def test_a_state_larger_than_the_folder_may_be_is_not_saved(tmp_path: Path, model: Path) -> None:
    cache = StateCache(tmp_path / "states", max_bytes=100_000)
    cache.save(fake(model, TEXT[:500]))
    assert not cache.save(fake(model, TEXT))
    assert "is not saved" in cache.notes[0]
    assert [e.n_tokens for e in cache.entries()] == [500]


def test_the_size_can_be_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_CACHE_MAX_BYTES", "12345")
    monkeypatch.setenv("SELFEXTEND_CACHE_DIR", str(tmp_path))
    cache = StateCache()
    assert (cache.max_bytes, cache.root) == (12345, tmp_path / "sessions")
    monkeypatch.setenv("SELFEXTEND_CACHE_MAX_BYTES", "lots")
    with pytest.raises(SessionError, match="lots is no number of bytes"):
        StateCache()


def test_without_a_size_a_tenth_of_the_disk_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5000))
    assert StateCache(tmp_path / "not" / "there" / "yet").max_bytes == 500


@pytest.mark.parametrize("when", ["half way", "at the end"])
def test_a_full_disk_is_a_note_and_leaves_the_old_entry(
    cache: StateCache, model: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save(fake(model, TEXT[:1000]))

    def fail_half_way(self: FakeState, path: Path, header: bytes) -> None:
        path.write_bytes(header)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose_the_end(self: FakeState, path: Path, header: bytes) -> None:
        path.write_bytes(b"llama.cpp 12" + header + self.state()[:-3])

    monkeypatch.setattr(FakeState, "save_state_file", fail_half_way if when == "half way" else lose_the_end)
    assert not cache.save(fake(model, TEXT))
    assert [e.n_tokens for e in cache.entries()] == [1000]
    assert len(files(cache)) == 1
    assert "could not be saved" in cache.notes[0]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="POSIX")
def test_a_read_only_folder_is_a_note_and_is_still_read() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        os.chmod(name, 0o755)
        model = Path(name) / "model.gguf"
        model.write_bytes(b"GGUF")
        cache = StateCache(Path(name) / "states", max_bytes=1 << 30)
        assert cache.save(fake(model, TEXT[:1000]))
        cache.root.chmod(0o555)
        files(cache)[0].chmod(0o444)
        with not_root():
            assert cache.restore(fake(model, []), TEXT) == 1000
            assert not cache.save(fake(model, TEXT))
        assert "could not be saved" in cache.notes[0]
        assert [e.n_tokens for e in cache.entries()] == [1000]
        cache.root.chmod(0o755)


@contextmanager
def not_root() -> Iterator[None]:
    """Root may write anywhere."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_is_a_file_is_a_note(tmp_path: Path, model: Path) -> None:
    (tmp_path / "states").write_text("in the way")
    cache = StateCache(tmp_path / "states", max_bytes=1 << 30)
    assert not cache.save(fake(model, TEXT))
    assert cache.restore(fake(model, []), TEXT) == 0
    assert "could not be saved" in cache.notes[0]


def test_only_the_owner_reads_what_documents_said(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    assert stat.S_IMODE(cache.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(files(cache)[0].stat().st_mode) == 0o600


def test_temporary_files_of_dead_processes_are_swept_and_those_of_living_ones_kept(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (cache.root / f".0123456789abcdef.state.{dead.pid}-00000000.tmp").write_bytes(b"half")
    living = cache.root / f".0123456789abcdef.state.{os.getpid()}-00000000.tmp"
    living.write_bytes(b"half")
    StateCache(cache.root)
    assert len(files(cache)) == 2
    assert living.exists()
    os.utime(living, (0, 0))
    StateCache(cache.root)
    assert not living.exists()


def test_an_exception_while_replacing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_room_for_is_the_size_of_the_state_that_will_be_restored(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    assert cache.room_for(model, [*TEXT[:2000], 1, 2, 3]) == 3000
    assert cache.room_for(model, [1, 2, 3]) == 0
    assert cache.room_for(model.with_name("gone.gguf"), TEXT) == 0


def test_entries_go_by_the_beginning_of_their_id(cache: StateCache, model: Path) -> None:
    cache.save(fake(model, TEXT))
    (entry,) = cache.entries()
    assert cache.find(entry.id[:4]) == entry
    cache.remove(entry.id[:4])
    with pytest.raises(SessionError, match="No saved state begins with"):
        cache.find(entry.id)


def test_lists_tolerate_what_other_processes_remove(cache: StateCache, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save(fake(model, TEXT))
    (entry,) = cache.entries()
    listed = cache._files()
    monkeypatch.setattr(cache, "_files", lambda: listed)
    entry.path.unlink()
    assert cache.entries() == []
    monkeypatch.setattr(cache, "entries", lambda: [replace(entry)])
    assert cache.restore(fake(model, []), TEXT) == 0
    assert "can't be used" in cache.notes[0]
