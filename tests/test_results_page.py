"""docs/results.md: made again byte for byte from its rows, and each of its tables with the command that asks it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from selfextend_cli.eval.command import command

from selfextend_local.evaluation.again import commands_of, flags_of
from selfextend_local.evaluation.methods import methods
from selfextend_local.evaluation.report import report

FOLDER = Path(__file__).parents[1] / "docs" / "results"
PAGE = FOLDER.parent / "results.md"


def asked(line: str) -> dict[str, object]:
    """What `selfextend eval` takes from a command, as it reads its flags."""
    program, group, task, *words = shlex.split(line)
    assert (program, group) == ("selfextend", "eval")
    taker = command.commands[task]
    with taker.make_context(task, [], resilient_parsing=True) as context:
        given, rest, _ = taker.make_parser(context).parse_args(words)
        assert not rest
        by_name = {parameter.name: parameter for parameter in taker.params}
        # A data set isn't here; that its flag is one of the task's is known by now.
        return {name: value if name == "data" else by_name[name].type_cast_value(context, value) for name, value in given.items()}


def labels(flags: str) -> list[str]:
    """What the rows are called that these flags ask."""
    given = asked(f"selfextend eval passkey {flags}")
    sizes, modes = given.get("ga_n", ("auto",)), given.get("ga_mode", ("auto",))
    found = methods(
        given["methods"], sizes, given.get("ga_w", (None,)), modes,  # type: ignore[arg-type]
        given.get("ga_temperature", (None,)), given.get("ga_recall", (None,)),  # type: ignore[arg-type]
    )  # fmt: skip
    return [method.label for method in found]


@pytest.mark.slow
def test_the_page_is_what_its_rows_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == report(FOLDER)


def test_each_table_of_rows_names_a_command_that_asks_just_its_lengths() -> None:
    tables = re.findall(r"KV cache, (.+):\n\n\| method \| (.+) \|\n", PAGE.read_text(encoding="utf-8"))
    assert len(tables) > 60
    for commands, lengths in tables:
        held = {length for line in re.findall(r"`([^`]+)`", commands) for length in asked(line)["lengths"]}  # type: ignore[attr-defined]
        assert held == {int(length.replace(",", "")) for length in lengths.split(" | ")}


def test_no_table_stands_without_a_command() -> None:
    """Tables that aren't made of rows say in words above them where they come from."""
    sections = re.split(r"^#{2,3} ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    with_tables = [section for section in sections if "\n|---" in section]
    assert len(with_tables) > 50
    said = re.compile(r"`(selfextend|python docs/results/)|docs/results/\w+\.py|made from the tables below")
    # The second and third are counted from the same tables as "Up to which length".
    derived = ("The automatic choice against the best fixed method", "The worst rank over all tasks")
    assert [section.partition("\n")[0] for section in with_tables if not said.search(section) and not section.startswith(derived)] == []


def test_the_flags_of_each_row_ask_a_row_of_that_name() -> None:
    legend = PAGE.read_text(encoding="utf-8").partition("## The flags of each row")[2]
    rows = re.findall(r"^\| (.+) \| `(.+)` \|$", legend, re.MULTILINE)
    assert len(rows) > 40
    for name, flags in rows:
        assert flags == flags_of(name)
        assert labels(flags) == [name.removesuffix(", not announced").removesuffix(", tuned")]
        assert (asked(f"selfextend eval passkey {flags}").get("introduction") is False) == name.endswith(", not announced")


def test_a_command_has_what_the_rows_were_asked_by() -> None:
    def row(**config: object) -> dict[str, object]:
        return {"config": {"task": "passkey", "file": "m.gguf", "kv_type": "q8_0", "method": "plain", "ga": None, "length": 512} | config}

    rows = [row(depth=depth, repeat=repeat, seed=0) for depth in (0.25, 0.75) for repeat in (0, 1)]
    # Keys at other places were asked by a command of their own; three of four were, of one that was stopped.
    rows += [row(depth=depth, repeat=0, seed=0, length=256) for depth in (0.125, 0.375, 0.625)] + [row(depth=0.5, repeat=0, seed=3)]
    assert commands_of(rows) == [
        "selfextend eval passkey --model m.gguf --repeats 2 --depths 2 --kv-type q8_0 --lengths 512",
        "selfextend eval passkey --model m.gguf --depths 4 --kv-type q8_0 --lengths 256",
        "selfextend eval passkey --model m.gguf --seed 3 --depths 1 --kv-type q8_0 --lengths 512",
    ]
