"""`selfextend sessions`: lists, shows and removes what is on disk; answers on stdout, all else on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from selfextend_cli.main import group
from support.fake_state import FakeState

from selfextend_local.sessions import ChatMessage, ChatRecord, ChatStore, DocumentReference, StateCache, StateInfo

TEXT = list(range(1000, 3000))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFEXTEND_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def filled(tmp_path: Path) -> tuple[ChatRecord, str]:
    """A chat named "report" and a state, whose id is returned."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    llm: Any = FakeState(tmp_path / "m.gguf", TEXT)
    assert StateCache().save(llm, info=StateInfo("Fake 1B", ("A \x1b[31mred\x1b[0m title",)))
    document = DocumentReference("/a.pdf", "00", "A report", 3)
    messages = (ChatMessage("user", "Why?"), ChatMessage("assistant", "So.", (1,)))
    record = ChatStore().save(ChatRecord("/m.gguf", "id", documents=(document,), messages=messages), "report")
    return record, StateCache().entries()[0].id


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["sessions", *arguments])


def test_empty_folders() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "0 chats in" in result.stdout
    assert json.loads(run("list", "--json").stdout)["states"] == []


def test_the_list_shows_both_and_no_title_drives_the_terminal(filled: tuple[ChatRecord, str]) -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "report" in result.stdout
    assert "A report" in result.stdout
    assert re.search(rf"{filled[1][:8]}  just now  \d+ KiB  2,000   A \\x1b\[31mred\\x1b\[0m title\n", result.stdout)
    assert "\x1b" not in result.stdout


def test_the_list_as_json(filled: tuple[ChatRecord, str]) -> None:
    data = json.loads(run("list", "--json").stdout)
    assert data["chats"][0]["name"] == "report"
    assert data["chats"][0]["questions"] == 1
    assert data["states"][0]["id"] == filled[1]
    assert data["states"][0]["tokens"] == 2000
    assert data["state_bytes"] == data["states"][0]["bytes"] > 2000 * 64


def test_info(filled: tuple[ChatRecord, str]) -> None:
    assert "A report" in run("info", "report").stdout
    assert json.loads(run("info", filled[1][:5], "--json").stdout)["model"] == "Fake 1B"
    missing = run("info", "nothing")
    assert missing.exit_code == 1
    assert missing.stdout == ""
    assert "No saved state begins with 'nothing'. See: selfextend sessions list" in missing.stderr


def test_rm_takes_names_and_ids(filled: tuple[ChatRecord, str]) -> None:
    assert run("rm", "report", filled[1][:6]).exit_code == 0
    data = json.loads(run("list", "--json").stdout)
    assert (data["chats"], data["states"]) == ([], [])
    assert run("rm", "report").exit_code == 1
    assert run("rm").exit_code == 2


def test_a_damaged_chat_is_warned_about_and_can_be_removed(filled: tuple[ChatRecord, str]) -> None:
    (ChatStore().root / "bad.json").write_text("{")
    result = run("list")
    assert result.exit_code == 0
    assert "report" in result.stdout
    assert "bad.json is damaged" in result.stderr
    assert run("rm", "bad").exit_code == 0
    assert run("list").stderr == ""


def test_prune(filled: tuple[ChatRecord, str]) -> None:
    assert "Freed 0 B" in run("prune", "--max-size", "1M").stderr
    assert re.match(r"Freed \d+ KiB; 0 B are kept in .*sessions\.\n$", run("prune", "--all").stderr)
    assert run("prune", "--max-size", "2Q").exit_code == 2
    assert ChatStore().has("report")


def test_prune_to_a_size_keeps_what_was_used_last(filled: tuple[ChatRecord, str], tmp_path: Path) -> None:
    llm: Any = FakeState(tmp_path / "m.gguf", [1, *TEXT])
    cache = StateCache()
    assert cache.save(llm)
    newest = max(cache.entries(), key=lambda e: e.created)
    run("prune", "--max-size", "150K")
    assert [e.id for e in StateCache().entries()] == [newest.id]
    assert newest.n_tokens == 2001


@pytest.mark.parametrize("command", [[], ["list"], ["info"], ["rm"], ["prune"]])
def test_help_has_examples(command: list[str]) -> None:
    assert "Examples:" in run(*command, "--help").stdout
