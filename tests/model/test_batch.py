"""A batch of real documents with the default model: killed once with -9, run again, complete, and about the documents."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfextend_local.batch.items import Item
from selfextend_local.batch.job import Job, ModelSettings
from selfextend_local.batch.local_runner import LocalRunner
from selfextend_local.batch.runner import Watcher
from selfextend_local.sample.folder import write_folder
from selfextend_local.summarize import Instruction, Summary

pytest.importorskip("fpdf")
pytestmark = pytest.mark.model


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_a_killed_batch_is_finished_by_the_same_command(default_model: Path, tmp_path: Path) -> None:
    paths = [p for p in write_folder(tmp_path / "reports") if p.suffix == ".md" or p.stem in ("log-june", "broken-damaged")]
    out = tmp_path / "out.jsonl"
    code = "from selfextend_cli.summarize.command import main; main()"
    command = [sys.executable, "-c", code, *map(str, paths), "-o", str(out), "--model", str(default_model), "--max-words", "25"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 3):
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    results = {line["custom_id"]: line for line in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert sorted(results) == sorted(map(str, paths)) and out.read_bytes().count(b"\n") == len(paths)
    assert [Path(name).stem for name, line in results.items() if line["error"]] == ["broken-damaged"]
    done_well = {Path(name).stem: line["response"]["body"] for name, line in results.items() if line["response"]}
    texts = {name: body["choices"][0]["message"]["content"] for name, body in done_well.items()}
    assert all(3 <= len(text.split()) <= 26 for text in texts.values())
    assert any(word in texts["the-people-of-the-station"].lower() for word in ("station", "tarrow", "island", "staff", "warden"))
    # The instruction was read once by each of the two processes.
    cached = [body["usage"]["prompt_tokens_details"]["cached_tokens"] for body in done_well.values()]
    assert sum(count > 30 for count in cached) >= len(cached) - 2


def test_eight_documents_side_by_side_are_answered_as_one_at_a_time(default_model: Path, story: str) -> None:
    texts = [story[2000 * i : 2000 * i + 500 + 50 * i] for i in range(8)]
    messages = [[{"role": "user", "content": f"Summarize this in a sentence.\n\n{text}"}] for text in texts]
    items = [Item(str(i), body={"messages": each, "max_tokens": 24}) for i, each in enumerate(messages)]
    found = []
    for together in (1, 8):
        runner = LocalRunner(Job(Instruction(), ModelSettings(default_model, together=together)))
        outcomes = {f.item.custom_id: f.outcome for f in runner.run(items, Watcher(), lambda: False)}
        runner.close()
        found.append({name: (o.text, o.finish) for name, o in outcomes.items() if isinstance(o, Summary)})
    assert len(found[0]) == 8 and found[0] == found[1]
