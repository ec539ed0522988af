"""Chats on disk: saved, named, listed, exported; a damaged one is named and the others stay."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from selfextend_local.chat.conversation import Turn
from selfextend_local.errors import SessionError
from selfextend_local.sessions import (
    ChatMessage,
    ChatRecord,
    ChatStore,
    DocumentReference,
    export_json,
    export_markdown,
)
from selfextend_local.sessions import chats as chats_module

RECORD = ChatRecord(
    "/models/m.gguf",
    "abc",
    system="Be brief.",
    documents=(DocumentReference("/a.pdf", "00ff", "A report", 12),),
    messages=(ChatMessage("user", "Why?"), ChatMessage("assistant", "Because [page 3].\nSo.", (5, 6, 7))),
    settings={"ga_n": "auto", "temperature": 0.0},
)


@pytest.fixture
def store(tmp_path: Path) -> ChatStore:
    return ChatStore(tmp_path / "chats")


def test_a_chat_comes_back_as_it_was_saved(store: ChatStore) -> None:
    saved = store.save(RECORD, "report")
    assert store.load("report") == saved
    assert replace(saved, name="", updated="") == RECORD
    assert store.last() == saved


def test_a_chat_without_a_name_keeps_one_file_over_its_turns(store: ChatStore) -> None:
    first = store.save(RECORD)
    second = store.save(replace(RECORD, messages=RECORD.messages * 2))
    assert first.name == second.name
    assert [r.messages for r in store.list()] == [second.messages]


def test_a_new_chat_does_not_overwrite_the_last(store: ChatStore) -> None:
    store.save(replace(RECORD, created="2026-01-01T00:00:00+00:00"))
    newer = store.save(replace(RECORD, created="2026-01-01T00:00:01+00:00"))
    assert len(store.list()) == 2
    assert store.last() == newer


def test_a_name_of_another_chat_is_not_taken_over(store: ChatStore) -> None:
    saved = store.save(RECORD, "report")
    store.save(saved)
    other = replace(RECORD, created="2026-01-01T00:00:00+00:00")
    with pytest.raises(SessionError, match="Another chat is named 'report'"):
        store.save(other, "report")
    assert store.save(other, "report", overwrite=True).created == other.created


def test_the_oldest_chats_without_a_name_are_dropped(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats_module, "KEEP_UNNAMED", 2)
    store.save(RECORD, "named")
    names = []
    for i in range(4):
        names.append(store.save(replace(RECORD, created=f"2026-01-01T00:00:0{i}+00:00")).name)
        os.utime(store.root / f"{names[-1]}.json", (1000 + i, 1000 + i))
    assert {r.name for r in store.list()} == {"named", *names[2:]}


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "..", ".hidden", "", " x", "x ", "x.", "con", "NUL.txt", "a\0b", "a\nb", "x" * 64, "-rf", "/etc/x"]
)
def test_names_that_are_no_file_names_are_refused(store: ChatStore, name: str) -> None:
    with pytest.raises(SessionError, match="can't be the name of a chat"):
        store.load(name)
    with pytest.raises(SessionError):
        store.delete(name)
    if name:
        with pytest.raises(SessionError):
            store.save(RECORD, name)


@pytest.mark.parametrize("name", ["März 2026", "report.v2", "a@b", "日本", "x" * 63])
def test_names_people_use_are_taken(store: ChatStore, name: str) -> None:
    store.save(RECORD, name)
    assert store.load(name).name == name


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"schema": 1}', b'{"schema": 99}', b"\xff\xfe", b'{"schema":1,"messages":3,"documents":[]}'],
)
def test_a_damaged_chat_is_named_and_the_others_still_list(store: ChatStore, content: bytes) -> None:
    good = store.save(RECORD, "good")
    (store.root / "bad.json").write_bytes(content)
    with pytest.raises(SessionError, match=r"bad\.json is damaged .*selfextend sessions rm bad"):
        store.load("bad")
    assert store.list() == (good,)
    assert "bad.json" in store.notes[0]
    with pytest.raises(SessionError, match="Another chat"):
        store.save(RECORD, "bad")
    store.delete("bad")
    assert not store.has("bad")


def test_every_cut_of_a_file_is_noticed(store: ChatStore) -> None:
    store.save(RECORD, "report")
    path = store.root / "report.json"
    data = path.read_bytes()
    for length in range(0, len(data) - 2, 7):
        path.write_bytes(data[:length])
        with pytest.raises(SessionError, match="damaged"):
            store.load("report")


def test_a_missing_chat_names_those_there_are(store: ChatStore) -> None:
    with pytest.raises(SessionError, match="Saved chats: none yet"):
        store.load("x")
    store.save(RECORD, "report")
    with pytest.raises(SessionError, match="Saved chats: report"):
        store.load("x")
    assert ChatStore(store.root / "nowhere").last() is None


def test_a_full_disk_leaves_the_chat_before(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = store.save(RECORD, "report")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SessionError, match="No space left"):
        store.save(replace(saved, messages=()))
    assert store.load("report") == saved
    assert len(list(store.root.iterdir())) == 1


def test_undecodable_text_is_saved(store: ChatStore) -> None:
    record = store.save(replace(RECORD, messages=(ChatMessage("user", "a\udc80b"),)))
    assert store.load(record.name).messages[0].text == "a?b"


def test_turns_go_in_and_out() -> None:
    turns = (Turn("Why?", "So.", (1, 2)), Turn("And?", "Yes.", (3,)))
    assert RECORD.with_turns(turns).turns() == turns


def test_the_folder_is_beside_the_user_s_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_DATA_DIR", str(tmp_path))
    assert ChatStore().root == tmp_path / "chats"


def test_exports(store: ChatStore) -> None:
    record = store.save(RECORD, "report")
    assert export_markdown(record) == (
        f"# report\n\n- Model: /models/m.gguf\n- Date: {record.created}\n- Document: A report (/a.pdf, 12 pages)\n"
        "\n## System\n\nBe brief.\n\n## Question\n\nWhy?\n\n## Answer\n\nBecause [page 3].\nSo.\n"
    )
    data = json.loads(export_json(record))
    assert data["messages"][1] == {"role": "assistant", "text": "Because [page 3].\nSo."}
    assert data["documents"][0]["sha256"] == "00ff"
