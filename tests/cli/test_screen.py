"""Answers on the screen: Markdown while it streams, narrow windows, resizing, wide characters, hostile text, thoughts."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selfextend_cli.terminal.markdown import finished
from selfextend_cli.terminal.progress import progress_line
from support.scripted_model import THINKING_TEMPLATE, make_scripted_model
from support.terminal import Terminal

pytestmark = [pytest.mark.process, pytest.mark.native]

Start = Callable[..., Any]
CODE = "echo  'a very long line of code that no window of forty columns holds'"
TALL = 600


def open_talk(terminal: Start, *arguments: str, **options: Any) -> Any:
    talk = terminal(*arguments, **options)
    talk.wait_idle()
    return talk


def test_markdown_is_drawn_and_code_is_verbatim(terminal: Start) -> None:
    talk = open_talk(terminal)
    assert talk.run("Show 3")[:-1] == ["List", "", " • one", " • two", "", CODE, "", "That's all."]
    assert talk.cursor_is_shown


def test_code_wraps_only_where_the_window_ends(terminal: Start) -> None:
    talk = open_talk(terminal, columns=40)
    lines = talk.run("Show 3")
    at = lines.index(CODE[:40].rstrip())
    assert lines[at].ljust(40) + lines[at + 1] == CODE


def test_forty_columns_and_wide_characters(terminal: Start) -> None:
    talk = open_talk(terminal, columns=40)
    lines = talk.run("表 6")
    # pyte puts an empty cell behind a wide character.
    text = [line.replace("\u2060", "") for line in lines]
    assert any(re.search("全角 +12", line) for line in text)
    assert "".join(text[text.index("") + 1 :]).startswith("日本語の長い文章がここで折り返されるかどうか")


@pytest.mark.parametrize(("before", "after"), [(80, 40), (40, 80)])
def test_a_resize_while_an_answer_comes_garbles_nothing(terminal: Start, before: int, after: int) -> None:
    talk = open_talk(terminal, "--max-tokens", "2500", columns=before, rows=TALL)
    talk.type("Tell me a story 7\r")
    talk.wait("tale20 ")
    resize_between_two_frames(talk, after)
    talk.type("\x03")
    talk.wait_idle()
    words = re.findall(r"tale(\d+)", talk.text)
    assert len(words) > 20 and words == [str(i % 100) for i in range(len(words))]
    assert max(map(len, talk.lines)) <= max(before, after)


def resize_between_two_frames(talk: Terminal, columns: int) -> None:
    """What is under way while a window changes its width was drawn for the other one; pyte doesn't reflow as terminals do."""
    for _ in range(2000):
        talk.child.kill(signal.SIGSTOP)
        quiet = 0
        while quiet < 6:  # a busy machine hands over late what was written before
            seen = len(talk.raw)
            talk.look()
            quiet = quiet + 1 if len(talk.raw) == seen else 0
        if talk.raw.endswith("\x1b[?2026l"):
            talk.resize(columns, TALL)
            talk.child.kill(signal.SIGCONT)
            return
        talk.child.kill(signal.SIGCONT)
        talk.look(0.01)
    pytest.fail("the answer was never found between two frames")


def test_an_answer_longer_than_the_window_is_whole_in_the_end(terminal: Start) -> None:
    talk = open_talk(terminal, columns=40, rows=12)
    talk.type("Tell me a story 5\r")
    talk.wait(lambda: "word249" in talk.text and talk.lines[-1] == ">")
    assert re.findall(r"word(\d+)", talk.text)[-10:] == [str(i) for i in range(240, 250)]
    # The last time it was drawn, all of it was: what scrolled away is there to be scrolled back to.
    final = talk.raw[talk.raw.rindex("word0 ") :]
    assert re.findall(r"word(\d+)", final) == [str(i) for i in range(250)]


def test_keys_pressed_meanwhile_wait_for_the_next_prompt(terminal: Start) -> None:
    talk = open_talk(terminal)
    talk.type("Tell me a story 5\r")
    talk.wait("word20 ")
    talk.type("Which key? 1\r")
    talk.wait("The key is 48213")
    assert talk.lines[0 :].count("> Which key? 1") == 1
    story = talk.text[: talk.text.index("> Which key? 1")]
    assert re.findall(r"word(\d+)", story) == [str(i) for i in range(250)]


@pytest.mark.parametrize("plain", [(), ("--plain",)])
def test_an_answer_cannot_drive_the_terminal(terminal: Start, plain: tuple[str, ...]) -> None:
    talk = open_talk(terminal, *plain)
    (answer, *_) = talk.run("Be evil 2")
    assert answer.replace("\u2060", "") == "Red is \\x1b[2J\\x1b]0;pwned\\x07[red]not[/red] <b>obeyed</b>."
    assert "\x1b[2J" not in talk.raw and "pwned\x07" not in talk.raw


def test_a_document_cannot_drive_the_terminal(terminal: Start, tmp_path: Path) -> None:
    evil = tmp_path / "evil.md"
    harmless = "Plain words to be read in peace. " * 300
    text = "# Title \x1b]0;pwned\x07[red]\n\nText \x1b[2J \x9b2J of a \u202e [bold]document[/bold].\n\n"
    evil.write_text(text + harmless, encoding="utf-8")
    talk = open_talk(terminal, "--doc", str(evil))
    talk.run("/doc list")
    talk.run("/context")
    talk.run("/find document")
    assert "\x1b[2J" not in talk.raw and "pwned\x07" not in talk.raw
    assert not {"\x9b", "\u202e"} & set(talk.raw)
    assert "[bold]document[/bold]" in talk.text


def test_thoughts_are_dim_or_hidden(terminal: Start) -> None:
    talk = open_talk(terminal)
    lines = talk.run("Think 4")
    assert lines[:3] == ["Let me see.", "", "Forty-two."]
    assert "\x1b[2mLet" in talk.raw
    talk.run("/set think hide")
    talk.run("/clear")
    assert talk.run("Think 4")[0] == "Forty-two."


def test_a_template_that_opens_the_thought(terminal: Start, tmp_path: Path) -> None:
    model = make_scripted_model(
        tmp_path / "t.gguf", {}, default=["Well", "...", "</think>", "\n", "Yes."], template=THINKING_TEMPLATE, trained_window=8192
    )
    talk = open_talk(terminal, "--model", str(model))
    assert talk.run("Sure?")[:3] == ["Well...", "", "Yes."]


def markdown_prefixes() -> Iterator[str]:
    text = "# A\n\npara *one*\ntwo\n\n- x\n- y\n\n  more\n\n1. a\n\n2. b\n\n```\ncode\n\n# no\n```\n\n| a |\n|---|\n| b |\n\nthe end"
    yield from (text[:i] for i in range(len(text) + 1))


def test_what_is_called_finished_never_changes() -> None:
    done: list[str] = []
    for prefix in markdown_prefixes():
        start = sum(map(len, done))
        if cut := finished(prefix[start:], 6):
            done.append(prefix[start : start + cut])
    assert "```\ncode\n\n# no\n```\n\n" in done
    assert "- x\n- y\n\n  more\n\n" in done
    assert "| a |\n|---|\n| b |\n\n" in done


@pytest.mark.parametrize("columns", [200, 80, 60, 46, 30, 12])
def test_progress_keeps_the_time_left(columns: int) -> None:
    line = progress_line("Reading the prompt", "tokens", 3_000, 172_000, 30.0, columns, left=1690.0)
    assert len(line) < columns
    assert "2%" in line
    if columns >= 46:
        assert line.startswith("Reading the prompt")
        assert line.endswith("28:10 left")
