"""The results file: what is written stays, what is torn is mended, what is foreign is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfextend_local.batch.defaults import BATCH
from selfextend_local.batch.job import Job, ModelSettings
from selfextend_local.batch.outcome import Failure, Result, from_line
from selfextend_local.batch.results import results_file
from selfextend_local.engine.plan import Settings
from selfextend_local.errors import BatchError
from selfextend_local.storage.results import ResultsFile
from selfextend_local.summarize import Instruction, Part, Summary, Usage

SUMMARY = Summary("Das ist\nes.", "parts", (Part("1", "4", "notes"),), 9, Usage(100, 20, 7, 1.5, 0.25), "stop", 4, 1024, "progressive")


def result(custom_id: str, key: str = "k", outcome: Summary | Failure = SUMMARY) -> Result:
    return Result(custom_id, key, outcome, "model", "Title", 2.5)


def standing(file: ResultsFile[Result], custom_id: str) -> tuple[str, bool] | None:
    """(key, whether it is a summary) of the newest result."""
    found = file.newest().get(custom_id)
    return (found.key, found.ok) if found else None


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_lines_are_openai_s_and_come_back_as_they_were() -> None:
    line = json.loads(result("a.pdf").to_line())
    assert line["custom_id"] == "a.pdf"
    assert line["error"] is None
    assert line["response"]["status_code"] == 200
    body = line["response"]["body"]
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Das ist\nes."}
    assert body["usage"] == {
        "prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107, "prompt_tokens_details": {"cached_tokens": 20},
    }
    failed = result("b.pdf", outcome=Failure("document_empty", "b.pdf is empty."))
    assert json.loads(failed.to_line())["response"] is None
    for given in (result("a.pdf"), failed):
        back = from_line(given.to_line())
        assert (back.custom_id, back.key, back.outcome, back.seconds) == (given.custom_id, given.key, given.outcome, 2.5)


@pytest.mark.parametrize("changed", [{"ga_temperature": 0.3}, {"ga_mode": "recall", "ga_recall": 4096}, {"ga_n": 4}, {"kv_type": "q8_0"}])
def test_a_result_stands_for_its_settings_only(changed: dict[str, Any]) -> None:
    def key(settings: Settings) -> str:
        return Job(Instruction(), ModelSettings(Path("m"), settings)).key("input", "model")

    assert key(replace(BATCH, **changed)) != key(BATCH)
    assert key(replace(BATCH, ga_mode="recall", ga_recall=2048)) != key(replace(BATCH, ga_mode="recall", ga_recall=4096))
    assert key(replace(BATCH, ga_temperature=0.0)) == key(BATCH)


def test_what_was_appended_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.jsonl"
    with results_file(path) as file:
        file.append(result("a", "1"))
        file.append(result("b", "2", Failure("timeout", "late")))
    with results_file(path) as file:
        assert standing(file, "a") == ("1", True)
        assert standing(file, "b") == ("2", False)
        assert standing(file, "c") is None


@pytest.mark.parametrize("keep", [1, 17, 40, -1])
def test_a_torn_last_line_is_removed_and_the_rest_kept(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "out.jsonl"
    lines = [result(name).to_line() + "\n" for name in "ab"]
    path.write_text(lines[0] + lines[1][:keep])
    with results_file(path) as file:
        assert standing(file, "b") is None
        file.append(result("c"))
    assert ids(path) == ["a", "c"]


def test_the_zeros_of_a_power_cut_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(result("a").to_line().encode() + b"\n" + bytes(4000))
    with results_file(path):
        pass
    assert ids(path) == ["a"]


@pytest.mark.parametrize("content", ["my notes\nwithout an end", "one line", '{"custom_id": "a"}\n', "%PDF-1.7\n\x00\x01"])
def test_a_file_of_another_kind_is_refused_and_not_touched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "precious.txt"
    path.write_text(content)
    with pytest.raises(BatchError, match="choose another output"), results_file(path):
        pass
    assert path.read_text() == content


def test_superseded_lines_go_when_the_run_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with results_file(path) as file:
        file.append(result("a", "1", Failure("timeout", "late")))
        file.append(result("b"))
        file.append(result("a", "2"))
        assert ids(path) == ["a", "b", "a"]
    assert sorted(ids(path)) == ["a", "b"]
    with results_file(path) as file:
        assert standing(file, "a") == ("2", True)


def test_lines_superseded_by_a_run_that_was_killed_go_at_the_end_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("".join(result("a", key).to_line() + "\n" for key in "12"))
    with results_file(path) as file:
        assert standing(file, "a") == ("2", True)
    assert ids(path) == ["a"]


@pytest.mark.slow
def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    code = (
        "import sys; from pathlib import Path; from selfextend_local.batch.results import results_file\n"
        f"with results_file(Path({str(path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(BatchError, match="Another run is writing .*: wait for it"), results_file(path):
            pass
        other.kill()
    with results_file(path):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    code = f"""
import resource
from pathlib import Path
from selfextend_local.batch.outcome import Failure, Result
from selfextend_local.batch.results import results_file
from selfextend_local.errors import BatchError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with results_file(Path({str(path)!r})) as file:
        for n in range(100):
            file.append(Result(str(n), "k", Failure("c", "m" * 100)))
except BatchError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "All results before this one are safe: make room, and run the same command again." in done.stdout
    assert 1 <= len(ids(path)) < 100
    with results_file(path) as file:
        file.append(result("next"))
    assert ids(path)[-1] == "next"


def test_odd_characters_stay_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    odd = Result("caf\udce9.txt", "k", Failure("c", "a\u2028b\x85c\u2029d\re\nf 中文"))
    with results_file(path) as file:
        file.append(odd)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1
    with results_file(path) as file:
        (back,) = file.newest().values()
        assert (back.custom_id, back.outcome) == (odd.custom_id, odd.outcome)
        assert standing(file, "caf\udce9.txt") == ("k", False)


@pytest.mark.parametrize("what", ["removed", "replaced"])
@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays where it is")
def test_a_file_that_is_taken_away_is_noticed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(BatchError, match="was removed or replaced during the run"), results_file(path) as file:
        file.append(result("a"))
        path.unlink()
        if what == "replaced":
            path.write_text("")
        file.append(result("b"))


def test_a_reader_beside_a_writer_sees_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    torn = result("b").to_line()[:40]
    path.write_text(f"{result('a').to_line()}\n{torn}")
    assert list(results_file(path).newest()) == ["a"]
    assert path.read_text().endswith(torn)
