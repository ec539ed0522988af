"""Ctrl-C: stops the prefill and the answer, keeps what there is, and never costs more than was asked for."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.bad_documents import hanging_pdf, label_loop_pdf

pytestmark = [pytest.mark.process, pytest.mark.native]

CTRL_C = "\x03"
ENDLESS = ("--max-tokens", "2500")
Start = Callable[..., Any]


@pytest.fixture(scope="session")
def long_document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "long.txt"
    path.write_text("A long text about nothing in particular, to be read slowly. " * 200, encoding="utf-8")
    return path


def test_a_stopped_prefill_goes_on_where_it_was(terminal: Start, long_document: Path) -> None:
    talk = terminal("--doc", str(long_document), "--no-cache", columns=160)
    talk.wait_idle()
    talk.type("Which key? 1\r")
    talk.wait(lambda: re.search(r"Reading the prompt .*left", talk.text))
    talk.type(CTRL_C)
    talk.wait("Stopped after")
    talk.wait_idle()
    stopped = int(re.search(r"Stopped after ([\d,]+) tokens; they are kept", talk.text)[1].replace(",", ""))
    assert stopped > 0
    assert "Reading the prompt" not in talk.text
    talk.run("/pages all")
    answer, took = talk.run("Which key? 1")[-2:]
    assert answer == "The key is 48213 [page 2]."
    kept = int(re.search(r"\(([\d,]+) kept\)", took)[1].replace(",", ""))
    assert kept >= stopped - 1


def test_a_stopped_reading_of_a_document_keeps_the_chat(terminal: Start, tmp_path: Path) -> None:
    talk = terminal(columns=160)
    talk.wait_idle()
    talk.run("Which key? 1")
    talk.type(f"/doc add {hanging_pdf(tmp_path / 'hang.pdf')}\r")
    talk.wait(lambda: any("reader_process" in " ".join(c.cmdline()) for c in psutil.Process(talk.child.pid).children()))
    talk.type(CTRL_C)
    talk.wait("Stopped while reading")
    talk.wait_idle()
    shown = "\n".join(talk.run(f"/doc add {label_loop_pdf(tmp_path / 'loop.pdf')}"))
    assert "error: " in shown and "made the reader crash" in shown.replace("\n", " ")
    assert talk.run("Which key? 1")[0] == "The key is 48213 [page 2]."


def test_a_stopped_answer_is_kept(terminal: Start) -> None:
    talk = terminal(*ENDLESS)
    talk.wait_idle()
    talk.type("Tell me a story 7\r")
    talk.wait("tale20 ")
    talk.type(CTRL_C)
    talk.wait("(stopped)")
    talk.wait_idle()
    assert talk.cursor_is_shown
    assert "1 question and answer" in "\n".join(talk.run("/context"))
    assert "tale20 tale21" in "\n".join(talk.lines)
    assert talk.run("Which key? 1")[0] == "The key is 48213 [page 2]."


def test_a_stopped_regen_keeps_the_answer_before(terminal: Start, long_document: Path) -> None:
    talk = terminal()
    talk.wait_idle()
    talk.run("Which key? 1")
    talk.run(f"/doc add {long_document}")
    talk.type("/regen\r")
    talk.wait(lambda: re.search(r"Reading the prompt .*left", talk.text))
    talk.type(CTRL_C)
    talk.wait("Stopped after")
    talk.wait_idle()
    assert "1 question and answer" in "\n".join(talk.run("/context"))


def test_what_was_said_before_a_hasty_leave_is_kept(terminal: Start) -> None:
    talk = terminal(*ENDLESS)
    talk.wait_idle()
    talk.type("Tell me a story 7\r")
    talk.wait("tale20 ")
    talk.type(CTRL_C)
    talk.wait("(stopped)")
    talk.wait_idle()
    talk.type(CTRL_C + CTRL_C)
    assert talk.end() == 130
    again = terminal("--continue")
    again.wait_idle()
    assert "tale20" in again.text
    assert "1 question and answer" in "\n".join(again.run("/context"))


@pytest.mark.parametrize("when", ["prefill", "answer"])
def test_one_shot_leaves_with_130(terminal: Start, long_document: Path, when: str) -> None:
    question = ("--doc", str(long_document), "-p", "Which key? 1") if when == "prefill" else ("-p", "Tell me a story 7")
    talk = terminal(*question, "--no-cache", *ENDLESS)
    talk.wait("Reading the prompt" if when == "prefill" else "tale20 ")
    talk.type(CTRL_C)
    assert talk.end() == 130
    assert talk.cursor_is_shown


def test_a_signal_at_the_prompt_is_a_ctrl_c(terminal: Start) -> None:
    talk = terminal()
    talk.wait_idle()
    talk.child.kill(signal.SIGINT)
    talk.wait("Press Ctrl-C again to leave")
    talk.wait_idle()
    talk.child.kill(signal.SIGINT)
    assert talk.end() == 130
