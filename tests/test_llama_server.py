"""llama-server built from the patched source (`make llama-server`): several texts beyond the trained window at a time, right or refused.

Skipped where it isn't built.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support.fixture_model import WINDOW, passkey_prompt
from support.scripted_model import make_scripted_model
from support.served import PATIENCE_S

from selfextend_local.engine.plan import ContextPlan
from selfextend_local.errors import LibraryError
from selfextend_local.positions import GroupAttention, choose, fixed
from selfextend_local.server.slots import LlamaServer, SlotsPlan, environment, program

pytestmark = [pytest.mark.process, pytest.mark.native]

SLOTS = 4
LENGTH = 4 * WINDOW
GROUPS = choose(LENGTH, WINDOW, progressive=True)
Server = Callable[..., httpx.Client]


@contextmanager
def started(
    model: Path, *flags: str, groups: GroupAttention = GROUPS, slots: int = SLOTS, n_ctx: int = SLOTS * LENGTH
) -> Iterator[httpx.Client]:
    try:
        command = [str(program()), "--model", str(model), "--parallel", str(slots), "--ctx-size", str(n_ctx)]
    except LibraryError:
        pytest.skip("llama-server isn't built: make llama-server")
    command += ["--kv-unified", "--threads", "1", "--batch-size", "512", "--fit", "off", "--cache-ram", "0", "--no-ui", "--slots", *flags]
    failed: list[LibraryError] = []
    context = ContextPlan(n_ctx, WINDOW, n_ctx, groups, "f16", None)
    server = LlamaServer(command, environment(SlotsPlan(context, slots, 0.0)))
    server.start(failed.append)
    try:
        server.wait()
        transport = httpx.HTTPTransport(uds=str(server.socket))
        with httpx.Client(transport=transport, base_url="http://llama", timeout=PATIENCE_S) as http:
            yield http
    finally:
        server.stop()
    assert not failed


@pytest.fixture(scope="module")
def http(fixture_model: Path) -> Iterator[httpx.Client]:
    with started(fixture_model) as client:
        yield client


def completed(http: httpx.Client, prompt: str, **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def key_in(text: str) -> list[str]:
    return re.findall(r"\d{5}", text)[:1]


def test_three_windows_are_read_in_every_slot_at_a_time(http: httpx.Client) -> None:
    prompts = [passkey_prompt(seed, 3 * WINDOW, 0.5) for seed in range(2, 2 + SLOTS)]
    alone = [completed(http, prompt, id_slot=0)["choices"][0]["text"] for prompt, _ in prompts]
    assert sum(key in text for (_, key), text in zip(prompts, alone, strict=True)) >= SLOTS - 1
    together: dict[int, str] = {}

    def ask(number: int) -> None:
        together[number] = completed(http, prompts[number][0], cache_prompt=False)["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(SLOTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [key_in(together[number]) for number in range(SLOTS)] == [key_in(text) for text in alone]


def test_without_groups_nothing_is_found_there(fixture_model: Path) -> None:
    with started(fixture_model, groups=fixed(1, None, WINDOW)) as http:
        answer = http.post("/v1/completions", json={"prompt": passkey_prompt(2, 3 * WINDOW, 0.5)[0], "max_tokens": 8})
        assert answer.status_code == 400  # a slot ends where the trained window does
        assert http.get("/slots").json()[0]["n_ctx"] == WINDOW


def test_a_slot_ends_where_the_groups_do(fixture_model: Path, http: httpx.Client) -> None:
    assert {slot["n_ctx"] for slot in http.get("/slots").json()} == {min(SLOTS * LENGTH, GROUPS.capacity(WINDOW))}
    few = fixed(2, None, WINDOW)
    with started(fixture_model, groups=few) as other:
        reach = few.capacity(WINDOW)
        assert {slot["n_ctx"] for slot in other.get("/slots").json()} == {reach}
        answer = other.post("/v1/completions", json={"prompt": passkey_prompt(2, reach + 50, 0.5)[0], "max_tokens": 8})
        assert answer.status_code == 400 and str(reach) in answer.text


@pytest.mark.parametrize("length", [WINDOW // 4, 3 * WINDOW])
def test_several_answers_begin_with_the_same_prompt(http: httpx.Client, length: int) -> None:
    prompt, key = passkey_prompt(2, length, 0.5)
    one = completed(http, prompt, n_predict=8)["choices"][0]["text"]
    choices = completed(http, prompt, n=3, cache_prompt=False)["choices"]
    assert [key_in(choice["text"]) for choice in choices] == [[key]] * 3 == [key_in(one)] * 3


def test_a_prefix_that_is_cached_counts_once(http: httpx.Client) -> None:
    prompt, key = passkey_prompt(5, 3 * WINDOW, 0.5)
    completed(http, prompt, id_slot=1)
    again = completed(http, prompt + " ", id_slot=1)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 2 * WINDOW


def test_a_slots_state_is_saved_and_restored_elsewhere(fixture_model: Path, tmp_path: Path) -> None:
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    with started(fixture_model, "--slot-save-path", str(tmp_path)) as http:
        first = completed(http, prompt, id_slot=0)["choices"][0]["text"]
        assert http.post("/slots/0?action=save", json={"filename": "kept"}).status_code == 200
        assert http.post("/slots/2?action=restore", json={"filename": "kept"}).status_code == 200
        again = completed(http, prompt, id_slot=2)
    assert key in first and key in again["choices"][0]["text"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 2 * WINDOW


def test_a_text_that_shifts_goes_on(fixture_model: Path) -> None:
    """With --context-shift the oldest half goes when a slot is full; what is near is read on."""
    with started(fixture_model, "--context-shift", n_ctx=LENGTH, slots=1) as http:
        prompt, _ = passkey_prompt(2, LENGTH - 300, 0.1)
        answer = completed(http, prompt, max_tokens=300, ignore_eos=True, cache_prompt=False)
        assert answer["usage"]["completion_tokens"] == 300
        tail, key = passkey_prompt(3, 300, 0.5)
        assert key in completed(http, tail, cache_prompt=False)["choices"][0]["text"]


def test_chunks_that_are_used_again_are_moved_rightly(fixture_model: Path) -> None:
    """With --cache-reuse a text that has lost its beginning keeps the keys of the rest."""
    with started(fixture_model, "--cache-reuse", "64", slots=1, n_ctx=LENGTH) as http:
        prompt, key = passkey_prompt(2, 3 * WINDOW, 0.6)
        assert key in completed(http, "In the beginning there was a word, and nobody heard it.\n" + prompt)["choices"][0]["text"]
        again = completed(http, prompt)
        assert key in again["choices"][0]["text"]
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > WINDOW


@pytest.mark.parametrize("kind", ["draft", "ngram"])
def test_drafts_change_nothing(fixture_model: Path, http: httpx.Client, kind: str) -> None:
    flags = ["--model-draft", str(fixture_model)] if kind == "draft" else ["--spec-type", "ngram-simple"]
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    with started(fixture_model, *flags, slots=1, n_ctx=LENGTH) as drafting:
        found = completed(drafting, prompt, max_tokens=24)["choices"][0]["text"]
    assert key_in(found) == [key] == key_in(completed(http, prompt, max_tokens=24)["choices"][0]["text"])


def test_fitting_to_the_memory_takes_the_groups_along(fixture_model: Path) -> None:
    prompt, key = passkey_prompt(2, 3 * WINDOW, 0.5)
    with started(fixture_model, "--fit", "on") as http:
        assert key in completed(http, prompt)["choices"][0]["text"]


def test_caches_of_their_own_are_refused(fixture_model: Path) -> None:
    with pytest.raises(LibraryError, match="kv-unified"), started(fixture_model, "--no-kv-unified"):
        pass


@contextmanager
def serving(model: Path, home: Path) -> Iterator[httpx.Client]:
    """A client of `selfextend serve --parallel 2`."""
    try:
        program()
    except LibraryError:
        pytest.skip("llama-server isn't built: make llama-server")
    places = {f"SELFEXTEND_{name}_DIR": str(home / name) for name in ("DATA", "STATE")}
    words = ["serve", "--model", str(model), "--need-tokens", str(LENGTH), "--port", "0", "--parallel", "2", "--no-cache"]
    command = [sys.executable, "-c", "from selfextend_cli.main import main; main()", *words]
    log = home / "log"
    with log.open("w") as stream, subprocess.Popen(command, env=os.environ | places, stdout=stream, stderr=stream) as process:
        try:
            while not (ready := re.search(r"Ready: (http\S+)", log.read_text(encoding="utf-8"))):
                assert process.poll() is None, log.read_text(encoding="utf-8")
            assert "2 slots without documents" in log.read_text(encoding="utf-8")
            with httpx.Client(base_url=ready[1], timeout=PATIENCE_S) as http:
                yield http
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0


def test_selfextend_serve_answers_two_at_a_time_and_a_document_besides(fixture_model: Path, tmp_path: Path) -> None:
    with serving(fixture_model, tmp_path) as http:
        check_serve(http)


def check_serve(http: httpx.Client) -> None:
    asked = [passkey_prompt(seed, 3 * WINDOW, 0.5) for seed in (2, 3, 4)]
    found: dict[int, str] = {}

    def chat(prompt: str, **fields: Any) -> str:
        message = {"role": "user", "content": prompt.removesuffix(" The pass key is")}
        body = {"messages": [message], "max_tokens": 16, **fields}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def ask(number: int) -> None:
        found[number] = chat(asked[number][0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    text, _, question = asked[2][0].rpartition("\n")
    document = http.post("/v1/documents", files={"file": ("text.txt", text.encode())}).json()["id"]
    found[2] = chat(question, document_ids=[document])
    for thread in threads:
        thread.join()
    assert [key in found[number] for number, (_, key) in enumerate(asked)] == [True] * 3
    message = {"role": "user", "content": "Hello?"}
    for form in ({"type": "json_schema", "json_schema": {"schema": UNITS}}, {"type": "json_object", "schema": UNITS}):
        answer = http.post("/v1/chat/completions", json={"messages": [message], "response_format": form, "max_tokens": 600}).json()
        assert json.loads(answer["choices"][0]["message"]["content"])["unit"] in ("metre", "foot")
    assert http.post("/v1/messages", json={"messages": [message], "max_tokens": 4}).json()["role"] == "assistant"
    assert http.post("/v1/responses", json={"input": "Hello?", "max_output_tokens": 4}).json()["object"] == "response"
    assert "llamacpp:" in http.get("/metrics").text


TOOL_TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call functions, whose signatures are within <tools></tools>:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
For each call return a JSON object within <tool_call></tool_call>:
<tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
CALL = ["<tool_call>\n", '{"name": ', '"measure", ', '"arguments": ', '{"unit": ', '"foot"}}', "\n</tool_call>"]
UNITS = {"type": "object", "properties": {"unit": {"enum": ["metre", "foot"]}}, "required": ["unit"]}
TOOLS: Any = [{"type": "function", "function": {"name": "measure", "description": "Length of the room.", "parameters": UNITS}}]
ASKED: Any = [{"role": "user", "content": "How long is the room?"}]


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a server whose model calls a tool whatever is asked."""
    folder = tmp_path_factory.mktemp("tools")
    model = make_scripted_model(folder / "tools.gguf", {"\n": CALL}, template=TOOL_TEMPLATE, trained_window=2048)
    with serving(model, folder) as http:
        yield openai.OpenAI(base_url=str(http.base_url.join("/v1")), api_key="none", timeout=PATIENCE_S)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools_are_called_and_their_results_read(with_tools: openai.OpenAI, choice: Any) -> None:
    create = with_tools.chat.completions.create
    (answer,) = create(model="any", messages=ASKED, tools=TOOLS, tool_choice=choice).choices
    assert answer.finish_reason == "tool_calls" and answer.message.tool_calls
    (call,) = answer.message.tool_calls
    assert call.type == "function" and (call.function.name, json.loads(call.function.arguments)) == ("measure", {"unit": "foot"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Six metres, of which two are carpet."}
    longer = create(model="any", messages=[*ASKED, answer.message, result], tools=TOOLS)
    shorter = create(model="any", messages=ASKED, tools=TOOLS)
    assert longer.usage and shorter.usage and longer.usage.prompt_tokens > shorter.usage.prompt_tokens + len(result["content"])


def test_tools_are_called_in_a_stream(with_tools: openai.OpenAI) -> None:
    chunks = with_tools.chat.completions.create(model="any", messages=ASKED, tools=TOOLS, stream=True)
    calls = [call.function for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or [] if call.function]
    assert calls[0].name == "measure" and json.loads("".join(call.arguments or "" for call in calls)) == {"unit": "foot"}


def test_other_interfaces_call_them_too(with_tools: openai.OpenAI) -> None:
    function: Any = TOOLS[0]["function"]
    response = with_tools.responses.create(model="any", input="How long?", tools=[{"type": "function", **function}])
    assert [item.type for item in response.output][-1:] == ["function_call"]
    tool = {"name": "measure", "description": "", "input_schema": UNITS}
    body = {"messages": ASKED, "max_tokens": 100, "tools": [tool]}
    message = httpx.post(f"{with_tools.base_url}messages", json=body, timeout=PATIENCE_S).json()
    assert message["stop_reason"] == "tool_use" and message["content"][-1]["input"] == {"unit": "foot"}


def test_tools_beside_documents_are_refused(with_tools: openai.OpenAI, tmp_path: Path) -> None:
    url = str(with_tools.base_url).rstrip("/")
    document = httpx.post(f"{url}/documents", files={"file": ("a.txt", b"Nothing happened. " * 20)}, timeout=PATIENCE_S).json()["id"]
    with pytest.raises(openai.BadRequestError, match="Tools aren't supported here"):
        with_tools.chat.completions.create(model="any", messages=ASKED, tools=TOOLS, extra_body={"document_ids": [document]})
