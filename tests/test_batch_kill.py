"""kill -9 at any moment, twenty times: in the end there is exactly one line for each input."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from selfextend_local.batch.outcome import from_line

pytestmark = pytest.mark.process

ITEMS = 60

# The real writer, resume and lock; only the model is a stand-in, so that a run starts in no time.
PROGRAM = """
import sys, time
from pathlib import Path
from selfextend_local.batch.batch import Batch
from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job, ModelSettings
from selfextend_local.batch.outcome import Failure
from selfextend_local.batch.runner import Finished
from selfextend_local.summarize import Instruction, Summary, Usage

class Runner:
    model_name, fingerprint = "fake", "f"
    def run(self, items, watcher, should_stop):
        for item in items:
            time.sleep(0.005)
            failed = int(item.custom_id) % 7 == 0
            text = "word " * 20000  # a line of 100 kB: writing it takes a while
            yield Finished(item, Failure("c", text) if failed else Summary(text, "whole", (), 1, Usage(), "stop"))

items = [Item(str(n), body={"n": n}) for n in range(int(sys.argv[2]))]
batch = Batch(Job(Instruction(), ModelSettings(Path("m"))), items, Runner(), Path(sys.argv[1]), retry_errors="--retry" in sys.argv)
print(sum(1 for _ in batch.run()))
"""


def test_every_input_has_one_line_after_twenty_kills(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    dice = random.Random(0)
    command = [sys.executable, "-c", PROGRAM, str(out), str(ITEMS)]
    kills = torn = 0
    while kills < 20:
        size = out.stat().st_size if out.exists() else 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and (out.stat().st_size if out.exists() else 0) == size:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.02))
            run.kill()
        kills += 1
        # What was left undone is done by the runs that follow; a finished file is begun again by trying its errors.
        torn += not out.read_bytes().endswith(b"\n")
        if run.returncode == 0:
            command = [*command[:5], "--retry"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = [from_line(line) for line in out.read_text().splitlines()]
    assert Counter(r.custom_id for r in results) == Counter(map(str, range(ITEMS)))
    assert {r.custom_id for r in results if not r.ok} == {str(n) for n in range(0, ITEMS, 7)}


def test_a_half_written_line_is_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", PROGRAM, str(out), "3"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["3"]
    whole = out.read_bytes()
    out.write_bytes(whole[:-1000])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1"]
    assert [json.loads(line)["custom_id"] for line in out.read_text().splitlines()] == ["0", "1", "2"]
