"""`selfextend serve --parallel`: what goes to llama-server and what doesn't, and how the two begin and end together.

A fake stands for llama-server; tests/test_llama_server.py has the real one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import fake_llama_server
from support.scripted_model import make_scripted_model
from support.served import PATIENCE_S, Served, served

from selfextend_local.engine import machine
from selfextend_local.engine.peek import ModelPeek
from selfextend_local.engine.plan import Memory, Settings
from selfextend_local.errors import GroupAttentionError, LibraryError, MemoryBudgetError
from selfextend_local.server import slots
from selfextend_local.server.app import Limits
from selfextend_local.server.guard import Access
from selfextend_local.server.slots import PROGRAM_VARIABLE, LlamaServer, slots_plan

pytestmark = [pytest.mark.native, pytest.mark.process]


def fake(folder: Path) -> LlamaServer:
    return LlamaServer([sys.executable, fake_llama_server.__file__, str(folder / "left")], dict(os.environ))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", {"1": ["Ours", "."]}, trained_window=2048)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(model: Path, home: Path) -> Iterator[Served]:
    access, limits = Access(key="s3cret"), Limits(body_bytes=1 << 20)
    with served(model, shelf=home / "documents", slots=fake(home), access=access, limits=limits) as running:
        yield running


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_has_no_documents_goes_to_llama_server(server: Served) -> None:
    for path in ("chat/completions", "completions", "responses", "messages", "messages/count_tokens"):
        body = {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}
        assert server.http.post(f"/v1/{path}", json=body).json() == {"path": f"/v1/{path}", "body": body, "key": None}
    assert server.http.post("/v1/completions", json={"refuse": True}).status_code == 418


def test_what_names_documents_goes_to_the_model(server: Served) -> None:
    text = b"Nothing happened. " * 20
    document = server.http.post("/v1/documents", files={"file": ("a.txt", text)}).json()["id"]
    assert server.chat("Which? 1", document_ids=[document]).json()["choices"][0]["message"]["content"] == "Ours."
    assert server.chat("Which? 1", document_ids=[document], tools=[{"type": "function"}]).json()["error"]["param"] == "tools"


def test_what_llama_server_alone_has(server: Served) -> None:
    assert server.http.get("/props?a=b").json() == {"path": "/props?a=b"}
    assert server.http.post("/tokenize", json={"content": "x"}).json()["path"] == "/tokenize"
    assert server.http.get("/models/load").status_code == 404
    metrics = server.http.get("/metrics").text
    assert "selfextend_answers_total" in metrics and '"/metrics"' in metrics


def test_the_key_is_asked_for_here(server: Served) -> None:
    bare = httpx.Client(base_url=server.url)
    assert [bare.get(path).status_code for path in ("/props", "/slots", "/metrics", "/v1/x")] == [401] * 4
    assert bare.post("/v1/chat/completions", json={}).status_code == 401


LONG = {"type": "string", "maxLength": 20_000}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat/completions", {"response_format": {"type": "json_schema", "json_schema": {"schema": LONG}}}, "response_format"),
        ("chat/completions", {"response_format": {"type": "json_object", "schema": LONG}}, "response_format"),
        ("chat/completions", {"tools": [{"type": "function", "function": {"name": "x", "parameters": LONG}}]}, "tools"),
        ("messages", {"tools": [{"name": "x", "input_schema": LONG}]}, "tools"),
        ("responses", {"text": {"format": {"type": "json_schema", "schema": LONG}}}, "text"),
        ("completions", {"json_schema": LONG}, "json_schema"),
        ("completions", {"grammar": 'root ::= ("a"'}, "grammar"),
    ],
)
def test_what_would_keep_llama_server_busy_is_refused_here(server: Served, path: str, fields: dict[str, Any], param: str) -> None:
    """A schema of 300,000 values stopped all slots for good: llama-server makes its grammars in the thread that answers."""
    answer = server.http.post(f"/v1/{path}", json=fields).json()
    assert answer["error"]["param"] == param
    assert "path" in server.http.post("/v1/completions", json={"grammar": 'root ::= "a"', "json_schema": {"type": "string"}}).json()


def test_limits_are_those_of_this_server(server: Served) -> None:
    for path in ("/v1/chat/completions", "/tokenize"):
        assert server.http.post(path, content=b" " * (1 << 20 | 1)).status_code == 413
    assert server.http.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "invalid_json"


def test_a_client_that_leaves_is_left_there_too(server: Served, home: Path) -> None:
    with server.http.stream("POST", "/v1/chat/completions", json={"stream": True}) as answer:
        assert next(answer.iter_lines()) == "data: {}"
    until((home / "left").exists)


def test_what_takes_too_long_is_ended(model: Path, tmp_path: Path) -> None:
    with served(model, slots=fake(tmp_path), limits=Limits(seconds=0.3)) as running:
        with pytest.raises(httpx.HTTPError):
            running.chat("x", stream=True)
        until((tmp_path / "left").exists)


def test_the_server_ends_when_llama_server_does(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=f"code 3.*{fake_llama_server.LAST_WORDS}"), served(model, slots=fake(tmp_path)) as running:
        assert running.chat("x", end=True).json()["error"]["code"] == "engine_failed"


def test_a_start_that_fails_is_said(model: Path, tmp_path: Path) -> None:
    broken = LlamaServer([sys.executable, "-c", "import sys; sys.exit('error: no such flag')"], dict(os.environ))
    with pytest.raises(LibraryError, match="no such flag"), served(model, slots=broken):
        pass
    with pytest.raises(LibraryError, match="make llama-server"):
        LlamaServer([str(tmp_path / "missing")], {}).start(lambda error: None)


def test_the_plan_of_slots(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(need_tokens=6000, kv_type="f16")
    with ModelPeek(model) as peek:
        documents = peek.plan(settings)
        plan = slots_plan(peek, settings, 3, documents)
        assert plan.context.group_attention.progressive and plan.context.capacity >= 6000
        assert plan.describe().startswith("3 slots without documents, 6,") and "no recall" in plan.describe()
        flags = slots.arguments(model, "name", plan, 2, 99)
        assert flags[flags.index("--ctx-size") + 1] == str(3 * plan.context.n_ctx)
        assert slots.environment(plan)["LLAMA_GROUP_ATTN_MODE"] == "progressive"
        with pytest.raises(GroupAttentionError, match="--parallel"):
            slots_plan(peek, Settings(ga_mode="recall"), 3, documents)
        assert documents.kv_bytes is not None
        monkeypatch.setattr(slots, "free_memory", lambda: Memory(5 * documents.kv_bytes))
        assert slots_plan(peek, settings, 3, documents)
        with pytest.raises(MemoryBudgetError, match="--parallel 3"):
            slots_plan(peek, settings, 9, documents)
        monkeypatch.setattr(slots, "free_memory", lambda: Memory(documents.kv_bytes))
        with pytest.raises(MemoryBudgetError, match="leave --parallel out"):
            slots_plan(peek, settings, 1, documents)


def test_the_program_is_the_one_of_this_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEXTEND_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv(PROGRAM_VARIABLE, raising=False)
    with pytest.raises(LibraryError, match="make llama-server"):
        slots.program()
    for name in ("0.0.1+other-1", f"{machine.library_version()}-1"):
        (tmp_path / "programs" / name).mkdir(parents=True)
        (tmp_path / "programs" / name / "llama-server").touch()
    assert slots.program().parent.name == f"{machine.library_version()}-1"
    monkeypatch.setenv(PROGRAM_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(LibraryError, match=PROGRAM_VARIABLE):
        slots.program()
