"""From what a user names to items: folders, patterns, lists, batch lines."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from selfextend_local.batch.items import from_paths, from_requests, names_in
from selfextend_local.errors import BatchError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.pdf", "a.txt", "sub/c.md", "sub/image.png", ".hidden/d.txt", "notes/a.txt.md"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_documents_in_order(folder: Path) -> None:
    assert [i.custom_id for i in from_paths(["in"])] == ["in/a.txt", "in/b.pdf", "in/notes/a.txt.md", "in/sub/c.md"]


def test_our_own_output_is_no_input(folder: Path) -> None:
    assert [i.custom_id for i in from_paths(["in"], leave_out=[Path("in/notes")])] == ["in/a.txt", "in/b.pdf", "in/sub/c.md"]


def test_files_named_twice_count_once_and_any_suffix_goes(folder: Path) -> None:
    assert [i.custom_id for i in from_paths(["./in/a.txt", "in", "in/sub/image.png"])][0] == "in/a.txt"
    items = from_paths(["in/a.txt", "./in/../in/a.txt", "in/sub/image.png"])
    assert [i.custom_id for i in items] == ["in/a.txt", "in/sub/image.png"]


def test_patterns(folder: Path) -> None:
    assert [i.custom_id for i in from_paths(["in/**/*.md"])] == ["in/notes/a.txt.md", "in/sub/c.md"]
    with pytest.raises(BatchError, match="No file matches"):
        from_paths(["in/*.docx"])
    (folder / "empty").mkdir()
    with pytest.raises(BatchError, match="holds no document"):
        from_paths(["empty"])


def test_a_missing_file_is_an_item_that_will_fail_and_is_new_when_it_appears(folder: Path) -> None:
    (item,) = from_paths(["in/none.pdf"])
    before = item.digest()
    (folder / "in/none.pdf").write_text("now")
    assert item.digest() != before


def test_lists_of_names() -> None:
    assert names_in("a b.pdf\n\nc.pdf\n") == ["a b.pdf", "c.pdf"]
    assert names_in("a\nb.pdf\0c.pdf\0") == ["a\nb.pdf", "c.pdf"]


def request(custom_id: str, **body: object) -> str:
    message = {"role": "user", "content": "Hello"}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [message], **body}})


def test_batch_lines() -> None:
    items = from_requests([request("one"), "", request("two", max_tokens=5)])
    assert [i.custom_id for i in items] == ["one", "two"]
    assert items[0].digest() != items[1].digest()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "Line 1 is no JSON"),
        ("[1]", "no JSON object"),
        ('{"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": {}}', "only POST /v1/chat/completions"),
        ('{"custom_id": "x", "method": "POST", "url": "/v1/chat/completions", "body": {}}', "no messages"),
        ('{"method": "POST"}', "no custom_id"),
    ],
)
def test_a_bad_batch_line_costs_itself(line: str, message: str) -> None:
    bad, good = from_requests([line, request("good")])
    assert bad.problem and message in bad.problem.message
    assert good.problem is None


def test_two_lines_with_one_id_are_refused() -> None:
    with pytest.raises(BatchError, match="'a' stands on lines 1 and 3"):
        from_requests([request("a"), request("b"), request("a")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_holds_nobody_up(folder: Path) -> None:
    os.mkfifo("in/pipe.pdf")
    assert from_paths(["in/pipe.pdf"])[0].digest()
