"""`selfextend eval` and `selfextend tune` as a user meets them: flags, errors, and on the fixture model whole runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selfextend_cli.eval.run import read_length
from selfextend_cli.main import group

from selfextend_local.engine.tuned import Profile, save_profile

pytestmark = pytest.mark.process

FIXTURE = Path(__file__).parents[1] / "data" / "fixture.gguf"
RULER = FIXTURE.with_name("ruler.gguf")
SELFEXTEND = [sys.executable, "-c", "from selfextend_cli.main import main; main()"]

needs_fixture = pytest.mark.skipif(not FIXTURE.is_file(), reason="there is no tests/data/fixture.gguf")


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments))


TASKS = ("passkey", "ppl", "copy", "ruler", "babilong", "gap", "planted", "facts", "qa")


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_help_with_an_example(task: str) -> None:
    result = invoke("eval", task, "--help")
    assert result.exit_code == 0
    assert f"selfextend eval {task} -" in result.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom selfextend_cli.main import group\n"
        "for line in (['eval', '--help'], ['eval', 'passkey', '--help'], ['tune', '--help']):\n"
        "    try: group(line)\n    except SystemExit: pass\n"
        "print('LOADED', [m for m in ('llama_cpp', 'numpy', 'rich', 'matplotlib', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("LOADED []")


def test_lengths() -> None:
    assert [read_length(text) for text in ("4096", "16k", "1.5k", "2x", "0.5x")] == [4096, 16_384, 1536, 2.0, 0.5]
    assert isinstance(read_length("2x"), float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "passkey", "--lengths", "long"], "write tokens (4096, 16k) or trained windows (2x)"),
        (["eval", "passkey", "--lengths", "0x"], "is not above 0"),
        (["eval", "passkey", "--methods", "plain,magic"], "'magic' is not one of plain, selfextend, yarn"),
        (["eval", "passkey", "--ga-n", "0"], "is no whole number above 0"),
        (["eval", "passkey", "--kv-type", ","], "the list is empty"),
        (["eval", "ppl"], "Missing option '--text'"),
        (["tune"], "Missing option '--target-tokens'"),
    ],
)
def test_wrong_usage_leaves_with_2(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "passkey", "--model", "missing.gguf"], "There is no model file missing.gguf"),
        (["eval", "ppl", "--text", "missing.txt"], "missing.txt"),
        (["eval", "passkey", "--plot", "picture.bmp"], "doesn't end in .png, .svg, .pdf"),
        (["tune", "--model", "missing.gguf", "--target-tokens", "9"], "There is no model file missing.gguf"),
    ],
)
def test_mistakes_are_one_sentence_and_1(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.startswith("error: "))
    assert message in line


def test_pictures_without_matplotlib_are_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfextend_local.evaluation.plots.find_spec", lambda name: None)
    result = invoke("eval", "passkey", "--plot", "picture.png")
    assert result.exit_code == 1
    assert "pip install 'selfextend-local[plot]'" in result.output


def passkey(folder: Path, *more: str) -> list[str]:
    options = ["--lengths", "1x,3x", "--depths", "3", "--threads", "1", "--out", str(folder / "r.jsonl")]
    return ["eval", "passkey", "--model", str(FIXTURE), *options, *more]


@needs_fixture
@pytest.mark.native
def test_beyond_its_window_the_plain_model_fails_and_selfextend_does_not(tmp_path: Path) -> None:
    result = CliRunner().invoke(group, passkey(tmp_path, "--json", "--plot", str(tmp_path / "p.png")))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    means = {(g["method"], g["length"]): g["mean"] for g in found["groups"]}
    assert means[("plain", 512)] == 1.0
    assert means[("plain", 1536)] == 0.0
    assert means[("selfextend auto", 1536)] == 1.0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    table = CliRunner().invoke(group, passkey(tmp_path))
    assert "Pass keys found" in table.stdout and "100 %" in table.stdout


@needs_fixture
@pytest.mark.native
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_goes_on_where_it_was_ended(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "r.jsonl"
    command = [*SELFEXTEND, *passkey(tmp_path, "--json", "--depths", "6")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 4):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    before = path.read_text().splitlines()[:4]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number == signal.SIGINT:
        assert "Run the same command again to go on" in errors
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = path.read_text().splitlines()
    assert after[:4] == before
    assert len({json.loads(line)["key"] for line in after}) == len(after) == 24
    assert {g["count"] for g in json.loads(done.stdout)["groups"]} == {6}


@needs_fixture
@pytest.mark.native
def test_tune_promises_what_a_fresh_test_then_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_PROFILES", str(tmp_path))
    options = ["--model", str(RULER), "--target-tokens", "2048", "--threads", "2"]
    result = invoke("tune", *options, "--json", "--budget-minutes", "1")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert {"setting", "keys", "facts", "nats", "ms_a_token", "memory"} <= set(made["tried"][0])
    assert sum(row["chosen"] for row in made["tried"]) == 1
    trials = [json.loads(line)["config"] for path in tmp_path.glob("*.trials.jsonl") for line in path.read_text().splitlines()]
    # Of texts that the choice never saw, however many of them the time did for.
    assert made["promise"]["asked"] == sum(trial["length"] == 2048 and trial["seed"] >= 1000 for trial in trials) >= 6
    assert 0 <= made["promise"]["low"] <= made["promise"]["share"] <= made["promise"]["high"] <= 1
    # Everything that was measured is known: the same command answers from the file, now as a table.
    again = invoke("tune", *options, "--budget-minutes", "0.001")
    assert again.exit_code == 0 and "Promise for texts of 2,048 tokens" in again.stdout and "KV cache" in again.stdout
    # As many keys and facts in a text as in those of the promise: of more a model says a smaller share.
    check = made["check"]
    assert check in " ".join(again.stdout.split())
    checked = invoke(*shlex.split(check)[1:], "--threads", "2", "--out", str(tmp_path / "fresh.jsonl"), "--json")
    assert checked.exit_code == 0, checked.output
    assert len((tmp_path / "fresh.jsonl").read_text().splitlines()) == 6


@needs_fixture
@pytest.mark.native
def test_a_profile_is_used_by_chat_until_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_PROFILES", str(tmp_path))
    save_profile(FIXTURE, Profile("fixture", 0.3, 64, 1200, "2026-11-28", ga_mode="progressive"))
    asked = invoke("chat", "--model", str(FIXTURE), "-p", "word " * 700, "--max-tokens", "1")
    assert ", tuned)" in asked.output
    assert "Deleted" in invoke("tune", "--model", str(FIXTURE), "--target-tokens", "1200", "--forget").output
    assert "tuned" not in invoke("chat", "--model", str(FIXTURE), "-p", "hello", "--max-tokens", "1").output
