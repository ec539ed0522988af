"""The server's chat interface, as clients see it: OpenAI's shapes, refusals, who may ask, who leaves, and who is next."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from support.scripted_model import THINKING_TEMPLATE, make_scripted_model
from support.served import PATIENCE_S, Served, served

from selfextend_local.generation.sampling import Sampling
from selfextend_local.positions import MICRO_BATCH
from selfextend_local.server import refusals, turns
from selfextend_local.server.app import Limits
from selfextend_local.server.bodies import within
from selfextend_local.server.guard import Access
from selfextend_local.server.refusals import Refused
from selfextend_local.server.requests import chat_request
from selfextend_local.server.turns import Work, Worker

pytestmark = [pytest.mark.native, pytest.mark.slow]

SCRIPTS = {"1": ["The ", "key ", "is ", "48213", "."], "2": ["on ", "and ", ...]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", SCRIPTS, trained_window=2048)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model, limits=Limits(body_bytes=1 << 20)) as running:
        yield running


@pytest.fixture
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE_S, max_retries=0)


def asked(question: str) -> Any:
    return [{"role": "user", "content": question}]


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "code", "param"} and found["message"].endswith((".", "…"))
    return answer.status_code, found["code"], found["param"]


def test_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=asked("The key? 1"))
    assert answer.choices[0].message.content == "The key is 48213."
    assert (answer.choices[0].finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "scripted")
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


def test_an_answer_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="", messages=asked("Which? 1"), stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The key is 48213."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant" and len({c.id for c in chunks}) == 1
    assert not chunks[-1].choices and chunks[-1].usage is not None and all(c.usage is None for c in chunks[:-1])


def test_a_stream_ends_with_done_and_has_usage_only_if_asked(server: Served) -> None:
    lines = server.chat("Which? 1", stream=True).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""] and "usage" not in "".join(lines)


def test_progress_is_told_if_asked(server: Served) -> None:
    answer = server.chat("x" * 1400 + " 1", stream=True, return_progress=True)
    told = [json.loads(line[6:]) for line in answer.text.split("\n\n") if "prompt_progress" in line]
    progress = [chunk["prompt_progress"] for chunk in told]
    assert len(progress) > 2 and all(chunk["choices"][0]["delta"] == {} for chunk in told)
    assert progress[-1]["processed"] == progress[-1]["total"] > 1400 and set(progress[0]) == {"total", "cache", "processed", "seconds_left"}
    assert [p["processed"] for p in progress] == sorted(p["processed"] for p in progress)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens(server: Served, limit: str) -> None:
    answer = server.chat("On? 2", **{limit: 3}).json()
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 3


def test_stop_texts(server: Served) -> None:
    for stop in ("48", ["nothing", "48"]):
        choice = server.chat("Which? 1", stop=stop).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("The key is ", "stop")


def test_a_loop_is_ended_and_said(server: Served) -> None:
    answer = server.chat("On? 2", max_tokens=1500).json()
    assert answer["choices"][0]["finish_reason"] == "stop" and answer["selfextend"]["stop_reason"] == "loop"


def test_content_in_parts_roles_and_unknown_fields(server: Served) -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": None},
            {"role": "user", "content": [{"type": "text", "text": "Which "}, {"type": "text", "text": "key? 1"}]},
        ],
        "parallel_tool_calls": False, "user": "me", "something": {"new": 1}, "tools": [], "n": 1, "logprobs": False,
        "temperature": 0.5, "seed": 7, "top_p": 0.9, "response_format": {"type": "text"},
    }  # fmt: skip
    answer = server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "The key is 48213."


def test_an_empty_system_message_is_none(server: Served) -> None:
    def tokens(*messages: tuple[str, str]) -> int:
        body = {"messages": [{"role": role, "content": text} for role, text in messages], "max_tokens": 1}
        return int(server.http.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"])

    assert tokens(("system", ""), ("user", "Which? 1")) == tokens(("user", "Which? 1")) < tokens(("system", "x"), ("user", "Which? 1"))


def test_lone_surrogates_cost_nothing(server: Served) -> None:
    content = b'{"messages": [{"role": "user", "content": "\\ud800 Which? 1"}], "\\ud800": 1}'
    assert server.http.post("/v1/chat/completions", content=content).json()["choices"][0]["message"]["content"] == "The key is 48213."
    content = b'{"messages": [{"role": "\\ud800", "content": "x"}]}'
    assert error_of(server.http.post("/v1/chat/completions", content=content))[0] == 400


@pytest.mark.slow
def test_an_answer_by_a_schema_ends_where_the_schema_does(fixture_model: Path) -> None:
    """Where its text is complete a grammar allows every token that ends answers; the likeliest of them wasn't among those of the file."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    with served(fixture_model, need_tokens=512) as server:
        answer = server.chat("Hi", response_format={"type": "json_schema", "json_schema": {"schema": schema}}, max_tokens=200).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["a"] in (1, 2)
    assert answer["choices"][0]["finish_reason"] == "stop" and answer["usage"]["completion_tokens"] < 40


def test_a_schema_is_followed(server: Served) -> None:
    schema = {"type": "object", "properties": {"a": {"const": "b"}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert json.loads(server.chat("As JSON? 1", response_format=form).json()["choices"][0]["message"]["content"]) == {"a": "b"}
    assert server.chat("As JSON? 1", response_format={"type": "json_object"}, max_tokens=9).status_code == 200


def test_openai_parses_what_it_asked_for(client: openai.OpenAI) -> None:
    class Found(pydantic.BaseModel):
        key: Literal["48213"]

    answer = client.chat.completions.parse(model="", messages=asked("As JSON? 1"), response_format=Found)
    assert answer.choices[0].message.parsed == Found(key="48213")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 17}, "invalid_value", "n"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 5000}, "invalid_value", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid_value", "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_value", "messages[0].content"),
        ({"temperature": "hot"}, "invalid_value", "temperature"),
        ({"temperature": -1}, "invalid_value", "temperature"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"seed": 1.5}, "invalid_value", "seed"),
        ({"stop": [""]}, "invalid_value", "stop"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"document_ids": "doc-1"}, "invalid_value", "document_ids"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}, "invalid_value", "response_format"),
    ],
)  # fmt: skip
def test_what_cant_be_done_is_refused_with_its_field(server: Served, fields: dict[str, Any], code: str, param: str) -> None:
    for stream in ({}, {"stream": True}):
        assert error_of(server.chat("Which? 1", **stream | fields)) == (400, code, param)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "text", "role", "content", "schema"]), inner),
    max_leaves=8,
)
FIELDS = ("messages", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "dry", "seed",
          "stop", "response_format", "document_ids", "n", "tools", "return_progress", "logprobs", "logit_bias")  # fmt: skip
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]), "content": VALUES}), max_size=3)


@given(st.fixed_dictionaries({}, optional={name: VALUES for name in FIELDS} | {"messages": MESSAGES | VALUES}))
def test_whatever_is_asked_is_taken_or_refused(body: dict[str, Any]) -> None:
    try:
        request = chat_request(body, Sampling())
    except Refused as refused:
        assert refused.status == 400 and json.dumps(refusals.body(refused), ensure_ascii=False).encode()
    else:
        assert request.messages and request.sampling.max_tokens >= 1 and 0 <= request.sampling.seed < 1 << 32


@pytest.mark.parametrize("depth", [150, 300, 600, *range(880, 1000, 10)])
def test_values_within_values_are_taken_or_refused(server: Served, depth: int) -> None:
    """Wherever Python's readers and writers give up: one that reads a body may be far from one that writes it."""
    schema = '{"a":' * depth + "{}" + "}" * depth
    messages = '"messages": [{"role": "user", "content": "Which? 1"}]'
    content = f'{{{messages}, "response_format": {{"type": "json_object", "schema": {schema}}}}}'
    assert server.http.post("/v1/chat/completions", content=content).status_code == 400


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"temperature": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json(server: Served, data: bytes) -> None:
    assert error_of(server.http.post("/v1/chat/completions", content=data)) == (400, "invalid_json", None)


def test_too_long_is_refused_with_figures(server: Served, client: openai.OpenAI) -> None:
    capacity = server.model.capacity
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="", messages=asked("word " * capacity), stream=True)
    assert raised.value.code == "context_length_exceeded" and f"the context holds {capacity:,}" in str(raised.value)
    assert "--need-tokens" in str(raised.value)


def test_an_answer_ends_where_the_context_does(server: Served) -> None:
    prompt = server.chat("x" * 1000 + " 2", max_tokens=1).json()["usage"]["prompt_tokens"]
    fill = "x" * (1000 + server.model.capacity - prompt - 4) + " 2"
    answer = server.chat(fill, max_tokens=100).json()
    assert answer["choices"][0]["finish_reason"] == "length" and answer["selfextend"]["stop_reason"] == "context"
    assert answer["usage"]["total_tokens"] == server.model.capacity


@pytest.mark.parametrize("stated", [b"9" * 5000, b"-1", b"1e3", "²".encode("latin-1"), b""])
def test_a_length_that_is_none(stated: bytes) -> None:
    """Whoever parses HTTP may let them through."""
    with pytest.raises(Refused, match="more than 9 bytes"):
        within(Request({"type": "http", "headers": [(b"content-length", stated)]}), 9, "--flag")


def test_a_body_that_is_too_large(server: Served) -> None:
    assert error_of(server.http.post("/v1/chat/completions", content=b" " * (1 << 20 | 1)))[:2] == (413, "too_large")
    chunks = (b" " * 65536 for _ in range(40))
    assert error_of(server.http.post("/v1/chat/completions", content=chunks))[:2] == (413, "too_large")


def test_the_model_and_its_health(server: Served, client: openai.OpenAI) -> None:
    assert server.http.get("/health").json() == {"status": "ok"}
    (found,) = client.models.list().data
    assert found.id == client.models.retrieve("scripted").id == "scripted"
    ours = server.http.get("/v1/models").json()["data"][0]["selfextend"]
    assert ours == {"plan": server.model.plan.describe(), "n_ctx": server.model.capacity, "trained_window": 2048}
    assert error_of(server.http.get("/v1/models/other"))[:2] == (404, "model_not_found")


def test_what_isnt_there(server: Served) -> None:
    assert error_of(server.http.get("/v1/nothing")) == (404, "not_found", None)
    assert error_of(server.http.get("/v1/chat/completions")) == (405, "method_not_allowed", None)


def test_the_page_asks_nobody_else(server: Served) -> None:
    for path, kind in {"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"}.items():
        answer = server.http.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_of_another_site_is_refused(server: Served) -> None:
    assert error_of(server.http.get("/v1/models", headers={"host": "evil.example"})) == (403, "wrong_host", None)
    assert error_of(server.http.get("/", headers={"host": "evil.example"})) == (403, "wrong_host", None)
    for origin in ("http://[", "http://[::1", "//", ":"):  # Python's parser raises ValueError for the first two
        assert error_of(server.http.get("/v1/models", headers={"origin": origin})) == (403, "wrong_origin", None)
    for origin in ("https://evil.example", "null", server.url.replace("http", "https", 1).replace("127.0.0.1", "evil.example")):
        assert error_of(server.http.get("/v1/models", headers={"origin": origin})) == (403, "wrong_origin", None)
    assert server.http.get("/v1/models", headers={"origin": server.url}).status_code == 200
    assert server.http.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200


def test_a_key_and_an_origin_that_may_ask(model: Path) -> None:
    access = Access(key="s3cret", names=("box.example",), origins=("https://ui.example",))
    with served(model, access=access) as running:
        assert running.http.get("/v1/models").status_code == 200
        for wrong in ("", "Bearer", "Bearer other", "Basic s3cret", "s3cret", "Bearer schlüssel"):
            answer = running.http.get("/v1/models", headers={"authorization": wrong.encode()})
            assert error_of(answer) == (401, "invalid_api_key", None)
        bare = httpx.Client(base_url=running.url)
        assert [bare.get(path).status_code for path in ("/health", "/", "/page.js", "/page.css")] == [200] * 4
        assert bare.get("/v1/models").status_code == 401
        there = running.http.get("/v1/models", headers={"origin": "https://ui.example", "host": "box.example"})
        assert there.status_code == 200 and there.headers["access-control-allow-origin"] == "https://ui.example"
        preflight = bare.options("/v1/chat/completions", headers={"origin": "https://ui.example"})
        assert preflight.status_code == 204 and "authorization" in preflight.headers["access-control-allow-headers"]


def test_thoughts_are_told_from_the_answer(tmp_path: Path) -> None:
    thinking = make_scripted_model(
        tmp_path / "thinking.gguf", {}, default=["I ", "wonder", ".", "</think>", "Yes", "!"], template=THINKING_TEMPLATE
    )
    with served(thinking) as running:
        message = running.chat("Is it?").json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("Yes!", "I wonder.")
        chunks = [json.loads(line[6:]) for line in running.chat("Is it?", stream=True).text.split("\n\n")[:-2]]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(d.get("reasoning_content", "") for d in deltas) == "I wonder."


class Held:
    """Holds each evaluation of a model until it is let go, and counts the tokens."""

    def __init__(self, running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evaluated = 0
        self.go = threading.Event()
        llm = running.model.llm
        self._many, self._one = llm._evaluate, llm._evaluate_next
        monkeypatch.setattr(llm, "_evaluate", self._evaluate)
        monkeypatch.setattr(llm, "_evaluate_next", self._evaluate_next)

    def _evaluate(self, chunk: Any) -> None:
        self.evaluated += len(chunk)
        assert self.go.wait(PATIENCE_S)
        self._many(chunk)

    def _evaluate_next(self, token: int) -> None:
        self.evaluated += 1
        assert self.go.wait(PATIENCE_S)
        self._one(token)


@contextmanager
def asking(server: Served, question: str, **fields: Any) -> Iterator[None]:
    """A client that has asked, and leaves at the end of the block."""
    body = json.dumps({"messages": asked(question), **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        yield


@pytest.fixture
def withdrawn(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """The works whose clients have left, or got their answers."""
    found: list[Work] = []
    withdraw = Worker.withdraw

    def noted(worker: Worker, work: Work) -> None:
        withdraw(worker, work)
        found.append(work)

    monkeypatch.setattr(Worker, "withdraw", noted)
    return found


def until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


ENDLESS = {"max_tokens": 1900, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string"}}}}


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_stops_the_work(server: Served, monkeypatch: pytest.MonkeyPatch, withdrawn: list[Work], stream: bool) -> None:
    held = Held(server, monkeypatch)
    with asking(server, "x" * 1500 + " 1", stream=stream):
        until(lambda: held.evaluated)
    until(lambda: withdrawn)
    held.go.set()
    assert server.chat("Which? 1", max_tokens=1).json()["usage"]["completion_tokens"] == 1
    assert held.evaluated <= 2 * MICRO_BATCH


def test_who_leaves_while_the_answer_comes_stops_it(server: Served, monkeypatch: pytest.MonkeyPatch, withdrawn: list[Work]) -> None:
    held = Held(server, monkeypatch)
    with asking(server, "On? 2", **ENDLESS):
        until(lambda: held.evaluated)
        held.go.set()
        until(lambda: held.evaluated > 30)
        held.go.clear()
    until(lambda: withdrawn)
    before = held.evaluated
    held.go.set()
    assert server.chat("Which? 1", max_tokens=1).status_code == 200
    assert held.evaluated < before + 30


def test_who_waits_and_leaves_is_passed_over(server: Served, monkeypatch: pytest.MonkeyPatch, withdrawn: list[Work]) -> None:
    held = Held(server, monkeypatch)
    with asking(server, "Who waits? 1", max_tokens=1):
        until(lambda: held.evaluated)
        with asking(server, "y" * 1500 + " 1"):
            until(lambda: server.serving.waiting)
        until(lambda: withdrawn)
        held.go.set()
        until(lambda: len(withdrawn) == 2)
    assert server.chat("Which? 1", max_tokens=1).status_code == 200
    assert held.evaluated < 1000


def test_a_full_line_is_refused(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST_WAITING", 1)
    held = Held(server, monkeypatch)
    with asking(server, "Who is in line? 1"):
        until(lambda: held.evaluated)
        with asking(server, "And behind? 1"):
            until(lambda: server.serving.waiting)
            answer = server.chat("Which? 1")
            held.go.set()
    assert error_of(answer) == (503, "busy", None) and answer.headers["retry-after"]


def test_what_takes_too_long_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(model, limits=Limits(seconds=1e-6)) as running:
        assert error_of(running.chat("Which? 1")) == (504, "timeout", None)
        streamed = running.chat("Which? 1", stream=True).text.split("\n\n")
        assert json.loads(streamed[-2][6:])["error"]["code"] == "timeout"


def test_a_stop_of_the_server_ends_answers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[httpx.Response] = []

    def ask(url: str) -> None:
        body = {"messages": asked("Which? 1")}
        got.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S))

    with served(model) as running:
        held = Held(running, monkeypatch)
        asking = [threading.Thread(target=ask, args=(running.url,)) for _ in range(2)]
        for thread in asking:
            thread.start()
        until(lambda: held.evaluated and running.serving.waiting)
        running.serving.stop()
        held.go.set()
        for thread in asking:
            thread.join()
    assert [error_of(answer) for answer in got] == [(503, "server_stopping", None)] * 2


def test_clients_take_turns() -> None:
    done: list[str] = []
    worker = Worker(lambda: None, lambda: None)

    async def submit() -> None:
        for client in "aaabbc":
            worker.submit(Work(client, lambda work: done.append(work.client), 600))

    asyncio.run(submit())
    worker.start()
    until(lambda: len(done) == 6)
    worker.stop()
    assert done == list("abcaba")


def test_many_at_once_each_get_their_own_answer(server: Served) -> None:
    got: dict[int, str] = {}

    def ask(number: int) -> None:
        question = f"{'n' * (number * 40)} Which? {number % 2 + 1}"
        got[number] = server.chat(question, max_tokens=6).json()["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: "on and on and on and " if n % 2 else "The key is 48213." for n in range(16)}
