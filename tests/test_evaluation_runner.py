"""Results survive kill -9 and torn lines; what is done is not done twice; a stop keeps what is finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.scripted import Scripted, ScriptedReaders, Words, subject

from selfextend_local.errors import Interrupted
from selfextend_local.evaluation.methods import methods
from selfextend_local.evaluation.results import Results, ResultsError
from selfextend_local.evaluation.runner import Cell, cells, run
from selfextend_local.evaluation.summary import bootstrap, by_label, groups
from selfextend_local.evaluation.tasks.facts import Facts
from selfextend_local.evaluation.tasks.passkey import Passkey
from selfextend_local.evaluation.texts import Text


def planned(words: Words, depths: int = 2) -> list[Cell]:
    return cells(Passkey(depths=depths), subject(words), methods(["plain", "selfextend", "yarn"], ["auto"], [None]), [300, 1200])


def shelf(words: Words) -> ScriptedReaders:
    return ScriptedReaders(Scripted(words, lambda prompt, setup, n: "1"))


def test_every_method_gets_the_same_items_and_one_context_that_holds_them_all(tmp_path: Path) -> None:
    words = Words()
    made = shelf(words)
    rows = run(planned(words), Results(tmp_path / "r.jsonl"), made)
    inputs = {row["config"]["method"]: [] for row in rows}
    for row in rows:
        inputs[row["config"]["method"]].append(row["config"]["input"])
    assert len({tuple(found) for found in inputs.values()}) == 1
    # Methods that share their context parameters ask for the longest from the beginning, so the weights are loaded once.
    rooms = [room for setup, room in made.asked if not setup.context]
    assert rooms[0] == max(rooms)


def test_a_second_run_does_nothing_new_and_returns_the_same(tmp_path: Path) -> None:
    words = Words()
    first = run(planned(words), Results(tmp_path / "r.jsonl"), shelf(words))
    again = shelf(words)
    assert run(planned(words), Results(tmp_path / "r.jsonl"), again) == first
    assert again.asked == []


def test_only_what_changed_is_done_again(tmp_path: Path) -> None:
    words = Words()
    run(planned(words), Results(tmp_path / "r.jsonl"), shelf(words))
    more = shelf(words)
    rows = run(planned(words, depths=6), Results(tmp_path / "r.jsonl"), more)
    # Of the six depths, the middles of equal halves (0.25 and 0.75) were there already.
    assert (len(rows), len(more.asked)) == (36, 24)


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path, words = tmp_path / "r.jsonl", Words()
    whole = run(planned(words), Results(path), shelf(words))
    path.write_bytes(path.read_bytes()[:-30])
    again = shelf(words)
    assert [row["result"] for row in run(planned(words), Results(path), again)] == [row["result"] for row in whole]
    assert len(again.asked) == 1
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == len(whole)


@pytest.mark.parametrize("notes", ["my notes\nand more", "one line without an end"])
def test_another_file_is_not_touched(tmp_path: Path, notes: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(notes)
    with pytest.raises(ResultsError, match="Line 1 of .*notes.txt is no result"):
        Results(path)
    assert path.read_text() == notes


def test_a_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    words, path = Words(), tmp_path / "r.jsonl"
    finished: list[object] = []
    with pytest.raises(Interrupted):
        run(planned(words), Results(path), shelf(words), finished=finished.append, should_stop=lambda: len(finished) >= 3)
    assert len(Results(path).rows) == 3


def test_progress_never_goes_back(tmp_path: Path) -> None:
    """A reader that goes back for an answer would look like one that begins, and the time left like that of reading token by token."""
    words, reported = Words(), []
    made = shelf(words)

    def answered(prompt: str, setup: object, n: int) -> str:
        made.made.progress(n - 20)
        return "1"

    made.made.say = answered
    run(planned(words), Results(tmp_path / "r.jsonl"), made, progress=lambda done, total: reported.append((done, total)))
    done = [place for place, _ in reported]
    assert done == sorted(done)
    assert reported[-1][0] == reported[-1][1]


def test_what_is_there_already_is_no_work(tmp_path: Path) -> None:
    """Four questions about one text, which is read once."""
    words, reported = Words(), []
    text = Text("novel.txt", " ".join(f"He saw {i} ships that day." for i in range(400)))
    asked = cells(Facts(text, facts=4), subject(words), methods(["plain"], ["auto"], [None]), [600])
    run(asked, Results(tmp_path / "r.jsonl"), shelf(words), progress=lambda done, total: reported.append((done, total)))
    assert reported[-1][0] == reported[-1][1] < 1.5 * 600


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_evaluation_runner import planned, shelf, Words, Results, run
words = Words()
def finished(row):
    print("row", flush=True)
    if len(results.rows) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
results = Results(Path(sys.argv[1]))
run(planned(words), results, shelf(words), finished=finished)
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    path, folder = tmp_path / "r.jsonl", str(Path(__file__).parent)
    reported = 0
    for kill_at in (3, 7, 99):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), folder, str(kill_at)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": folder},
        )
        reported += done.stdout.count("row")
        assert done.returncode == (0 if kill_at == 99 else -signal.SIGKILL), done.stderr
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == reported == 12


def test_the_bootstrap_interval_holds_the_mean_of_most_samples() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(60):
        e = bootstrap(list(rng.normal(3.0, 1.0, 40)), seed=seed, resamples=400)
        assert e.low < e.mean < e.high
        held += e.low <= 3.0 <= e.high
    assert held >= 50
    assert bootstrap([0.5]).low == bootstrap([0.5]).high == 0.5


def test_groups_are_means_by_method_and_length(tmp_path: Path) -> None:
    words = Words()
    say = ScriptedReaders(Scripted(words, lambda prompt, setup, n: find(prompt) if setup.group_attention.enabled else "0"))
    found = groups(run(planned(words), Results(tmp_path / "r.jsonl"), say))
    means = {(group.method, group.length): group.estimate.mean for group in found}
    assert means[("selfextend auto", 1200)] == 1.0
    assert means[("plain", 1200)] == 0.0
    last = next(group for group in found if (group.method, group.length) == ("selfextend auto", 1200))
    assert by_label(last.rows, "depth", "exact") == {0.25: 1.0, 0.75: 1.0}


def find(prompt: str) -> str:
    return prompt.split("The pass key is ")[1].split(".")[0]
