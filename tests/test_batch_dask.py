"""--scheduler against an ordinary Dask scheduler and two workers, real processes, one of them killed in mid-document."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selfextend_cli.summarize.command import command
from support.terminal import PATIENCE_S
from support.tiny_models import TinyModel

distributed = pytest.importorskip("distributed", reason="needs the extra dask")
cloudpickle = pytest.importorskip("cloudpickle")

pytestmark = [pytest.mark.process, pytest.mark.native]

WORDS = "The cat sat on the mat and saw the sea. "


class Cluster:
    """A scheduler and workers as a user starts them."""

    def __init__(self, folder: Path, *tls: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        self._folder, self._tls = folder, tls
        self._log = (folder / "dask.log").open("w")
        self._processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, *self._tls]
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._folder)

    def add_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self._folder)]
        worker = self._start("worker", self.address, *options, *arguments)
        self._processes.append(worker)
        return worker

    def kill_scheduler(self) -> None:
        self._processes[0].kill()

    def client(self, workers: int) -> Any:
        client = distributed.Client(self.address, timeout=PATIENCE_S, set_as_default=False)
        client.wait_for_workers(workers, timeout=PATIENCE_S)
        return client

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    for number in range(6):
        (tmp_path / "docs" / f"d{number}.txt").write_text(f"{number} " + WORDS * 60)
    (tmp_path / "docs" / "empty.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(model: Path, *arguments: str) -> Any:
    return CliRunner().invoke(command, ["docs", "--model", str(model), "--threads", "1", "--max-tokens", "6", *arguments])


def lines(path: str) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert max(Counter(line["custom_id"] for line in found).values()) == 1
    return {line["custom_id"]: line for line in found}


def texts(path: str) -> dict[str, str]:
    return {name: line["response"]["body"]["choices"][0]["message"]["content"] for name, line in lines(path).items() if line["response"]}


def test_a_worker_that_dies_in_mid_document_loses_nothing(cluster: Cluster, folder: Path, tiny_model: TinyModel) -> None:
    model = tiny_model("gqa")
    workers = [cluster.add_worker(), cluster.add_worker()]
    with cluster.client(2) as client:
        pids = client.run(os.getpid)
        killed = threading.Thread(target=_kill_one_at_work, args=(client, pids))
        killed.start()
        result = run(model, "-o", "many.jsonl", "--scheduler", cluster.address)
        killed.join()
    assert result.exit_code == 3, result.output  # the empty document
    assert sum(worker.poll() is not None for worker in workers) == 1
    assert len(lines("many.jsonl")) == 7
    assert lines("many.jsonl")["docs/empty.txt"]["error"]["code"] == "document_empty"
    run(model, "-o", "one.jsonl")
    assert texts("many.jsonl") == texts("one.jsonl")
    # Both ways have the same keys: what a cluster began, one machine may finish.
    assert "7 done already" in run(model, "-o", "many.jsonl").output


def _kill_one_at_work(client: Any, pids: dict[str, int]) -> None:
    """Kill the first worker that is seen with a document in hand for a while."""
    while True:
        for worker, calls in client.call_stack().items() if client.processing() else ():
            if calls and any("summarize_with" in str(frame) for frame in calls.values()):
                os.kill(pids[worker], signal.SIGKILL)
                return
        time.sleep(0.02)


def test_workers_may_read_shared_paths_and_have_many_threads(cluster: Cluster, folder: Path, tiny_model: TinyModel) -> None:
    cluster.add_worker("--nthreads", "4")
    with cluster.client(1):
        result = run(tiny_model("gqa"), "-o", "out.jsonl", "--scheduler", cluster.address, "--shared-paths")
    assert result.exit_code == 3, result.output
    assert len(texts("out.jsonl")) == 6
    assert lines("out.jsonl")["docs/empty.txt"]["error"]["code"] == "document_empty"


def test_a_scheduler_that_dies_ends_the_run_with_a_sentence(cluster: Cluster, folder: Path, tiny_model: TinyModel) -> None:
    (folder / "docs" / "long.txt").write_text(WORDS * 2000)
    cluster.add_worker()
    command = [sys.executable, "-c", "from selfextend_cli.summarize.command import main; main()", "docs", "-o", "out.jsonl"]
    options = ["--model", str(tiny_model("gqa")), "--threads", "1", "--max-tokens", "6", "--scheduler", cluster.address]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as batch:
        with cluster.client(1) as client:
            while not any("summarize_with" in str(calls) for calls in client.call_stack().values()):
                time.sleep(0.02)
        cluster.kill_scheduler()
        _, said = batch.communicate(timeout=PATIENCE_S)
    assert batch.returncode == 1, said
    assert "error: The Dask scheduler is gone: start it, and run the same command again." in said
    assert "Traceback" not in said and "distributed" not in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_tls_files_are_passed_through(folder: Path, tiny_model: TinyModel) -> None:
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    cluster = Cluster(folder, "--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key)
    try:
        cluster.add_worker()
        options = ["--tls-ca", certificate, "--tls-cert", certificate, "--tls-key", key]
        result = run(tiny_model("gqa"), "-o", "out.jsonl", "--scheduler", cluster.address, *options)
        assert result.exit_code == 3, result.output
        assert len(texts("out.jsonl")) == 6
    finally:
        cluster.close()


def test_a_stop_ends_the_work_of_the_workers(cluster: Cluster, folder: Path, tiny_model: TinyModel) -> None:
    (folder / "docs" / "long.txt").write_text(WORDS * 20000)
    cluster.add_worker()
    command = [sys.executable, "-c", "from selfextend_cli.summarize.command import main; main()", "docs", "-o", "out.jsonl"]
    options = ["--model", str(tiny_model("gqa")), "--threads", "1", "--max-tokens", "6", "--scheduler", cluster.address]
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker can't import the tests
    with cluster.client(1) as client, subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as batch:
        while not any("summarize_with" in str(calls) for calls in client.call_stack().values()):
            time.sleep(0.02)
        batch.send_signal(signal.SIGTERM)
        assert batch.wait(PATIENCE_S) == 130
        deadline = time.monotonic() + PATIENCE_S
        while "summarize_with" in str(client.run(_stacks)):
            assert time.monotonic() < deadline, "the worker goes on with a document that nobody wants"
            time.sleep(0.1)


def _stacks() -> str:
    return "".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values())


def test_no_scheduler_is_one_sentence(folder: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfextend_local.batch.dask_runner._CONNECT_S", 1)
    result = run(tiny_model("gqa"), "--scheduler", "tcp://127.0.0.1:9")
    assert result.exit_code == 1
    assert "error: No Dask scheduler answers at tcp://127.0.0.1:9" in result.output


def test_without_dask_the_error_says_how_to_get_it(folder: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "selfextend_local.batch.dask_runner", raising=False)
    result = run(tiny_model("gqa"), "--scheduler", "tcp://127.0.0.1:9")
    assert result.exit_code == 1
    assert 'pip install "selfextend-local[dask]"' in result.output
