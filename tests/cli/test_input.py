"""The input line: history, several lines, pastes, completion, Ctrl-C and Ctrl-D, and pipes."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.terminal import CHAT, Terminal

pytestmark = [pytest.mark.process, pytest.mark.native]

UP, ESCAPE, CTRL_C, CTRL_D, CTRL_R = "\x1b[A", "\x1b", "\x03", "\x04", "\x12"
ANSWER = "The key is 48213 [page 2]."

Start = Callable[..., Any]


@pytest.fixture
def talk(terminal: Start) -> Any:
    started = terminal()
    started.wait_idle()
    return started


def asked(talk: Any) -> str:
    """What the chat holds of the last question."""
    talk.wait_idle()
    return str(talk.run("/undo")[0])


def test_history_survives_the_program_but_for_lines_with_a_space(terminal: Start, home: dict[str, str]) -> None:
    first = terminal()
    first.wait_idle()
    first.run("Open question 1")
    first.run(" Secret question 1")
    first.type(CTRL_D)
    assert first.end() == 0
    path = Path(home["SELFEXTEND_STATE_DIR"]) / "history"
    text = path.read_text(encoding="utf-8")
    assert "Open question 1" in text and "Secret" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = terminal()
    second.wait_idle()
    second.type(UP)
    second.wait("> Open question 1")
    second.type(CTRL_C + CTRL_R + "ques")
    second.wait("I-search backward: ques")
    second.type("\r\r")
    second.wait(ANSWER)


def test_a_history_that_cannot_be_written_is_no_error(terminal: Start) -> None:
    talk = terminal(env={"SELFEXTEND_STATE_DIR": "/proc/nowhere"})
    talk.wait_idle()
    assert talk.run("Which key? 1")[0] == ANSWER


@pytest.mark.parametrize("keys", ['"""\rone\rtwo 1\r"""\r', "one" + ESCAPE + "\rtwo 1\r"])
def test_several_lines(talk: Any, keys: str) -> None:
    talk.type(keys)
    talk.wait(ANSWER)
    assert asked(talk) == "Forgotten: one …"


def test_a_paste_is_not_sent_by_itself(talk: Any) -> None:
    talk.type("\x1b[200~pasted\n/exit\nlines 1\x1b[201~")
    talk.wait("lines 1")
    assert ANSWER not in talk.text
    talk.type("\r")
    talk.wait(ANSWER)
    assert asked(talk) == "Forgotten: pasted …"


def test_escape_sequences_in_a_paste_are_shown(talk: Any) -> None:
    talk.type("\x1b[200~a\x1b[31mb 1\x1b[201~")
    talk.wait("b 1")
    assert "\x1b[31mb" not in talk.raw


def test_commands_are_completed(talk: Any) -> None:
    talk.type("/con")
    talk.wait("what fills the context window")
    talk.type("\t")
    talk.wait("> /context")
    talk.type("\r")
    talk.wait("the window ends at")


def test_paths_are_completed_after_doc_add(terminal: Start, paged_document: Path) -> None:
    talk = terminal(columns=200)
    talk.wait_idle()
    talk.type(f"/doc add {paged_document.parent}/vau")
    talk.wait("vault.txt")
    talk.type("\t\r")
    talk.wait("1  vault: 3 pages")


def test_settings_and_their_values_are_completed(talk: Any) -> None:
    talk.type("/set thi")
    talk.wait("a reasoning model's thoughts")
    talk.type("\t h")
    talk.wait("hide")
    talk.type("\t\r")
    talk.wait("think          hide")


def test_the_first_ctrl_c_at_the_prompt_warns_and_the_second_leaves(talk: Any) -> None:
    talk.type(CTRL_C)
    talk.wait("Press Ctrl-C again to leave")
    talk.wait_idle()
    talk.run("/stats")
    talk.type(CTRL_C)
    talk.wait(lambda: talk.text.count("Press Ctrl-C again to leave") == 2)
    talk.wait_idle()
    talk.type(CTRL_C)
    assert talk.end() == 130


def test_ctrl_c_empties_a_line_that_was_begun(talk: Any) -> None:
    talk.type("half a question")
    talk.wait("> half a question")
    talk.type(CTRL_C)
    talk.wait_idle()
    assert "Press Ctrl-C" not in talk.text
    assert talk.run("Which key? 1")[0] == ANSWER


def test_a_pipe_gets_answers_on_stdout_and_nothing_else(once: Any) -> None:
    done = once(stdin='Which key? 1\n/nonsense\n"""\none\ntwo 1\n"""\n/undo\n/exit\nnever 1\n')
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The key is **48213** [page 2].\n" * 2
    assert "/nonsense is no command" in done.stderr
    assert "Forgotten: one …" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_terminals_that_want_plain_text_get_it(terminal: Start, env: dict[str, str]) -> None:
    talk = terminal(env=env)
    talk.wait_idle()
    assert talk.run("Which key? 1")[0] == "The key is **48213** [page 2]."
    if env.get("TERM") == "dumb":
        assert "\x1b" not in talk.raw


def test_plain_turns_markdown_off(terminal: Start) -> None:
    talk = terminal("--plain")
    talk.wait_idle()
    assert talk.run("Which key? 1")[0] == "The key is **48213** [page 2]."


def test_a_document_from_a_pipe_and_keys_from_the_terminal(scripted: Path, home: dict[str, str]) -> None:
    program = " ".join(shlex.quote(part) for part in CHAT)
    talk = Terminal(["sh", "-c", f"echo Text from a pipe. | {program} --model {scripted} --threads 1 --doc -"], home)
    talk.wait_idle()
    assert talk.run("Which key? 1")[0] == ANSWER
    assert "Text from a pipe" in "\n".join(talk.run("/find pipe"))
    talk.type(CTRL_D)
    assert talk.end() == 0
