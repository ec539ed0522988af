"""--endpoint against real HTTP servers on this machine: work is spread, what is temporary is tried again, the rest is a failure."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from selfextend_local.batch import Failure, Limits, summarize
from selfextend_local.batch import http_runner as endpoint_module
from selfextend_local.batch.exchange import ExchangeError, exchange
from selfextend_local.errors import BatchError

pytestmark = pytest.mark.process

Reply = Callable[[dict[str, Any], int], tuple[int, dict[str, Any]]]


def answer(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
    text = body["messages"][-1]["content"]
    choice = {"message": {"role": "assistant", "content": f"Summary of {len(text)} characters."}, "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 5}}


class Served(ThreadingHTTPServer):
    """A server with the OpenAI API that records what it is asked."""

    def __init__(
        self,
        reply: Reply,
        model: str = "served-model",
        window: int | None = None,
        headers: dict[str, str] | None = None,
        drip: bool = False,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.model, self.window, self.headers, self.drip = reply, model, window, headers or {}, drip
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": self.server.model, "max_model_len": self.server.window}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            number = len(self.server.bodies)
        if self.server.drip:
            return self._drip()
        self._send(*self.server.reply(body, number), self.server.headers)

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)

    def _send(self, status: int, data: Any, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(reply: Reply = answer, **settings: Any) -> Iterator[Served]:
    server = Served(reply, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def documents(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"d{n}.txt" for n in range(6)]
    for path in paths:
        path.write_text(f"{path.stem} has text. " * 20)
    return paths


def test_documents_are_spread_over_the_servers(documents: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    both = threading.Barrier(2, timeout=600)  # no answer before both servers are asked: neither may be left idle

    def together(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        if number == 1:
            both.wait()
        return answer(body, number)

    with serving(together) as one, serving(together) as two:
        results = list(summarize(documents, endpoints=[one.url, f"{two.url}/v1/"], max_words=30))
    assert len(results) == 6 and all(r.ok for r in results)
    assert len(one.bodies) + len(two.bodies) == 6
    assert one.keys[0] == "Bearer secret"
    assert one.bodies[0]["model"] == results[0].model == "served-model"
    assert "at most 30 words" in one.bodies[0]["messages"][0]["content"]


def test_what_is_temporary_is_tried_again(documents: list[Path]) -> None:
    def busy_at_first(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        return (503, {"error": {"message": "loading"}}) if number <= 2 else answer(body, number)

    with serving(busy_at_first) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
        assert result.ok
        assert len(server.bodies) == 3


def test_a_refusal_costs_one_document(documents: list[Path]) -> None:
    def picky(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        if "d3 has" in body["messages"][-1]["content"]:
            return 422, {"error": {"message": "I don't like d3"}}
        return answer(body, number)

    with serving(picky) as server:
        results = {Path(r.custom_id).stem: r for r in summarize(documents, endpoints=[server.url])}
    failed = results.pop("d3").outcome
    assert isinstance(failed, Failure) and "I don't like d3" in failed.message
    assert all(r.ok for r in results.values())


def test_a_server_that_never_recovers_is_a_failure_with_the_next_step(documents: list[Path]) -> None:
    with serving(lambda body, number: (500, {"error": "broken"})) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert isinstance(result.outcome, Failure) and "--retry-errors" in result.outcome.message


def test_long_documents_are_cut_for_the_window_that_the_server_states(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\f".join(f"Page {n}. " + "words " * 200 for n in range(8)))
    with serving(window=2048) as server:
        (result,) = summarize([path], endpoints=[server.url], max_words=50)
    assert result.summary.how == "parts"
    assert len(server.bodies) == len(result.summary.parts) + 1
    assert all(len(b["messages"][0]["content"]) < 3 * 2048 for b in server.bodies)


def test_an_answer_of_another_form_is_a_failure(documents: list[Path]) -> None:
    with serving(lambda body, number: (200, {"hello": "world"})) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert isinstance(result.outcome, Failure) and "another form" in result.outcome.message


def test_servers_with_different_models_are_refused(documents: list[Path]) -> None:
    with serving() as one, serving(model="other") as two, pytest.raises(BatchError, match="different models"):
        list(summarize(documents, endpoints=[one.url, two.url]))


def test_a_redirect_is_not_followed_and_the_key_stays(documents: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving() as thief, serving(lambda body, number: (302, {}), headers={"Location": f"{thief.url}/v1"}) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
        assert (thief.keys, len(server.keys)) == ([], 1)
    assert isinstance(result.outcome, Failure) and "it redirects to http://127.0.0.1" in result.outcome.message


@pytest.mark.parametrize("wish", ["999999999", "²", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_server_cannot_choose_a_long_pause(documents: list[Path], monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setattr(endpoint_module, "LONGEST_PAUSE_S", 0.001)
    with serving(lambda body, number: (429, {}) if number == 1 else answer(body, number), headers={"Retry-After": wish}) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert result.ok


@pytest.mark.parametrize("data", [[1], {"choices": ["x"]}, {"choices": [{"message": {"content": [1]}}]}, None])
def test_answers_of_wrong_types(documents: list[Path], data: Any) -> None:
    with serving(lambda body, number: (200, data)) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert isinstance(result.outcome, Failure) and "another form" in result.outcome.message


@pytest.mark.parametrize("usage", [[1], {"prompt_tokens": 1e999, "completion_tokens": "x"}, {"prompt_tokens": 10**30}])
def test_counts_that_cannot_be_are_none(documents: list[Path], usage: Any) -> None:
    good = {"choices": [{"message": {"content": "A summary."}}], "usage": usage}
    with serving(lambda body, number: (200, good)) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert result.ok and result.summary.usage.prompt_tokens == 0


def test_an_answer_without_end_is_given_up(documents: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(endpoint_module, "TRIES", 2)
    with serving(lambda body, number: (200, {"choices": "x" * (2 << 20)})) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url])
    assert isinstance(result.outcome, Failure) and "longer than 1 MiB" in result.outcome.message


def test_an_answer_that_drips_is_given_up_as_a_whole(documents: list[Path]) -> None:
    with serving(drip=True) as server:
        (result,) = summarize(documents[:1], endpoints=[server.url], limits=Limits(answer_s=1))
        with pytest.raises(ExchangeError, match="no whole answer in 1 s"):
            exchange(f"{server.url}/v1/chat/completions", {}, {}, most_bytes=1 << 20, limit_s=1)
    assert isinstance(result.outcome, Failure) and result.outcome.code == "timeout"


def test_no_server_is_one_sentence(documents: list[Path]) -> None:
    with pytest.raises(BatchError, match="No server answers at http://127.0.0.1:9/v1"):
        list(summarize(documents, endpoints=["http://127.0.0.1:9"], limits=Limits(answer_s=2)))


def test_results_are_resumed_by_model_and_not_by_address(documents: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with serving() as one:
        assert len(list(summarize(documents, endpoints=[one.url], output=out))) == 6
    with serving() as two:
        assert list(summarize(documents, endpoints=[two.url], output=out)) == []


def test_a_stop_does_not_wait_for_a_server_that_never_answers(documents: list[Path]) -> None:
    asked, release = threading.Event(), threading.Event()

    def never(body: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        asked.set()
        release.wait(60)
        return answer(body, number)

    with serving(never) as server:
        assert list(summarize(documents, endpoints=[server.url], should_stop=asked.is_set)) == []
        assert not release.is_set()
        release.set()
