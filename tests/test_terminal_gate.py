"""Nothing that anybody wrote reaches a terminal as it is: whoever prints it, and whoever draws around the gate."""

from __future__ import annotations

import ast
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from selfextend_cli import errors
from selfextend_cli.eval import tables
from selfextend_cli.terminal import clipboard, output, progress, views

from selfextend_local.errors import ModelError
from selfextend_local.generation.thinking import Part

ESCAPE = "\x1b]0;OWNED\x07\x9b31m\u202eb"
CLI = Path(errors.__file__).parent

# Where something is drawn around the gate, and a test here of what it draws.
DRAWERS = {
    "terminal/output.py": "say_dim, say_drawn",
    "terminal/progress.py": "a label",
    "terminal/views.py": "an answer, thoughts",
    "terminal/clipboard.py": "base64",
    "terminal/pictures.py": "base64, sixels, our questions",
}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes both streams a terminal's, as main() leaves them. Called in the test, since pytest sets the streams before it."""

    def begin() -> Terminal:
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        output.harmless_streams()
        return screen

    return begin


def raise_and_show() -> None:
    try:
        raise RuntimeError(f"bad {ESCAPE}")
    except RuntimeError:
        traceback.print_exc()


def log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("somebody's library")
    logger.addHandler(handler)
    logger.error("bad %s", ESCAPE)
    logger.removeHandler(handler)


def left(error: Exception) -> Callable[[], None]:
    @errors.boundary
    def command() -> None:
        raise error

    def run() -> None:
        with pytest.raises(SystemExit):
            command()

    return run


PRINTERS: dict[str, Callable[[], Any]] = {
    "print": lambda: print(f"bad {ESCAPE}"),
    "click.echo": lambda: click.echo(f"bad {ESCAPE}"),
    "click.echo on stderr": lambda: click.echo(f"bad {ESCAPE}", err=True),
    "click's usage error": lambda: click.UsageError(f"bad {ESCAPE}").show(),
    "click's errors of files": lambda: click.FileError(f"bad {ESCAPE}", ESCAPE).show(),
    "an error of ours": left(ModelError(f"bad {ESCAPE}")),
    "an error that nobody expected": left(RuntimeError(f"bad {ESCAPE}")),
    "a traceback": raise_and_show,
    "a warning": lambda: sys.stderr.write(warnings.formatwarning(f"bad {ESCAPE}", UserWarning, "x.py", 1)),
    "a library's log": log,
    "lines": lambda: sys.stdout.writelines([f"bad {ESCAPE}"]),
    "say": lambda: output.say(f"bad {ESCAPE}"),
    "say_dim": lambda: output.say_dim(f"bad {ESCAPE}"),
    "write_answer": lambda: output.write_answer(f"bad {ESCAPE}"),
    "progress": lambda: progress.Bar(f"bad {ESCAPE}", "tokens")(1, 5000),
    "tables": lambda: tables.print_tried(
        [dict(setting=f"bad {ESCAPE}", chosen=True, can_be_kept=True, asked=1, nats=1.0, ms_a_token=1.0, seconds_a_question=1.0, memory=1)]
    ),
}


@pytest.mark.parametrize("printer", PRINTERS)
def test_what_is_printed_shows_what_would_drive(at_terminal: Callable[[], Terminal], printer: str) -> None:
    terminal = at_terminal()
    PRINTERS[printer]()
    assert_harmless(terminal.getvalue())


@pytest.mark.parametrize("plain", [True, False])
def test_an_answer_is_drawn_and_drives_nothing(at_terminal: Callable[[], Terminal], plain: bool) -> None:
    terminal = at_terminal()
    with views.view(plain=plain, thoughts=True) as view:
        view.write(Part(f"bad {ESCAPE}", True))
        view.write(Part(f"# bad {ESCAPE}\n\n`bad {ESCAPE}`\n\n| a |\n|---|\n| {ESCAPE} |\n", False))
    assert_harmless(terminal.getvalue())


def test_the_clipboard_gets_base64(at_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_TTY", "x")
    terminal = at_terminal()
    clipboard.copy(f"bad {ESCAPE}")
    assert "OWNED" not in terminal.getvalue()


def assert_harmless(written: str) -> None:
    assert "bad" in written and "OWNED" in written
    assert "\x1b]" not in written and "\x07" not in written and "\x9b" not in written and "\u202e" not in written


def test_what_goes_to_a_file_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.harmless_streams()
    output.write_answer(ESCAPE)
    assert capsys.readouterr().out == ESCAPE


@pytest.mark.slow
def test_each_who_draws_around_the_gate_is_in_the_list() -> None:
    found = set()
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            # Who calls say_drawn makes the names in it visible: /context, the only one.
            assert name != "say_drawn" or path.name in ("output.py", "slash.py")
            if name in ("drawing", "Gate", "__stdout__", "__stderr__"):
                found.add(path.relative_to(CLI).as_posix())
            # The bytes below a stream, and the descriptor, pass no gate.
            assert not (isinstance(node, ast.Attribute) and node.attr == "buffer" and "std" in ast.unparse(node.value)), path
    assert found == set(DRAWERS)
