"""llama-server built from the patched source (`make llama-server`): several texts beyond the trained window at a time, right or refused.

Skipped where it isn't built.
"""

from __future__ import annotations

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
import pytest
from support.fixture_model import WINDOW, passkey_prompt
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


def test_selfextend_serve_answers_two_at_a_time_and_a_document_besides(fixture_model: Path, tmp_path: Path) -> None:
    try:
        program()
    except LibraryError:
        pytest.skip("llama-server isn't built: make llama-server")
    home = {f"SELFEXTEND_{name}_DIR": str(tmp_path / name) for name in ("DATA", "STATE")}
    words = ["serve", "--model", str(fixture_model), "--need-tokens", str(LENGTH), "--port", "0", "--parallel", "2", "--no-cache"]
    command = [sys.executable, "-c", "from selfextend_cli.main import main; main()", *words]
    log = tmp_path / "log"
    with log.open("w") as stream, subprocess.Popen(command, env=os.environ | home, stdout=stream, stderr=stream) as process:
        try:
            while not (ready := re.search(r"Ready: (http\S+)", log.read_text(encoding="utf-8"))):
                assert process.poll() is None, log.read_text(encoding="utf-8")
            assert "2 slots without documents" in log.read_text(encoding="utf-8")
            with httpx.Client(base_url=ready[1], timeout=PATIENCE_S) as http:
                check_serve(http)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0


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
    assert http.post("/v1/messages", json={"messages": [message], "max_tokens": 4}).json()["role"] == "assistant"
    assert http.post("/v1/responses", json={"input": "Hello?", "max_output_tokens": 4}).json()["object"] == "response"
    assert "llamacpp:" in http.get("/metrics").text
