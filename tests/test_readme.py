"""The README against the program: each command, flag, chat command and file that it names exists."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest
from selfextend_cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "patches/README.md", "docs/benchmarks.md"]
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def command_lines() -> list[str]:
    lines = [line for page in PAGES for block in SHELL.findall(text(page)) for line in block.splitlines()]
    return [line for line in lines if line.startswith("selfextend")]


@pytest.mark.parametrize("line", command_lines())
def test_commands_and_flags_exist(line: str) -> None:
    program, *words = shlex.split(line.partition(" < ")[0], comments=True)
    if program != "selfextend":
        words.insert(0, program.removeprefix("selfextend-"))
    module, _, name = COMMANDS[words.pop(0)].partition(":")
    command = getattr(import_module(module), name)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-") and word != "-"} <= known


@pytest.mark.parametrize("page", ["README.md", "patches/README.md"])
def test_files_that_are_linked_exist(page: str) -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text(page)) if "://" not in t]
    assert targets
    assert [t for t in targets if not ((ROOT / page).parent / t).exists()] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", text(page), re.MULTILINE)}
    assert named
    assert named <= targets


def test_chat_commands_exist() -> None:
    from selfextend_cli.chat import slash_chats, slash_documents  # noqa: F401  (they add theirs)
    from selfextend_cli.chat.slash import COMMANDS as chat_commands

    named = set(re.findall(r"(?<=[` ])(/[a-z]+)(?=[` ])", text("README.md").partition("### Beside")[0]))
    assert named
    assert named <= {f"/{name.lstrip('/')}" for name in chat_commands}
