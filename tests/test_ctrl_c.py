"""Ctrl-C between the prompts: it stops what was asked for, and never the conversation."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from selfextend_cli.chat import repl
from selfextend_cli.terminal.interrupts import StopOnInterrupt, interruptible
from selfextend_cli.terminal.views import view

from selfextend_local.generation.thinking import Part


def ctrl_c(*_: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def converse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """converse(line, …, asked=f) types the lines where `f(text, ask)` asks, then Ctrl-D; returns the exit code."""

    def run(*lines: str | Callable[[], None], asked: Callable[..., None]) -> int:
        keys = iter(lines)

        def read() -> str | None:
            line = next(keys, None)
            return line() if callable(line) else line  # type: ignore[func-returns-value]

        monkeypatch.setattr(repl, "reader", lambda _: SimpleNamespace(read=read))
        monkeypatch.setattr(repl.Repl, "ask", lambda _, ask: asked(ask.args[0], ask))
        return repl.Repl(SimpleNamespace(stream=print), None, None).run()  # type: ignore[arg-type]

    return run


def test_one_that_comes_too_late_stops_nothing(converse: Callable[..., int]) -> None:
    heard: list[str] = []

    def asked(text: str, _: object) -> None:
        heard.append(text)
        ctrl_c()  # the answer stands there; it is about to be kept

    assert converse("one", "two", asked=asked) == 0
    assert heard == ["one", "two"]


def test_two_of_them_leave(converse: Callable[..., int]) -> None:
    def asked(*_: object) -> None:
        ctrl_c()
        ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        converse("one", asked=asked)


def test_at_the_prompt_the_second_leaves(converse: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert converse(ctrl_c, "one", ctrl_c, asked=ctrl_c) == 0
    assert capsys.readouterr().err.count("again to leave") == 2
    assert converse(ctrl_c, ctrl_c, "one", asked=ctrl_c) == 130


def test_work_that_was_stopped_before_it_began_does_not_begin() -> None:
    with StopOnInterrupt() as outer:
        ctrl_c()
        with StopOnInterrupt() as work:
            assert work()
        outer.requested = False
        with StopOnInterrupt() as work:
            assert not work()
            ctrl_c()
        assert not outer()


def test_where_a_key_may_end_it_it_does() -> None:
    with StopOnInterrupt() as stop:
        with pytest.raises(KeyboardInterrupt), interruptible():
            ctrl_c()
        ctrl_c()
        assert stop()


def test_an_answer_is_drawn_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with view(plain=True, thoughts=False) as shown:
        shown.write(Part("all of it", thought=False))
        ctrl_c()
    assert capsys.readouterr().out == "all of it\n"


@pytest.mark.slow
def test_a_program_that_heard_two_of_them_is_not_ended_later() -> None:
    """Whether the watching thread sees them before or after the handler ran."""
    code = """
import os, signal, time
from selfextend_cli.terminal import interrupts
SECONDS = interrupts._LastResort.SECONDS
SECONDS.update(dict.fromkeys(SECONDS, 0.5))
for _ in range(30):
    with interrupts.StopOnInterrupt() as outer:
        try:
            with interrupts.StopOnInterrupt():
                os.kill(os.getpid(), signal.SIGINT), os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            pass
        for _ in range(20):
            outer()
            time.sleep(0.001)
time.sleep(1)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done
