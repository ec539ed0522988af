"""Every command of the conversation, as a person sees it on the screen. The model says what the test wrote down."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selfextend_cli.chat import slash_chats, slash_documents
from selfextend_cli.chat.settings import SETTINGS
from selfextend_cli.chat.slash import COMMANDS

pytestmark = [pytest.mark.process, pytest.mark.native]

Start = Callable[..., Any]


@pytest.fixture
def talk(terminal: Start) -> Any:
    started = terminal()
    started.wait_idle()
    return started


@pytest.fixture
def about_the_vault(terminal: Start, paged_document: Path) -> Any:
    started = terminal("--doc", str(paged_document))
    started.wait_idle()
    return started


def test_every_command_answers_and_the_conversation_goes_on(about_the_vault: Any) -> None:
    """Typed without anything behind it. What each does with more has tests below."""
    assert slash_documents and slash_chats
    for name in sorted(set(COMMANDS) - {"/exit"}):
        about_the_vault.run("Which key? 1")
        said = "\n".join(about_the_vault.run(name))
        assert said, name
        assert "This is a bug" not in said, name


def test_an_answer_and_what_it_took(talk: Any) -> None:
    answer, took = talk.run("Which key? 1")
    assert answer == "The key is 48213 [page 2]."
    assert "prompt tokens" in took and "n=1" in took


def test_help_lists_every_command(talk: Any) -> None:
    lines = talk.run("/help")
    for command in COMMANDS.values():
        assert any(line.startswith(command.usage) and line.endswith(command.summary) for line in lines)
    assert max(map(len, lines)) < 80


@pytest.mark.parametrize("way", ["/exit", "/quit", "\x04"])
def test_ways_to_leave(talk: Any, way: str) -> None:
    talk.type(way if way == "\x04" else way + "\r")
    assert talk.end() == 0


def test_an_unknown_command_names_the_nearest_and_ends_nothing(talk: Any) -> None:
    assert talk.run("/contxt") == ["error: /contxt is no command; did you mean /context? /help lists them."]
    assert talk.run("/xyzzy") == ["error: /xyzzy is no command. /help lists them."]
    assert talk.run("Which key? 1")[0] == "The key is 48213 [page 2]."


def test_undo_and_clear(talk: Any) -> None:
    assert talk.run("/undo") == ["error: Nothing has been asked yet: type a question first."]
    talk.run("First 1")
    talk.run("Second 1")
    assert talk.run("/undo") == ["Forgotten: Second 1"]
    assert "1 question and answer" in "\n".join(talk.run("/context"))
    assert talk.run("/clear") == ["The conversation is forgotten."]
    assert talk.run("/undo")[0].startswith("error: Nothing has been asked")


def test_regen_asks_again_and_reads_nothing_again(about_the_vault: Any) -> None:
    talk = about_the_vault
    assert talk.run("/regen") == ["error: Nothing has been asked yet: type a question first."]
    talk.run("Which key? 1")
    note, answer, _, took = talk.run("/regen")
    assert note == "(at temp 0.7, since temp 0 would give the same answer)"
    assert answer == "The key is 48213 [page 2]."
    prompt, kept = (int(word.strip("(").replace(",", "")) for word in (took.split()[0], took.split()[3]))
    assert kept == prompt - 1
    assert "1 question and answer" in "\n".join(talk.run("/context"))


def test_edit_takes_a_text_or_opens_the_editor(terminal: Start, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/First 1/Third 3/" "$1"\n', encoding="utf-8")
    editor.chmod(0o755)
    talk = terminal(env={"EDITOR": str(editor), "VISUAL": ""})
    talk.wait_idle()
    assert talk.run("/edit") == ["error: Nothing has been asked yet: type a question first."]
    talk.run("First 1")
    lines = talk.run("/edit")
    assert lines[0] == "> Third 3"
    assert "List" in lines and "That's all." in lines
    assert talk.run("/edit")[0] == "Nothing was changed."
    assert talk.run("/edit Which key? 1")[0] == "The key is 48213 [page 2]."
    assert "1 question and answer" in "\n".join(talk.run("/context"))


def test_an_editor_that_fails_is_a_sentence(talk: Any) -> None:
    talk.run("First 1")
    assert talk.run("/edit")[0].startswith("error: The editor failed")


def test_system_is_shown_changed_and_brought_back(about_the_vault: Any) -> None:
    talk = about_the_vault
    ours = talk.run("/system")
    assert ours[0].startswith("system: Answer the question from the document. Cite the page")
    assert talk.run("/system Be brief.") == ["system: Be brief."]
    talk.run("Which key? 1")
    assert talk.run("/system default")[0:2] == [ours[0], "It stands first, so everything is read again with the next question."]


def test_set_shows_changes_and_refuses(talk: Any) -> None:
    shown = talk.run("/set")
    assert [line.split()[0] for line in shown] == list(SETTINGS)
    assert talk.run("/set max-tokens 2")[0].split()[:2] == ["max-tokens", "2"]
    assert talk.run("Which key? 1")[:2] == ["The key", "(cut: --max-tokens is reached)"]
    assert talk.run("/set temp nine")[0].startswith("error: temperature stays 0.0: 'nine' is not a valid")
    assert talk.run("/set max_tokens=0")[0].startswith("error: max-tokens stays 2: 0 is not in the range")
    assert talk.run("/set colour blue")[0].startswith("error: There is no setting colour. There are: temperature,")
    assert talk.run("/set plain on")[0].split()[:2] == ["plain", "on"]
    talk.run("/set max-tokens 100")
    assert talk.run("Which key? 1")[0] == "The key is **48213** [page 2]."


def test_stats(talk: Any) -> None:
    assert talk.run("/stats") == ["Nothing has been asked yet."]
    talk.run("Which key? 1")
    assert "6 tokens in the answer" in talk.run("/stats")[1]


def test_context_draws_what_fills_the_window(about_the_vault: Any) -> None:
    talk = about_the_vault
    before = talk.run("/context")
    assert "Nothing is read yet: it is read with the next question." in before
    talk.run("Which key? 1")
    plan, bar, line, exact, system, document, turns, free, growth, end = talk.run("/context")
    assert plan.startswith("trained 8,192")
    assert set(bar) == {"█", "░"} and set(line) == {"━"}
    assert re.fullmatch("━ +[0-9,]+  exact", exact)
    assert system.endswith("system prompt") and document.endswith("vault, 3 pages") and turns.endswith("1 question and answer")
    tokens = [int(part.split()[1].replace(",", "")) for part in (system, document, turns, free)]
    assert sum(tokens) == int(free.split()[-1].replace(",", ""))
    assert growth.startswith(("n grows", "n stays 1"))
    assert end.startswith("the window ends at")


def test_documents_are_added_listed_and_taken_away(talk: Any, paged_document: Path, tmp_path: Path) -> None:
    assert talk.run("/doc") == ["No document is open: /doc add FILE reads one."]
    assert talk.run(f"/doc add {paged_document}")[-1].startswith("1  vault: 3 pages, ")
    spaced = tmp_path / "a b.txt"
    spaced.write_text("Other text.", encoding="utf-8")
    assert talk.run(f"/doc add '{spaced}'")[-1].startswith("2  a b: 1 page, ")
    assert [line.split(":")[0] for line in talk.run("/doc list")] == ["1  vault", "2  a b"]
    assert talk.run("/doc rm nothing") == ["error: No document is called 'nothing': take a number of /doc list."]
    assert talk.run("/doc rm vault") == ["Taken away: vault. What stood before it stays read."]
    assert [line.split(":")[0] for line in talk.run("/doc list")] == ["1  a b"]
    assert talk.run("/doc frob")[0].startswith("error: Type /doc add FILE")
    assert "does not exist" in talk.run("/doc add /no/such.pdf")[0]
    assert "web address" in talk.run("/doc add https://example.org/a.pdf")[0]


def test_a_document_that_needs_more_room_gets_it(talk: Any, tmp_path: Path) -> None:
    talk.run("Which key? 1")
    long = tmp_path / "long.txt"
    long.write_text("A long text about nothing in particular. " * 150, encoding="utf-8")
    lines = talk.run(f"/doc add {long}")
    assert any("up to" in line for line in lines)
    assert "1 question and answer" in "\n".join(talk.run("/context"))


def test_pages_are_chosen_and_given_back(about_the_vault: Any) -> None:
    talk = about_the_vault
    assert talk.run("/pages 2-3")[0].startswith("1  vault: pages 2-3 of 3 pages, ")
    assert "has no page '9'" in talk.run("/pages 9")[0]
    assert talk.run("/pages")[0].startswith("1  vault: pages 2-3 of 3 pages, ")
    assert talk.run("/pages all")[0].startswith("1  vault: 3 pages, ")


def test_pages_of_several_documents_need_a_number(about_the_vault: Any, short_document: Path) -> None:
    about_the_vault.run(f"/doc add {short_document}")
    assert "2 documents are open: say which, as in /pages 2: 3" in about_the_vault.run("/pages 3")[0]
    assert about_the_vault.run("/pages 1: 2")[0].startswith("1  vault: pages 2 of 3 pages")


def test_find_shows_passages(about_the_vault: Any) -> None:
    talk = about_the_vault
    assert talk.run("/find warden") == ["[page 2]", "  The key is 48213, says the warden."]
    assert talk.run("/find zebra") == ["Nothing found for zebra."]
    assert talk.run("/find")[0].startswith("error: Type what to look for")


def test_citations_are_checked_and_shown(about_the_vault: Any) -> None:
    talk = about_the_vault
    assert talk.run("/cite") == ["error: There is no answer yet."]
    assert "[page 2] verified" in talk.run("Which key? 1")
    assert talk.run("/cite") == ["[page 2] verified", "[page 2]", "  The key is 48213, says the warden."]
    talk.run("/set cite off")
    assert "[page 2] verified" not in talk.run("Which key? 1")


def test_chats_are_saved_listed_and_loaded(about_the_vault: Any) -> None:
    talk = about_the_vault
    assert talk.run("/sessions") == ["No chat is kept yet."]
    talk.run("Which key? 1")
    assert talk.run("/save vault chat") == ["Saved as vault chat; /load vault chat brings it back."]
    assert "'a/b' can't be the name of a chat" in talk.run("/save a/b")[0]
    assert talk.run("/save")[0].startswith("error: Type a name")
    talk.run("/clear")
    talk.run("Other 3")
    listed = talk.run("/sessions")
    assert any(line.startswith("vault chat") and line.endswith("1 question  vault") for line in listed)
    assert len(listed) == 2
    lines = talk.run("/load vault chat")
    assert lines[-3:] == ["vault chat: 1 question.", "> Which key? 1", "The key is **48213** [page 2]."]
    assert "1 question and answer" in "\n".join(talk.run("/context"))
    assert "There is no chat named 'nowhere'" in talk.run("/load nowhere")[0]


def test_export_writes_markdown_and_json(about_the_vault: Any, tmp_path: Path) -> None:
    talk = about_the_vault
    talk.run("Which key? 1")
    assert talk.run(f"/export {tmp_path}/chat.md") == [f"Written to {tmp_path}/chat.md."]
    assert "The key is **48213** [page 2]." in (tmp_path / "chat.md").read_text(encoding="utf-8")
    talk.run(f"/export {tmp_path}/chat.json")
    record = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert [m["text"] for m in record["messages"]] == ["Which key? 1", "The key is **48213** [page 2]."]
    assert "is there already" in talk.run(f"/export {tmp_path}/chat.md")[0]
    assert "the ending says which form" in talk.run("/export chat.pdf")[0]
    assert "can't be written" in talk.run("/export /no/such/folder/chat.md")[0]


def test_copy_goes_through_the_terminal_where_there_is_no_desktop(terminal: Start) -> None:
    talk = terminal(env={"SSH_CONNECTION": "x"})
    talk.wait_idle()
    assert talk.run("/copy") == ["error: There is no answer to copy yet."]
    talk.run("Which key? 1")
    assert talk.run("/copy")[0].startswith("Sent to the terminal's clipboard (30 characters).")
    sent = talk.raw.split("\x1b]52;c;")[1].split("\x07")[0]
    assert base64.b64decode(sent).decode() == "The key is **48213** [page 2]."


def test_copy_says_when_it_cannot(once: Any) -> None:
    assert "error: There is no clipboard here" in once(stdin="Which key? 1\n/copy\n", env={"PATH": ""}).stderr
