"""The pages that people read, against the program: each command, flag, chat command, variable, module and file that they name exists.

Each kind is found by a function of the page's text, and each page says how many it has to find at least: a pattern that stops
matching fails here instead of passing with nothing to check.
"""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from selfextend_cli.main import COMMANDS

from selfextend_local.documents.kinds import Kind

ROOT = Path(__file__).parents[1]
LONGEST_README = 900  # words, as wc counts them

# How many commands of ours, and how many files, each page names at least.
PAGES = {
    "README.md": (9, 12),
    "CONTRIBUTING.md": (0, 6),
    "SECURITY.md": (3, 1),
    "docs/index.md": (8, 4),
    "docs/how.md": (2, 8),
    "docs/settings.md": (5, 3),
    "docs/recipes.md": (15, 4),
    "docs/troubleshooting.md": (8, 5),
    "docs/api.md": (0, 1),
    "docs/documents.md": (1, 2),
    "docs/reliability.md": (0, 5),
    "docs/backends.md": (0, 4),
    "docs/results.md": (4, 2),
    "docs/architecture.md": (1, 1),
    "docs/chat.md": (15, 4),
    "docs/install.md": (3, 2),
    "docs/batch.md": (3, 2),
    "docs/server.md": (3, 2),
    "docs/benchmarks.md": (1, 6),
    "docs/measured.md": (2, 6),
    "docs/compare.md": (2, 1),
    "docs/integrations.md": (3, 10),
    "patches/README.md": (0, 12),
}

TO_BE_MADE = {"patches/0004-what-it-does.patch", "tests/native/test_it.py"}  # by the reader, in an example

_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"selfextend(-chat|-summarize)?( |$)")
_INNER = re.compile(r'.*\$\((.*?)\).*')  # eval "$(…)"
_FILE = re.compile(r"(?<![\w./:-])((?:docs|tests|patches|cli|selfextend_local)/[\w./-]*[\w-]\.\w+)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+(?![\w*-])")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code(words: str) -> list[str]:
    """What a page shows as code: the lines of its blocks without their comments, and what stands between backticks."""
    blocks = [line.partition("  #")[0].strip() for block in _BLOCK.findall(words) for line in block.splitlines()]
    return [piece for piece in [*blocks, *_CODE.findall(_BLOCK.sub("", words))] if piece]


def commands(words: str) -> list[str]:
    """Calls of our programs; `rm|prune` is two of them."""
    parts = (part for piece in code(words) for part in re.split(r" (?:[<>|;]|&&) ", _INNER.sub(r"\1", piece)))
    found = [part for part in parts if _COMMAND.match(part)]
    return [command for one in found for command in _each(one)]


def _each(command: str) -> list[str]:
    several = next((word for word in command.split() if "|" in word), None)
    return [command] if several is None else [command.replace(several, word) for word in several.split("|")]


def files(words: str, page: str) -> list[Path]:
    """Links to files, from the page; and files of ours in backticks, from the root."""
    links = [(ROOT / page).parent / target for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", words) if "://" not in target]
    return links + [ROOT / name for piece in code(words) for name in _FILE.findall(piece) if name not in TO_BE_MADE]


def flags_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}


def unknown(line: str) -> set[str]:
    """The words of a call that our programs don't know: a command, or flags."""
    program, *words = shlex.split(line)
    if program != "selfextend":
        words.insert(0, program.removeprefix("selfextend-"))
    if not words:
        return set()
    name = words.pop(0)
    if name not in COMMANDS:
        return {name}
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(import_module(module), attribute)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return {words[0]}
        command = command.commands[words.pop(0)]
    return {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"} - flags_of(command)


def all_flags() -> set[str]:
    found: set[str] = set()
    waiting = [getattr(import_module(m), a) for m, _, a in (home.partition(":") for home in COMMANDS.values())]
    while waiting:
        command = waiting.pop()
        found |= flags_of(command)
        waiting += command.commands.values() if isinstance(command, click.Group) else []
    return found


def test_the_readme_is_short() -> None:
    assert 300 < len(text("README.md").split()) <= LONGEST_README


def test_what_is_wrong_is_seen() -> None:
    page = (
        "```sh\nselfextend tune --nonsense 3 > x   # how\n```\n"
        "`selfextend sessions list|burn` or `selfextend-chat --doc a -p \"W?\"`, [a](docs/none.md) `cli/none.py`"
    )
    assert [unknown(one) for one in commands(page)] == [{"--nonsense"}, set(), {"burn"}, set()]
    assert [path.exists() for path in files(page, "README.md")] == [False, False]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_exist(page: str) -> None:
    found = commands(text(page))
    assert {line: wrong for line in found if (wrong := unknown(line))} == {}
    assert len(found) >= PAGES[page][0]


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    found = files(text(page), page)
    assert [path for path in found if not path.exists()] == []
    assert len(found) >= PAGES[page][1]


@pytest.mark.parametrize("page", ["README.md", "docs/chat.md", "SECURITY.md"])
def test_flags_in_the_text_exist(page: str) -> None:
    found = {flag for piece in code(text(page)) for flag in _FLAG.findall(piece)}
    assert len(found) >= 3
    assert found <= all_flags()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {name for page in PAGES for piece in code(text(page)) for name in re.findall(r"^make ([a-z-]+)", piece)}
    assert {"demo", "test", "quick", "lint"} <= named <= targets


def test_modules_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"python -m\s(selfextend_\w+(?:\.\w+)*)", text(page))}
    assert named
    assert [name for name in named if find_spec(name) is None] == []


def test_variables_exist() -> None:
    folders = [ROOT / name for name in ("selfextend_local", "cli", "patches", "tests")]
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")]
    named = {name for page in PAGES for name in re.findall(r"SELFEXTEND_[A-Z_]+", text(page))}
    by_flag = {name for name in named if name.startswith("SELFEXTEND_CHAT_")}
    assert {f"--{name.removeprefix('SELFEXTEND_CHAT_').lower().replace('_', '-')}" for name in by_flag} <= all_flags()
    assert len(named - by_flag) >= 8
    assert [name for name in named - by_flag if not any(f'"{name}' in source for source in sources)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/chat.md"])
def test_chat_commands_are_those_that_there_are(page: str) -> None:
    from selfextend_cli.chat import slash_chats, slash_documents  # noqa: F401  (they add theirs)
    from selfextend_cli.chat.slash import COMMANDS as chat_commands

    named = {name for piece in _CODE.findall(text(page)) for name in re.findall(r"(?:^|(?<= ))/[a-z]+(?![\w/])", piece)}
    assert named == set(chat_commands)


def test_the_tree_names_every_folder_of_the_package() -> None:
    tree = text("README.md").partition("## How it is built")[2]
    folders = {path.name for path in (ROOT / "selfextend_local").iterdir() if (path / "__init__.py").is_file()}
    named = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    assert named == folders


def test_every_kind_of_document_is_named() -> None:
    named = text("docs/chat.md").partition("## Documents")[2].partition("##")[0].lower()
    assert [kind.value for kind in Kind if kind.value.lower() not in named] == []
