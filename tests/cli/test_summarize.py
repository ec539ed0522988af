"""`selfextend summarize` as a user runs it, on a tiny random model: what comes out, what is kept, how it ends."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from selfextend_cli.summarize.command import command
from support.bad_documents import bomb_pdf, damaged_pdf, empty_file, encrypted_pdf, hanging_pdf
from support.terminal import PATIENCE_S
from support.tiny_models import TinyModel

pytestmark = [pytest.mark.process, pytest.mark.native]

WORDS = "The cat sat on the mat and saw the sea. "


@pytest.fixture
def model(tiny_model: TinyModel) -> str:
    return str(tiny_model("gqa"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    for number in range(3):
        (tmp_path / "docs" / f"d{number}.txt").write_text(f"{number} " + WORDS * (2 + number), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(model: str, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, ["--model", model, "--threads", "1", "--max-tokens", "6", *arguments], input=stdin)


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def ids(path: str | Path) -> list[str]:
    return sorted(line["custom_id"] for line in lines(path))


def test_a_folder_gives_a_line_each_and_a_second_run_does_nothing(model: str, folder: Path) -> None:
    first = run(model, "docs", "-o", "out.jsonl")
    assert first.exit_code == 0, first.output
    assert ids("out.jsonl") == ["docs/d0.txt", "docs/d1.txt", "docs/d2.txt"]
    assert all(line["selfextend"]["ga_n"] >= 1 and line["response"]["body"]["usage"]["completion_tokens"] for line in lines("out.jsonl"))
    before = Path("out.jsonl").read_bytes()
    second = run(model, "docs", "-o", "out.jsonl")
    assert second.exit_code == 0
    assert "3 done already" in second.output
    assert Path("out.jsonl").read_bytes() == before


def test_a_changed_document_or_request_is_done_again_and_replaces_its_line(model: str, folder: Path) -> None:
    run(model, "docs", "-o", "out.jsonl")
    keys = {line["custom_id"]: line["selfextend"]["key"] for line in lines("out.jsonl")}
    (folder / "docs" / "d1.txt").write_text("Something else.")
    assert "2 done already, 1 to do" in run(model, "docs", "-o", "out.jsonl").output
    changed = {line["custom_id"]: line["selfextend"]["key"] for line in lines("out.jsonl")}
    assert {name for name in keys if keys[name] != changed[name]} == {"docs/d1.txt"}
    assert len(lines("out.jsonl")) == 3
    run(model, "docs", "-o", "out.jsonl", "--prompt", "List the animals.")
    assert ids("out.jsonl") == sorted(keys)


def test_bad_documents_cost_their_own_line_and_exit_with_3(model: str, folder: Path) -> None:
    docs = folder / "docs"
    empty_file(docs / "empty.txt")
    damaged_pdf(docs / "damaged.pdf")
    encrypted_pdf(docs / "encrypted.pdf")
    hanging_pdf(docs / "hanging.pdf")
    bomb_pdf(docs / "bomb.pdf")
    first = run(model, "docs", "gone.txt", "-o", "out.jsonl", "--read-timeout", "20", "--read-memory", "400")
    assert first.exit_code == 3, first.output
    codes = {line["custom_id"]: line["error"]["code"] for line in lines("out.jsonl") if line["error"]}
    # Which of the two limits ends them depends on the speed of the machine.
    for name in ("bomb", "hanging"):
        assert codes.pop(f"docs/{name}.pdf") in ("reader_crashed", "reader_out_of_memory", "reader_timeout")
    assert codes == {
        "docs/empty.txt": "document_empty",
        "docs/damaged.pdf": "document_damaged",
        "docs/encrypted.pdf": "document_encrypted",
        "gone.txt": "document_not_found",
    }
    assert len(ids("out.jsonl")) == 9
    again = run(model, "docs", "gone.txt", "-o", "out.jsonl")
    assert again.exit_code == 3
    assert "6 of them errors: --retry-errors" in again.output
    for name in ("bomb", "hanging", "damaged", "encrypted"):
        (docs / f"{name}.pdf").unlink()
    (docs / "empty.txt").write_text("Now it has text.")
    (folder / "gone.txt").write_text("Here again.")
    mended = run(model, "docs", "gone.txt", "-o", "out.jsonl", "--retry-errors")
    assert mended.exit_code == 0, mended.output


def test_the_results_do_not_depend_on_the_order_or_on_what_came_before(model: str, folder: Path) -> None:
    run(model, "docs", "-o", "all.jsonl")
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0] for line in lines("all.jsonl")}
    for name, choice in texts.items():
        run(model, name, "-o", f"{Path(name).stem}.jsonl", "--context", "512")
        (alone,) = lines(f"{Path(name).stem}.jsonl")
        assert alone["response"]["body"]["choices"][0] == choice


@pytest.mark.parametrize("together", ["1", "8", "auto"])
def test_the_shared_instruction_is_read_once(fixture_model: Path, folder: Path, together: str) -> None:
    for number in range(3):
        (folder / "docs" / f"d{number}.txt").write_text(f"{number} {WORDS}")
    run(str(fixture_model), "docs", "-o", "out.jsonl", "--together", together)
    cached = [line["response"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"] for line in lines("out.jsonl")]
    assert cached[0] == 0
    assert cached[1] == cached[2] > 10


def test_a_long_document_is_read_in_parts_and_its_pages_are_kept(model: str, folder: Path) -> None:
    Path("long.txt").write_text("\f".join(f"{n} " + WORDS * 4 for n in range(1, 9)))
    assert run(model, "long.txt", "-o", "out.jsonl").exit_code == 0
    own = lines("out.jsonl")[0]["selfextend"]
    assert own["how"] == "parts"
    assert own["pages"] == 8
    assert own["ga_mode"] in ("two-level", "progressive")
    assert own["parts"][0]["first_page"] == "1"
    assert own["parts"][-1]["last_page"] == "8"


def test_openai_batch_lines_in_and_out(model: str, folder: Path) -> None:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "max_tokens": 4}
    good = {"custom_id": "good", "method": "POST", "url": "/v1/chat/completions", "body": body}
    long = good | {"custom_id": "long", "body": {"messages": [{"role": "user", "content": WORDS * 50}]}}
    tools = good | {"custom_id": "tools", "body": body | {"tools": [{"type": "function"}]}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    formed = good | {"custom_id": "formed", "body": body | {"response_format": shape, "max_tokens": 16}}
    text = "\n".join([*map(json.dumps, (good, long, tools, formed)), "{torn"])
    result = run(model, "--requests", "-", "-o", "out.jsonl", stdin=text)
    assert result.exit_code == 3, result.output
    by_id = {line["custom_id"]: line for line in lines("out.jsonl")}
    assert by_id["good"]["response"]["body"]["usage"]["completion_tokens"] == 4
    assert by_id["long"]["error"]["code"] == "context_length_exceeded"
    assert "tools aren't supported" in by_id["tools"]["error"]["message"]
    assert json.loads(by_id["formed"]["response"]["body"]["choices"][0]["message"]["content"]) in ("yes", "no")
    assert by_id["line-5"]["error"]["code"] == "invalid_json_line"


def test_a_schema_is_followed(model: str, folder: Path) -> None:
    Path("s.json").write_text('{"enum": ["short", "long"]}')
    run(model, "docs", "-o", "out.jsonl", "--schema", "s.json", "--max-tokens", "20")
    answers = [json.loads(line["response"]["body"]["choices"][0]["message"]["content"]) for line in lines("out.jsonl")]
    assert len(answers) == 3 and set(answers) <= {"short", "long"}


def test_markdown_files_and_tables(model: str, folder: Path) -> None:
    assert run(model, "docs", "--out-dir", "notes", "-o", "table.csv").exit_code == 0
    with open("table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["custom_id"] for row in rows) == ["docs/d0.txt", "docs/d1.txt", "docs/d2.txt"]
    assert len(list(Path("notes").glob("*.md"))) == 3
    assert run(model, ".", "--out-dir", "notes", "-o", "table.csv").output.count("done already") == 1
    table = run(model, "docs", "--format", "md").stdout
    assert table.startswith("| document | summary |") and table.count("\n") == 5


def test_names_from_stdin_and_answers_on_stdout(model: str, folder: Path) -> None:
    result = run(model, "-", "--format", "jsonl", stdin="docs/d0.txt\ndocs/d1.txt\n")
    assert sorted(json.loads(line)["custom_id"] for line in result.stdout.splitlines()) == ["docs/d0.txt", "docs/d1.txt"]
    assert "# d1" in run(model, "docs").stdout


def test_a_dry_run_reads_and_counts_and_writes_nothing(model: str, folder: Path) -> None:
    empty_file(folder / "docs" / "empty.txt")
    Path("docs/long.txt").write_text(WORDS * 30)
    result = run(model, "docs", "-o", "out.jsonl", "--dry-run")
    assert result.exit_code == 0
    rows = {line.split()[-1]: line for line in result.stdout.splitlines()}
    assert rows["docs/d0.txt"].startswith("whole")
    assert rows["docs/long.txt"].startswith("in parts")
    assert "document_empty" in rows["docs/empty.txt"]
    assert "5 to do, 0 done already" in result.stderr
    assert not Path("out.jsonl").exists()


def test_fail_fast_and_time_limits(model: str, folder: Path) -> None:
    result = run(model, "docs", "-o", "out.jsonl", "--timeout", "0.000001", "--fail-fast")
    assert result.exit_code == 3
    assert [line["error"]["code"] for line in lines("out.jsonl")] == ["timeout"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name documents, or batch lines"),
        (["docs", "--requests", "x"], "Name documents, or batch lines"),
        (["docs", "--scheduler", "tcp://a:1", "--endpoint", "http://a"], "either --scheduler or --endpoint"),
        (["docs", "--prompt", " "], "The prompt is empty"),
        (["docs", "--tls-ca", "x"], "go together"),
        (["--requests", "none.jsonl"], "none.jsonl can't be read"),
        (["-"], "the list is empty"),
    ],
)
def test_wrong_usage_leaves_with_2(folder: Path, arguments: list[str], message: str) -> None:
    result = run("none.gguf", *arguments, stdin="")
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["docs"], "error: There is no model file none.gguf"),
        (["nothing-*.pdf"], "error: No file matches nothing-*.pdf"),
        (["docs", "--endpoint", "http://127.0.0.1:9"], "error: No server answers at http://127.0.0.1:9/v1"),
    ],
)
def test_mistakes_are_one_sentence_and_1(folder: Path, arguments: list[str], message: str) -> None:
    result = run("none.gguf", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_between_two_lines_and_the_next_run_goes_on(model: str, folder: Path, number: int) -> None:
    for index in range(12):
        (folder / "docs" / f"many{index}.txt").write_text(f"{index} " + WORDS * 8)
    long = folder / "docs" / "z.txt"  # which takes longer than a busy machine needs to deliver a signal
    long.write_text(WORDS * 20_000)
    arguments = ["docs", "-o", "out.jsonl", "--model", model, "--threads", "1", "--max-tokens", "8"]
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from selfextend_cli.summarize.command import main; main()"
    )
    out = folder / "out.jsonl"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out.exists() and out.stat().st_size):
            time.sleep(0.01)
        os.kill(process.pid, number)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    done = len(lines(out))
    assert 1 <= done <= 15
    long.unlink()
    again = run(model, "docs", "-o", "out.jsonl", "--max-tokens", "8")
    assert again.exit_code == 0
    assert f"{done} done already" in again.output
    assert len(set(ids(out))) == len(ids(out)) == 15


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_has_a_bar_and_stdout_has_the_answers(model: str, folder: Path) -> None:
    import pexpect

    code = "from selfextend_cli.summarize.command import main; main()"
    words = [sys.executable, "-c", code, "docs", "--model", model, "--threads", "1", "--max-tokens", "6", "--format", "jsonl"]
    shell = " ".join(f"'{word}'" for word in words)
    terminal = pexpect.spawn("/bin/sh", ["-c", f"{shell} > answers.jsonl"], encoding="utf-8", timeout=PATIENCE_S, dimensions=(24, 100))
    terminal.expect("1/3 docs/d.* tokens")
    terminal.expect("3/3 docs/d")
    terminal.expect("done +3")
    terminal.expect(pexpect.EOF)
    assert ids("answers.jsonl") == ["docs/d0.txt", "docs/d1.txt", "docs/d2.txt"]
    terminal = pexpect.spawn(words[0], words[1:-2], encoding="utf-8", timeout=PATIENCE_S, dimensions=(24, 100))
    terminal.expect("# d")
    terminal.expect("done +3")
    terminal.expect(pexpect.EOF)
