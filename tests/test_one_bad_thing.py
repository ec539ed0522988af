"""One bad line, name, chat file or pipe costs itself alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from selfextend_cli.flags.schema import SchemaFile, parsed
from selfextend_cli.main import group
from support.fake_state import FakeState, with_header

from selfextend_local.batch.answering import prompt_of
from selfextend_local.batch.items import from_paths, from_requests
from selfextend_local.batch.outcome import Failure, Result
from selfextend_local.batch.results import results_file
from selfextend_local.batch.tables import as_table, markdown_name
from selfextend_local.documents import load_document
from selfextend_local.errors import DocumentError, SelfExtendError, SessionError
from selfextend_local.evaluation.results import Results, ResultsError
from selfextend_local.evaluation.tasks.qa_data import read_cases
from selfextend_local.server.refusals import Refused
from selfextend_local.server.shelf import Shelf
from selfextend_local.sessions import ChatStore, StateCache
from selfextend_local.storage.folders import is_ours, make_private

GOOD = {"custom_id": "good", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}]}}

LINES = {
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "long number": '{"custom_id": ' + "9" * 10_000 + "}",
    "half": '{"custom_id": "a"',
    "a surrogate": '{"custom_id": "\\ud800", "method": 1}',
    "nothing": "null",
    "values within values": json.dumps(GOOD).replace('"hi"', "[" * 500 + "]" * 500),
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_a_failure_and_the_next_one_an_item(name: str) -> None:
    bad, good = from_requests([LINES[name], json.dumps(GOOD)])
    assert isinstance(bad.problem, Failure) and len(bad.problem.message) < 300
    assert good.body == GOOD["body"] and good.problem is None
    assert len({bad.digest(), good.digest()}) == 2


@pytest.mark.parametrize("setting", ["max_tokens", "max_completion_tokens", "seed", "temperature", "top_p"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), "x", [], {}, [1], 10**400, -(10**400), -1, 1e300], ids=str)
def test_a_bad_number_is_said(setting: str, value: Any) -> None:
    try:
        _, sampling = prompt_of({"messages": GOOD["body"]["messages"], setting: value})  # type: ignore[index]
    except SelfExtendError as error:
        assert "no number" in str(error)
    else:
        assert 1 <= sampling.max_tokens <= 1 << 31 and 0 <= sampling.seed < 1 << 32


@pytest.mark.parametrize("value", ["x", 5, ["json_object"]])
def test_a_bad_response_format_is_said(value: Any) -> None:
    with pytest.raises(SelfExtendError, match="response_format"):
        prompt_of({"messages": GOOD["body"]["messages"], "response_format": value})  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": []}},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": {"a": 1}, "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}] * 2049},
    ],
)
def test_a_bad_body_is_said(body: dict[str, Any]) -> None:
    with pytest.raises(SelfExtendError):
        prompt_of({"messages": [{"role": "user", "content": "x"}], **body})


def test_a_name_that_is_no_utf8_has_a_file_of_its_own() -> None:
    names = {markdown_name(name) for name in ("\udcff.txt", "\udcfe.txt", "a.txt", "\ud800", "a\nb", "x" * 300)}
    assert len(names) == 6
    assert all(name.encode() and "/" not in name for name in names)


def test_cells_are_no_formulas() -> None:
    result = Result("=1+1", "key", Failure("code", "@SUM(1)"))
    row = as_table([result], "csv").splitlines()[1]
    assert row.startswith("'=1+1,")
    assert as_table([result], "md").count("'") == 0


@pytest.mark.parametrize("name", ["~nobody-such/x", "~", "x" * 5000, "a\0b"])
def test_odd_paths_are_errors_of_ours(name: str) -> None:
    with pytest.raises(DocumentError):
        load_document(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["pages", "~nobody-such/x.pdf", "--page", "1"],
        ["chat", "--model", "~nobody-such/x.gguf", "-p", "hi"],
        ["chat", "--models-dir", "~nobody-such/x", "--model", "small", "-p", "hi"],
    ],
)
def test_a_home_that_is_nobodys_is_refused_in_a_sentence(arguments: list[str]) -> None:
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code in (1, 2) and "error" in done.output.lower() and "bug" not in done.output, done.output


def test_a_home_that_is_nobodys_is_a_name() -> None:
    assert from_paths(["~nobody-such/x"])[0].custom_id == "~nobody-such/x"


# Chats

RECORD: dict[str, Any] = {
    "schema": 1, "model_path": "/m.gguf", "model_identity": "abc", "name": "x", "created": "2026-01-01T00:00:00+00:00",
    "updated": "2026-01-01T00:00:00+00:00", "system": None, "settings": {"ga_n": "auto", "pages": ["1-2"]},
    "documents": [{"path": "/a.txt", "sha256": "0", "title": "t", "pages": 1}],
    "messages": [{"role": "user", "text": "q", "tokens": ""}, {"role": "assistant", "text": "a", "tokens": "5 6"}],
}  # fmt: skip


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RECORD.items() if key != name}


CHATS: dict[str, str] = {
    "deep": "[" * 100_000,
    "a number": "5",
    "null": "null",
    "empty": "",
    "long digits": json.dumps(RECORD).replace('"5 6"', f'"{"9" * 5000}"'),
    "a large token": json.dumps(RECORD).replace('"5 6"', '"4294967296"'),
    "a negative token": json.dumps(RECORD).replace('"5 6"', '"-1"'),
    **{f"no {name}": json.dumps(without(name)) for name in ("schema", "updated", "messages", "documents", "model_path")},
    **{
        f"{name}: {value!r:.20}": json.dumps({**RECORD, name: value})
        for name, values in {
            "settings": ([], "x", 5, {"ga_n": []}, {"ga_n": {"a": 1}}, {"pages": 5}, {"pages": [[]]}, {"pages": "x"}),
            "system": ([], 5),
            "model_path": (5, [], "a\0b"),
            "created": (5,),
            "updated": (5, "x", "0001-01-01T00:00:00"),
            "documents": (5, [5], [{"path": 5, "sha256": "", "title": "", "pages": 1}],
                          [{"path": "", "sha256": "", "title": None, "pages": 1}], [{"path": "a"}]),
            "messages": (5, [5], [{"role": "user"}], [{"role": "user", "text": 5, "tokens": ""}]),
            "unknown": (1,),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("name", CHATS)
def test_a_damaged_chat_is_named_and_the_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.json").write_text(CHATS[name])
    (tmp_path / "good.json").write_text(json.dumps(RECORD))
    store = ChatStore(tmp_path)
    with pytest.raises(SessionError, match=r"bad\.json is damaged"):
        store.load("bad")
    assert [record.name for record in store.list()] == ["good"]
    assert len(store.notes) == 1


KEPT: dict[str, Any] = {
    "id": f"doc-{'0' * 32}", "filename": "a.pdf", "bytes": 9, "created": 1, "n_pages": 1, "labels": ["1"], "notes": [],
    "has_pictures": True, "suffix": ".pdf", "model": "m", "tokens": 5,
}  # fmt: skip
BAD_KEPT = {
    "deep": "[" * 100_000,
    "a list": "[]",
    "null": "null",
    **{f"{name}: {value!r}": json.dumps(KEPT | {name: value}) for name, value in (
        ("created", "x"), ("created", None), ("n_pages", "1"), ("n_pages", 2), ("labels", 5), ("labels", [5]), ("notes", [None]),
        ("bytes", []),
        ("filename", 5), ("model", None), ("tokens", "5"), ("suffix", "/../../other"), ("id", "doc-1"), ("unknown", 1))},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_KEPT)
def test_a_damaged_document_of_the_server_costs_itself_alone(tmp_path: Path, name: str) -> None:
    good = f"doc-{'1' * 32}"
    (tmp_path / f"{KEPT['id']}.json").write_text(BAD_KEPT[name])
    (tmp_path / f"{good}.json").write_text(json.dumps(KEPT | {"id": good}))
    shelf = Shelf(tmp_path)
    assert [kept.id for kept in shelf.all()] == [good]
    with pytest.raises(Refused, match="send its file again"):
        shelf.get(KEPT["id"])
    for pages in ("[" * 100_000, "5", '{"pages": 5}'):
        (tmp_path / f"{good}.pages").write_text(pages)
        with pytest.raises(Refused, match="send its file again"):
            shelf.document(good)


def test_a_pipe_or_somebody_elses_file_is_no_document_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / f"{KEPT['id']}.json")
    assert Shelf(tmp_path).all() == []
    (tmp_path / f"{KEPT['id']}.json").unlink()
    (tmp_path / f"{KEPT['id']}.json").write_text(json.dumps(KEPT))
    os.mkfifo(tmp_path / f"{KEPT['id']}.pages")
    with pytest.raises(Refused):
        Shelf(tmp_path).document(KEPT["id"])
    monkeypatch.setattr("selfextend_local.server.shelf.is_ours", lambda status: False)
    assert Shelf(tmp_path).all() == []


FORGED = [
    {"created": "x"}, {"created": 1e300}, {"created": -1}, {"created": None}, {"model": 5}, {"documents": [5]}, {"documents": None},
    {"group_attention": [0, 0, 0, False, 0]}, {"group_attention": ["1", 1, 1]}, {"group_attention": 5}, {"identity": []},
    {"identity": {"model": 5, "library": "x", "settings": {}, "byte_order": "little"}},
    {"identity": {"model": "m", "library": "x", "settings": [], "byte_order": "little"}},
    {"created": [[[]]] * 2},
    {"stops": [[0, 10**12]]}, {"stops": [[5, 4]]}, {"stops": [[1, 9], [2, 3]]}, {"stops": [["1", 2]]}, {"stops": 5},
]  # fmt: skip


@pytest.mark.parametrize("values", FORGED, ids=lambda values: json.dumps(values)[:60])
def test_a_state_whose_header_says_what_nobody_writes_is_removed(tmp_path: Path, values: dict[str, Any]) -> None:
    """Its checksum is right: that of a file that somebody made."""
    (tmp_path / "m.gguf").write_bytes(b"GGUF" * 100)
    cache = StateCache(tmp_path)
    assert cache.save(FakeState(tmp_path / "m.gguf", list(range(600))))  # type: ignore[arg-type]
    (path,) = tmp_path.glob("*.state")
    path.write_bytes(with_header(path.read_bytes(), lambda meta: meta | values))
    assert cache.entries() == [] and not path.exists() and "damaged" in cache.notes[0]


def test_what_is_no_file_keeps_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{'0' * 16}.state")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "good.json").write_text(json.dumps(RECORD))
    store = ChatStore(tmp_path)
    assert [record.name for record in store.list()] == ["good"]
    with pytest.raises(SessionError, match="is no file"):
        store.load("pipe")
    assert StateCache(tmp_path).entries() == []


def test_what_belongs_to_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "sessions"
    make_private(folder)
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    mine, other = os.stat(folder), os.stat_result([0o100600, 0, 0, 1, 65534, 65534, 0, 0, 0, 0])
    assert is_ours(mine) and not is_ours(other)
    (folder / f"{'0' * 16}.state").write_bytes(b"x" * 200)
    assert StateCache(folder).total_bytes() == 200
    monkeypatch.setattr("selfextend_local.storage.folders.is_ours", lambda status: False)
    monkeypatch.setattr("selfextend_local.sessions.states.is_ours", lambda status: False)
    assert StateCache(folder).total_bytes() == 0
    with pytest.raises(PermissionError, match="belongs to another user"):
        make_private(folder)


def test_json_that_is_nested_deep_is_a_sentence_wherever_it_is_read(tmp_path: Path) -> None:
    """Python's parser raises RecursionError, which is no ValueError."""
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(click.BadParameter, match="is no JSON"):
        SchemaFile().convert(str(deep), None, None)
    assert parsed(deep.read_text()) is None
    with pytest.raises(ResultsError):
        Results(deep)
    with pytest.raises(SelfExtendError):
        results_file(deep).newest()
    with pytest.raises(SelfExtendError):
        read_cases(deep)
