"""The server's other interfaces: texts to be continued, OpenAI's responses, Anthropic's messages, several answers, figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_model import THINKING_TEMPLATE, make_scripted_model
from support.served import PATIENCE_S, Served, served

from selfextend_local.generation.sampling import Sampling
from selfextend_local.server.guard import Access
from selfextend_local.server.messages import message_request
from selfextend_local.server.refusals import Refused
from selfextend_local.server.requests import text_request
from selfextend_local.server.responses import response_request

pytestmark = [pytest.mark.native, pytest.mark.slow]

SCRIPTS = {"1": ["The ", "key ", "is ", "48213", "."], "2": ["on ", "and ", ...], "3": [" then", " more"]}
ANSWER = "The key is 48213."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", SCRIPTS, trained_window=2048)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, shelf=tmp_path_factory.mktemp("home") / "documents") as running:
        yield running


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("models") / "thinking.gguf"
    default = ["I ", "wonder", ".", "</think>", "Yes", "!"]
    with served(make_scripted_model(path, {}, default=default, template=THINKING_TEMPLATE)) as running:
        yield running


@pytest.fixture
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture(scope="module")
def document(server: Served) -> str:
    text = b"Nothing happened. " * 20 + b"The key of the north vault is 48213. "
    return str(server.http.post("/v1/documents", files={"file": ("report.txt", text)}).raise_for_status().json()["id"])


def messages(server: Served, question: Any, **fields: Any) -> httpx.Response:
    body = {"model": "any", "max_tokens": 100, "messages": [{"role": "user", "content": question}], **fields}
    return server.http.post("/v1/messages", json=body)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Of a stream, each of which is named by its type."""
    found = []
    for lines in answer.text.split("\n\n")[:-1]:
        name, data = lines.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_several_answers_are_those_of_their_seeds(server: Served) -> None:
    choices = server.chat("Which? 1", n=3).json()
    assert [(c["index"], c["message"]["content"]) for c in choices["choices"]] == [(i, ANSWER) for i in range(3)]
    assert choices["usage"]["completion_tokens"] == 15
    assert choices["usage"]["prompt_tokens"] == server.chat("Which? 1").json()["usage"]["prompt_tokens"]
    hot: dict[str, Any] = {"temperature": 5.0, "min_p": 0, "top_p": 1, "top_k": 0, "max_tokens": 6}
    both = [c["message"]["content"] for c in server.chat("Hot? 1", n=2, seed=7, **hot).json()["choices"]]
    alone = [server.chat("Hot? 1", seed=seed, **hot).json()["choices"][0]["message"]["content"] for seed in (7, 8)]
    assert both == alone and both[0] != both[1]


def test_several_answers_in_pieces(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    asked: Any = [{"role": "user", "content": "Which? 1"}]
    chunks = list(client.chat.completions.create(model="", messages=asked, n=2, stream=True, stream_options=options))
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [ANSWER, ANSWER] and chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 10
    assert [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason] == [0, 1]


def test_a_text_is_continued(client: openai.OpenAI, server: Served) -> None:
    answer = client.completions.create(model="", prompt="On it goes 3", echo=True)
    assert answer.choices[0].text == "On it goes 3 then more" and answer.object == "text_completion"
    assert client.completions.create(model="", prompt=["3"]).choices[0].text == " then more"
    chunks = list(client.completions.create(model="", prompt="3", n=2, stream=True))
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop", "stop"]
    assert "".join(c.choices[0].text for c in chunks) == " then more then more"
    # no template is put around it, and its special tokens are such
    raw = server.http.post("/v1/completions", json={"prompt": "<|user|>3", "max_tokens": 1}).json()
    assert raw["usage"]["prompt_tokens"] == 3 < server.chat("xyz3", max_tokens=1).json()["usage"]["prompt_tokens"]


def test_a_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="any", input="Which? 1", instructions="Be short.")
    assert response.output_text == ANSWER and response.status == "completed"
    assert response.usage is not None and response.usage.output_tokens == 5
    first, last = {"role": "user", "content": [{"type": "input_text", "text": "Which? 1"}]}, {"role": "user", "content": "On? 2"}
    turns: Any = [first, *response.output, last]
    response = client.responses.create(model="any", input=turns, max_output_tokens=3)
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.output_text == "on and on " and response.incomplete_details.reason == "max_output_tokens"


def test_a_response_in_pieces(client: openai.OpenAI) -> None:
    with client.responses.stream(model="any", input="Which? 1") as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert response.output_text == ANSWER
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]


def test_a_schema_in_a_response(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"const": "b"}}, "required": ["a"], "additionalProperties": False}
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    assert json.loads(client.responses.create(model="", input="As JSON? 1", text=text).output_text) == {"a": "b"}


def test_a_message(server: Served) -> None:
    found = messages(server, [{"type": "text", "text": "Which? 1"}], system=[{"type": "text", "text": "Be short."}]).json()
    assert found["content"] == [{"type": "text", "text": ANSWER}] and (found["type"], found["role"]) == ("message", "assistant")
    assert (found["stop_reason"], found["stop_sequence"], found["usage"]["output_tokens"]) == ("end_turn", None, 5)
    again = messages(server, [{"type": "text", "text": "Which? 1"}], system="Be short.").json()["usage"]
    assert again["input_tokens"] == 1 and again["input_tokens"] + again["cache_read_input_tokens"] == sum(
        found["usage"][name] for name in ("input_tokens", "cache_read_input_tokens")
    )
    body = {"messages": [{"role": "user", "content": "Which? 1"}], "system": "Be short."}
    counted = server.http.post("/v1/messages/count_tokens", json=body)
    assert counted.json() == {"input_tokens": again["input_tokens"] + again["cache_read_input_tokens"]}


def test_why_a_message_ended(server: Served) -> None:
    found = messages(server, "Which? 1", stop_sequences=["nothing", "48"]).json()
    assert (found["content"][0]["text"], found["stop_reason"], found["stop_sequence"]) == ("The key is ", "stop_sequence", "48")
    assert messages(server, "On? 2", max_tokens=3).json()["stop_reason"] == "max_tokens"


def test_a_message_in_pieces(server: Served) -> None:
    told = [event for event in events(messages(server, "Which? 1", stream=True)) if event["type"] != "ping"]
    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["message_start", "content_block_start"] and set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(event["delta"]["text"] for event in told[2:-3]) == ANSWER
    assert told[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None} and told[-2]["usage"]["output_tokens"] == 5


def test_thoughts_have_blocks_of_their_own(thinker: Served) -> None:
    blocks = messages(thinker, "Is it?").json()["content"]
    assert blocks == [{"type": "thinking", "thinking": "I wonder.", "signature": ""}, {"type": "text", "text": "Yes!"}]
    told = [event for event in events(messages(thinker, "Is it?", stream=True)) if event["type"] == "content_block_start"]
    assert [(event["index"], event["content_block"]["type"]) for event in told] == [(0, "thinking"), (1, "text")]
    items = thinker.http.post("/v1/responses", json={"input": "Is it?"}).json()["output"]
    assert [(item["type"], item["content"][0]["text"]) for item in items] == [("reasoning", "I wonder."), ("message", "Yes!")]
    told = events(thinker.http.post("/v1/responses", json={"input": "Is it?", "stream": True}))
    assert [item["type"] for item in told[-1]["response"]["output"]] == ["reasoning", "message"]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    # they come back with the next question, and aren't read again
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": blocks}, {"role": "user", "content": "Sure?"}]
    answer = thinker.http.post("/v1/messages", json={"messages": turns, "max_tokens": 9})
    assert answer.json()["content"][-1]["text"] == "Yes!"
    answer = thinker.http.post("/v1/responses", json={"input": [turns[0], *items, turns[2]]})
    assert answer.json()["output"][-1]["content"][0]["text"] == "Yes!"


def test_documents_in_every_interface(server: Served, document: str) -> None:
    asked: dict[str, Any] = {"document_ids": [document]}
    chat = server.chat("Which? 1", **asked).json()["usage"]["prompt_tokens"]
    message = messages(server, "Which? 1", **asked).json()
    response = server.http.post("/v1/responses", json={"input": "Which? 1", **asked}).json()
    assert chat == response["usage"]["input_tokens"] == message["usage"]["input_tokens"] + message["usage"]["cache_read_input_tokens"]
    assert message["citations"] == response["citations"] == []  # the document has no pages
    assert messages(server, "Which? 1", document_ids=["doc-0"]).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("completions", {"prompt": ["a", "b"]}, "prompt"),
        ("completions", {"prompt": [1, 2]}, "prompt"),
        ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("completions", {"prompt": "a", "document_ids": ["doc-1"]}, "document_ids"),
        ("completions", {"prompt": "a", "logprobs": 5}, "logprobs"),
        ("completions", {"prompt": "a", "n": 99}, "n"),
        ("responses", {"input": []}, "input"),
        ("responses", {"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", {"input": "a", "tools": [{"type": "function", "name": "f"}]}, "tools"),
        ("responses", {"input": [{"type": "function_call_output"}]}, "input[0]"),
        ("messages", {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}]}, "tools"),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content"),
        ("messages", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ("messages", {"messages": [{"role": "user", "content": "a"}], "system": 5}, "system"),
    ],
)  # fmt: skip
def test_what_cant_be_done_is_refused(server: Served, path: str, fields: dict[str, Any], param: str) -> None:
    for stream in ({}, {"stream": True}):
        answer = server.http.post(f"/v1/{path}", json=stream | fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param) and error["message"].endswith((".", "…"))
        if path == "messages":
            assert answer.json()["type"] == "error" and error["type"] == "invalid_request_error"


def test_too_long_is_refused_with_figures(server: Served) -> None:
    long = "word " * server.model.capacity
    asked = {"completions": {"prompt": long}, "responses": {"input": long}, "messages": {"messages": [{"role": "user", "content": long}]}}
    for path, body in asked.items():
        answer = server.http.post(f"/v1/{path}", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
        assert f"{server.model.capacity:,}" in answer.json()["error"]["message"]


def test_embeddings_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="embedding model") as raised:
        client.embeddings.create(model="any", input="x")
    assert raised.value.status_code == 501


def test_figures_count(server: Served) -> None:
    def value(name: str) -> float:
        lines = server.http.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"selfextend_{name} ")))

    before = value("answers_total"), value("completion_tokens_total")
    server.chat("Which? 1", n=2)
    assert (value("answers_total"), value("completion_tokens_total")) == (before[0] + 2, before[1] + 10)
    assert value("context_tokens") == server.model.capacity and value("requests_waiting") == 0


def test_a_key_in_anthropics_header(model: Path) -> None:
    with served(model, access=Access(key="s3cret")) as running:
        bare = httpx.Client(base_url=running.url)
        assert bare.get("/v1/models", headers={"x-api-key": "s3cret"}).status_code == 200
        assert bare.get("/v1/models", headers={"x-api-key": "other"}).status_code == 401
        assert bare.get("/metrics").status_code == 401


KEYS = st.sampled_from(["type", "text", "role", "content", "format", "schema"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)
FIELDS = ("input", "instructions", "text", "system", "messages", "stop_sequences", "max_output_tokens", "max_tokens", "prompt", "n", "echo")


@given(st.fixed_dictionaries({}, optional={name: VALUES for name in FIELDS}))
def test_whatever_is_asked_is_taken_or_refused(body: dict[str, Any]) -> None:
    for understood in (text_request, response_request, message_request):
        try:
            request = understood(body, Sampling())
        except Refused as refused:
            assert refused.status == 400
        else:
            assert bool(request.messages) != (request.text is not None)
