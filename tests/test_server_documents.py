"""Documents over HTTP: sent once, read once, asked about after a restart, and the pages that answers name."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from support.fixture_model import FIXTURE_MODEL, NOISE_LINE, WINDOW
from support.scripted_model import make_scripted_model
from support.served import PATIENCE_S, Served, served

from selfextend_local.documents.document import Document, Page
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import ReaderCrashed
from selfextend_local.positions import MICRO_BATCH
from selfextend_local.server import turns
from selfextend_local.server.app import Limits
from selfextend_local.server.citing import citations_of
from selfextend_local.server.turns import Worker
from selfextend_local.sessions import StateCache

pytestmark = [pytest.mark.native, pytest.mark.slow]

FACT = "The key of the north vault is 48213."
SCRIPTS = {
    "1": ["The key of ", "the north vault ", "is 48213", " [page ii]", "."],
    "2": ["The key is 99999", " [page i]!"],
    "3": ["The key of the north vault is 48213"],
    "4": ["Nobody found the key of the south vault"],
}
FILLER = "Nothing happened on this day, and nobody wrote a word of it. "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scripted_model(tmp_path_factory.mktemp("models") / "scripted.gguf", SCRIPTS, trained_window=8192)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for text in (FILLER * 6, FILLER * 3 + FACT + " " + FILLER * 3, FILLER * 6):
        pdf.add_page(label_style="r")
        pdf.multi_cell(0, 6, text)
    path = tmp_path_factory.mktemp("documents") / "report.pdf"
    pdf.output(str(path))
    return path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("home")
    with served(model, shelf=folder / "documents", cache=StateCache(folder / "states"), limits=Limits(upload_bytes=1 << 20)) as running:
        yield running


def sent(server: Served, path: Path, name: str | None = None) -> dict[str, Any]:
    with path.open("rb") as file:
        answer = server.http.post("/v1/documents", files={"file": (name or path.name, file)})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def document(server: Served, report: Path) -> dict[str, Any]:
    return sent(server, report)


def test_a_document_is_described(server: Served, document: dict[str, Any], report: Path) -> None:
    expected = {"object": "document", "filename": "report.pdf", "bytes": report.stat().st_size, "n_pages": 3, "labels": ["i", "ii", "iii"],
                "has_pictures": True, "notes": []}  # fmt: skip
    assert expected.items() <= document.items() and document["tokens"] > 1000
    assert set(document) == {*expected, "id", "created", "tokens"} and abs(document["created"] - time.time()) < 3600
    assert server.http.get("/v1/documents").json() == {"object": "list", "data": [document]}
    assert server.http.get(f"/v1/documents/{document['id']}").json() == document


def test_the_same_contents_are_one_document(server: Served, document: dict[str, Any], report: Path) -> None:
    assert sent(server, report, "other.pdf") == document


def test_how_it_goes_is_told(server: Served, report: Path, tmp_path: Path) -> None:
    other = tmp_path / "told.pdf"
    other.write_bytes(report.read_bytes() + b"\n%another\n")
    answer = server.http.post("/v1/documents", files={"file": other.open("rb")}, headers={"accept": "text/event-stream"})
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: ")]
    assert list(dict.fromkeys(event["stage"] for event in events)) == ["reading", "prefill", "done"]
    assert [e for e in events if e["stage"] == "reading"][-1] == {"stage": "reading", "done": 3, "total": 3}
    prefill = [e for e in events if e["stage"] == "prefill"][-1]
    assert prefill["done"] == prefill["total"] and set(prefill) == {"stage", "done", "total", "seconds_left"}
    assert server.http.delete(f"/v1/documents/{events[-1]['document']['id']}").json()["deleted"] is True


def test_pages_as_text(server: Served, document: dict[str, Any]) -> None:
    page = server.http.get(f"/v1/documents/{document['id']}/pages/2").json()
    assert (page["page"], page["label"]) == (2, "ii") and FACT in " ".join(page["text"].split())
    for number in ("0", "4", "99999999999"):
        assert code_of(server.http.get(f"/v1/documents/{document['id']}/pages/{number}")) == (404, "page_not_found")


def test_pages_as_pictures(server: Served, document: dict[str, Any]) -> None:
    pages = f"/v1/documents/{document['id']}/pages"
    for find, page, marked in (("key of the north vault", 2, "1"), ("key of the north vault", 1, "0"), ("", 2, "0"), ("?!", 2, "0")):
        answer = server.http.get(f"{pages}/{page}.png", params={"find": find, "width": 500})
        assert (answer.status_code, answer.headers["content-type"], answer.headers["x-marked"]) == (200, "image/png", marked)
        assert abs(Image.open(io.BytesIO(answer.content)).width - 500) <= 1
    assert server.http.get(f"{pages}/2.png").headers["x-marked"] == "0"
    assert code_of(server.http.get(f"{pages}/4.png")) == (404, "page_not_found")
    assert code_of(server.http.get(f"{pages}/1.png?width=1e9")) == (400, "invalid_value")


@pytest.mark.parametrize("number", ["0", "2.5", "9" * 5000, "-1", "x", "²", "%00"])
def test_odd_numbers_of_pages_are_refused(server: Served, document: dict[str, Any], number: str) -> None:
    for suffix in ("", ".png"):
        answer = server.http.get(f"/v1/documents/{document['id']}/pages/{number}{suffix}")
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "page_not_found" and len(answer.text) < 400
    for width in (number, "49", "4001"):
        answer = server.http.get(f"/v1/documents/{document['id']}/pages/1.png", params={"width": width})
        assert answer.status_code == 400 and len(answer.text) < 400
    answer = server.http.get(f"/v1/documents/{document['id']}/pages/1.png", params={"find": ["a"] * 500})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "find"


def test_an_answer_about_a_document_cites_it(server: Served, document: dict[str, Any]) -> None:
    answer = server.chat("The key? 1", document_ids=[document["id"]]).json()
    (citation,) = answer["choices"][0]["message"]["citations"]
    assert citation["document_id"] == document["id"] and (citation["page"], citation["label"], citation["verified"]) == (2, "ii", True)
    assert " ".join(citation["quote"].split()) == FACT
    assert answer["choices"][0]["message"]["content"][citation["start"] : citation["end"]] == "[page ii]" and citation["named"]


def test_a_citation_says_where_on_the_page(server: Served, document: dict[str, Any]) -> None:
    """Its boxes lie where the picture of the page is marked."""
    (citation,) = server.chat("The key? 1", document_ids=[document["id"]]).json()["choices"][0]["message"]["citations"]
    page = f"/v1/documents/{document['id']}/pages/2.png"
    plain, marked = (
        np.asarray(Image.open(io.BytesIO(server.http.get(page, params={"width": 800, **find}).content)), dtype=int)
        for find in ({}, {"find": citation["quote"]})
    )
    changed = (plain != marked).any(axis=2)
    within = np.zeros_like(changed)
    height, width = changed.shape
    for left, top, right, bottom in citation["boxes"]:
        assert 0 < left < right < 1 and 0 < top < bottom < 1
        within[int(top * height) - 3 : int(bottom * height) + 4, int(left * width) - 3 : int(right * width) + 4] = True
    assert changed.any() and not (changed & ~within).any()
    (false,) = server.chat("The key? 2", document_ids=[document["id"]]).json()["choices"][0]["message"]["citations"]
    assert false["boxes"] == []


def test_boxes_are_looked_for_within_limits() -> None:
    pages = tuple(Page(n, str(n), f"The key of vault {n} is {48213 + n}.") for n in range(1, 31))
    document = Document(Path("a.pdf"), "a.pdf", pages, (), paged=True)
    asked: list[tuple[str, int, str]] = []

    def places(*place: Any) -> list[list[float]]:
        asked.append(place)
        return [[0.1, 0.1, 0.2, 0.2]]

    answer = " ".join(f"The key of vault {n} is {48213 + n} [page {n}]." for n in (1, *range(1, 31)))
    citations = citations_of(answer, {"doc-1": document}, places)
    assert len(citations) == 31 and all(one["verified"] for one in citations)
    assert len(asked) == len(set(asked)) == 20  # each place once
    assert [bool(one["boxes"]) for one in citations] == [True] * 21 + [False] * 10

    def crashes(*place: Any) -> list[list[float]]:
        asked.append(place)
        raise ReaderCrashed("The page can't be drawn.")

    asked.clear()
    assert [one["boxes"] for one in citations_of(answer, {"doc-1": document}, crashes)] == [[]] * 31
    assert len(asked) == 1


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PDF of six windows of the fixture model, with the key on its fifth page."""
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for number in range(1, 13):
        pdf.add_page(label_style="r")
        pdf.multi_cell(0, text="\n\n".join([*[NOISE_LINE] * 6, FACT.replace("key", "pass key") if number == 5 else "", *[NOISE_LINE] * 6]))
    path = tmp_path_factory.mktemp("documents") / "vaults.pdf"
    pdf.output(str(path))
    return path


def test_by_recall_an_answer_says_at_which_pages_the_model_looked(vaults: Path, tmp_path: Path) -> None:
    """Whatever page the answer names. Asked again, and in each interface, it is the same."""
    question = "What is the pass key of the north vault?"
    with served(FIXTURE_MODEL, shelf=tmp_path, need_tokens=8 * WINDOW, ga_mode="recall") as server:
        id = sent(server, vaults)["id"]
        message = server.chat(question, document_ids=[id]).json()["choices"][0]["message"]
        assert "48213" in message["content"]
        (looked,) = message["looked_at"]
        assert looked == {"document_id": id, "page": 5, "label": "v", "weight": looked["weight"]} and 0.5 < looked["weight"] <= 1
        both = server.chat(question, document_ids=[id], n=2, temperature=0.1).json()["choices"]
        assert [choice["message"]["looked_at"] for choice in both] == [[looked]] * 2
        chunks = [json.loads(line[6:]) for line in server.chat(question, document_ids=[id], stream=True).text.split("\n\n")[:-2]]
        assert [chunk.get("looked_at") for chunk in chunks] == [None] * (len(chunks) - 1) + [[looked]]
        answer = server.http.post("/v1/responses", json={"input": question, "document_ids": [id]}).json()
        assert answer["looked_at"] == [looked]
        asked = {"max_tokens": 40, "messages": [{"role": "user", "content": question}], "document_ids": [id]}
        assert server.http.post("/v1/messages", json=asked).json()["looked_at"] == [looked]
        assert "looked_at" not in server.chat(question).json()["choices"][0]["message"]
        greeted = [{"role": "assistant", "content": "Good day."}, {"role": "user", "content": question}]
        again = server.http.post("/v1/chat/completions", json={"messages": greeted, "document_ids": [id]}).json()
        assert again["choices"][0]["message"]["looked_at"][0]["page"] == 5


def test_without_recall_no_page_was_looked_at(server: Served, document: dict[str, Any]) -> None:
    assert server.chat("The key? 1", document_ids=[document["id"]]).json()["choices"][0]["message"]["looked_at"] == []


def test_a_wrong_citation_is_said(server: Served, document: dict[str, Any]) -> None:
    (citation,) = server.chat("The key? 2", document_ids=[document["id"]]).json()["choices"][0]["message"]["citations"]
    assert (citation["page"], citation["verified"], citation["quote"]) == (1, False, None)


def test_an_answer_without_pages_gets_those_that_bear_it_out(server: Served, document: dict[str, Any]) -> None:
    (citation,) = server.chat("The key? 3", document_ids=[document["id"]]).json()["choices"][0]["message"]["citations"]
    assert (citation["page"], citation["verified"]) == (2, True) and " ".join(citation["quote"].split()) == FACT
    assert server.chat("The key? 4", document_ids=[document["id"]]).json()["choices"][0]["message"]["citations"] == []
    assert "citations" not in server.chat("The key? 1").json()["choices"][0]["message"]


def test_a_stream_cites_at_its_end(server: Served, document: dict[str, Any]) -> None:
    lines = server.chat("The key? 1", document_ids=[document["id"]], stream=True).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines[:-2]]
    assert [bool(chunk.get("citations")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["citations"][0]["page"] == 2


def test_after_a_restart_only_the_question_is_read(model: Path, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home: Any = dict(shelf=tmp_path / "documents", cache=StateCache(tmp_path / "states"))
    with served(model, **home) as running:
        document = sent(running, report)
    evaluated: list[int] = []
    evaluate = SelfExtendLlama._evaluate
    monkeypatch.setattr(SelfExtendLlama, "_evaluate", lambda self, chunk: (evaluated.append(len(chunk)), evaluate(self, chunk))[1])
    with served(model, **home) as running:
        assert running.http.get("/v1/documents").json()["data"] == [document]
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", timeout=PATIENCE_S)
        for question in ("What is the key? 1", "And which key is it, please? 1"):
            evaluated.clear()
            answer = client.chat.completions.create(
                model="", messages=[{"role": "user", "content": question}], extra_body={"document_ids": [document["id"]]}
            )
            assert answer.choices[0].message.content == "The key of the north vault is 48213 [page ii]."
            assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
            cached = answer.usage.prompt_tokens_details.cached_tokens
            assert cached is not None and cached >= document["tokens"]
            assert evaluated[0] == answer.usage.prompt_tokens - cached <= len(question) + 8


def test_a_chat_without_documents_leaves_no_state(server: Served) -> None:
    before = [entry.id for entry in server.model._cache.entries()]  # type: ignore[union-attr]
    assert server.chat(f"{FILLER * 20} 1", stream=True).status_code == 200
    server.model._reader.flush()
    assert [entry.id for entry in server.model._cache.entries()] == before  # type: ignore[union-attr]


def test_another_document_in_between_costs_nothing(server: Served, document: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(f"{FILLER * 20}", encoding="utf-8")
    second = sent(server, other)
    assert (second["labels"], second["has_pictures"]) == (["1"], False)
    for one in (document, second, document):
        usage = server.chat("The key? 1", document_ids=[one["id"]]).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= one["tokens"]
    assert code_of(server.http.get(f"/v1/documents/{second['id']}/pages/1.png")) == (404, "no_picture")
    both = server.chat("The key? 1", document_ids=[document["id"], second["id"]]).json()
    assert both["usage"]["prompt_tokens"] > document["tokens"] + second["tokens"] - 100
    assert both["choices"][0]["message"]["citations"][0]["document_id"] == document["id"]
    assert server.http.delete(f"/v1/documents/{second['id']}").status_code == 200


def test_a_removed_document_is_gone_and_its_state_too(server: Served, report: Path, tmp_path: Path) -> None:
    def kept_of(title: str) -> list[str]:
        entries = server.model._cache.entries()  # type: ignore[union-attr]
        return [name for entry in entries for name in entry.info.documents if title in name]

    path = tmp_path / "secret.txt"
    path.write_text(f"Secret {FILLER * 30}", encoding="utf-8")
    document = sent(server, path)
    assert kept_of("ecret")
    assert server.http.delete(f"/v1/documents/{document['id']}").json() == {"id": document["id"], "object": "document", "deleted": True}
    assert not kept_of("ecret")
    for answer in (
        server.http.get(f"/v1/documents/{document['id']}"),
        server.http.delete(f"/v1/documents/{document['id']}"),
        server.chat("The key? 1", document_ids=[document["id"]]),
    ):
        assert code_of(answer) == (404, "document_not_found")
    again = sent(server, path)
    usage = server.chat("The key? 1", document_ids=[again["id"]]).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= again["tokens"]
    server.http.delete(f"/v1/documents/{document['id']}")


def test_a_document_that_doesnt_fit_is_refused_with_figures(model: Path, report: Path, tmp_path: Path) -> None:
    with served(model, shelf=tmp_path / "documents", need_tokens=600, n_ctx=None) as running:
        answer = running.http.post("/v1/documents", files={"file": report.open("rb")})
        assert code_of(answer) == (400, "context_length_exceeded") and "--need-tokens" in answer.json()["error"]["message"]
        assert running.http.get("/v1/documents").json()["data"] == []
        streamed = running.http.post("/v1/documents", files={"file": report.open("rb")}, headers={"accept": "text/event-stream"})
        last = json.loads(streamed.text.split("\n\n")[-2][6:])
        assert (last["stage"], last["error"]["code"]) == ("error", "context_length_exceeded")


def test_what_cant_be_read_is_refused(server: Served, tmp_path: Path) -> None:
    def send(name: str, data: bytes) -> httpx.Response:
        return server.http.post("/v1/documents", files={"file": (name, data)})

    damaged = send("broken.pdf", b"%PDF-1.7 nothing")
    assert code_of(damaged) == (400, "invalid_document") and "broken.pdf" in damaged.json()["error"]["message"]
    assert "/tmp" not in damaged.text
    assert code_of(send("empty.txt", b"")) == (400, "invalid_document")
    assert code_of(send("large.txt", b"x" * (1 << 20)))[0] == 413
    assert code_of(server.http.post("/v1/documents", json={})) == (400, "invalid_value")
    assert code_of(server.http.post("/v1/documents", files={"other": b"x"})) == (400, "invalid_value")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert code_of(server.http.post("/v1/documents", content=b"--y\r\n", headers=headers)) == (400, "invalid_value")
    for id in ("doc-1", "..%2f..%2fetc", "doc-" + "0" * 32):
        assert code_of(server.http.get(f"/v1/documents/{id}"))[0] == 404


def test_a_name_that_is_no_text(server: Served) -> None:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="\xff\xfe\xed\xa0\x80.txt"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = server.http.post("/v1/documents", content=head + FILLER.encode() + b"\r\n--x--\r\n", headers=headers)
    assert answer.status_code in (201, 400)
    if answer.status_code == 201:
        server.http.delete(f"/v1/documents/{answer.json()['id']}")


@pytest.mark.parametrize("name", ["../../evil.txt", "..\\evil.txt", "", ".", "a" * 300 + ".txt", "nul\0.txt", "/etc/passwd"])
def test_a_name_stays_in_its_folder(server: Served, name: str, tmp_path: Path) -> None:
    data = f"{name!r} {FILLER}".encode()
    document = server.http.post("/v1/documents", files={"file": (name or "x", data)}).json()
    assert "/" not in document["filename"] and "\\" not in document["filename"] and len(document["filename"]) < 140
    server.http.delete(f"/v1/documents/{document['id']}")


@pytest.mark.parametrize("evicted", [False, True])
def test_a_long_document_lets_a_question_go_first(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evicted: bool
) -> None:
    """And is not read again for that; neither when it is sent, nor when it is asked about and its state is gone."""
    monkeypatch.setattr(turns, "FIRST_TURN_S", 0.0)
    path = tmp_path / "long.txt"
    path.write_text(f"Long {FILLER * 60}", encoding="utf-8")
    document = sent(server, path) if evicted else {}
    if evicted:
        server.model.forget(server.serving._app._shelf.document(document["id"]))
    evaluated, go, order = [], threading.Event(), []
    evaluate = server.model.llm._evaluate

    def held(chunk: Any) -> None:
        evaluated.append(len(chunk))
        assert go.wait(PATIENCE_S)
        evaluate(chunk)

    def read() -> None:
        order.append(server.chat("The key? 1", document_ids=[document["id"]]).json() if evicted else sent(server, path))

    def ask() -> None:
        order.append(server.chat("The key? 3").json()["choices"][0]["message"]["content"])

    monkeypatch.setattr(server.model.llm, "_evaluate", held)
    reading, asking = threading.Thread(target=read), threading.Thread(target=ask)
    reading.start()
    end = time.monotonic() + PATIENCE_S
    while not evaluated and time.monotonic() < end:
        time.sleep(0.01)
    asking.start()
    while not server.serving.waiting and time.monotonic() < end:
        time.sleep(0.01)
    go.set()
    reading.join()
    asking.join()
    answer, other = order
    assert answer == "The key of the north vault is 48213"
    tokens = other["usage"]["prompt_tokens"] if evicted else other["tokens"]
    assert tokens <= sum(evaluated) < tokens + MICRO_BATCH
    server.http.delete(f"/v1/documents/{(document or other)['id']}")


def test_who_leaves_stops_the_reading_ahead(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "left.txt"
    path.write_text(f"Left {FILLER * 60}", encoding="utf-8")
    evaluated, go = [], threading.Event()
    evaluate = server.model.llm._evaluate

    def held(chunk: Any) -> None:
        evaluated.append(len(chunk))
        assert go.wait(PATIENCE_S)
        evaluate(chunk)

    withdraw, withdrawn = Worker.withdraw, []
    monkeypatch.setattr(Worker, "withdraw", lambda worker, work: (withdraw(worker, work), withdrawn.append(work))[0])
    monkeypatch.setattr(server.model.llm, "_evaluate", held)
    body = {"files": {"file": path.open("rb")}, "headers": {"accept": "text/event-stream"}}
    with httpx.stream("POST", f"{server.url}/v1/documents", timeout=PATIENCE_S, **body) as answer:  # type: ignore[arg-type]
        next(line for line in answer.iter_lines() if "prefill" in line)
    end = time.monotonic() + PATIENCE_S
    while len(withdrawn) < 2:  # the reading of the file, and that of its tokens
        assert time.monotonic() < end
        time.sleep(0.01)
    go.set()
    assert server.chat("The key? 1").status_code == 200
    assert sum(evaluated) <= 2 * MICRO_BATCH
    assert not [one for one in server.http.get("/v1/documents").json()["data"] if one["filename"] == "left.txt"]
