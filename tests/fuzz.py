"""Random damage to what comes from elsewhere: models, documents, saved states and chats, requests. `make fuzz`, or

    python tests/fuzz.py models documents states requests --count 1000 --seed 0 --jobs 4 --seconds 60

Mutants are tried in processes with limits, forked from one that has everything loaded: models and documents each in its own. Fine: a
mutant is read, or refused with an error of ours. A fault: any other exception, a crash, a hang, too much memory. For a model: the trial
of engine/opening.py lets it pass, and it ends the process later. A fault is kept below build/fuzz with its traceback, and the exit code
says whether there were any; each becomes a test. The same seed makes the same mutants, whatever --jobs is.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1"}  # a fork has none of the threads

import argparse
import asyncio
import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).parent))

from click.testing import CliRunner
from selfextend_cli import sessions
from support.fake_state import FakeState, with_header
from support.gguf_edit import Gguf, parse
from support.tiny_models import make_tiny_model

# All before the first fork, which then costs nothing.
from selfextend_local.batch.answering import prompt_of
from selfextend_local.batch.items import from_requests
from selfextend_local.batch.tables import markdown_name
from selfextend_local.documents import Document, Page, load_document
from selfextend_local.engine import opening
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.errors import SelfExtendError
from selfextend_local.generation.sampling import Sampling
from selfextend_local.server import app as server_app
from selfextend_local.server.app import App, Limits
from selfextend_local.server.guard import Access
from selfextend_local.server.refusals import Refused
from selfextend_local.server.requests import chat_request, parsed
from selfextend_local.server.shelf import Shelf
from selfextend_local.server.turns import Worker
from selfextend_local.sessions import StateCache

SECONDS, GIB = 60, 6
KEPT = Path("build/fuzz")
FIELD = Path(__file__).parent / "data" / "field"
FINE = ("read", "refused")
NUMBERS = (-1, 0, 1, 2, 3, 7, 31, 63, 64, 65, 127, 255, 256, 511, 512, 513, 1000, 4095, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e-45, 1e38, 0.5)
PIECES = (
    b"\0",
    b"\xff" * 8,
    b"<",
    b"[" * 50,
    b"9" * 400,
    b"9" * 5000,
    b"%n",
    "\u202e".encode(),
    b"\r\n",
    b"\x1b]0;x\x07",
    b"&#",
    b"{",
    b"-" * 99,
)
EMPTY: Any = (None, 5, -1, 1e999, 10**30, "", "x" * 5000, [], {}, [[]], {"a": {}}, True, "\ud800", 0.1)


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled, or the end cut; numbers and stretches exchanged for others."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(8)
        if kind == 0 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 1:
            del out[at : at + draw.choice((1, 2, 8, 100, 5000))]
        elif kind == 2:
            out[at:at] = out[at : at + draw.choice((1, 8, 100, 2000))]
        elif kind == 3:
            out[at:at] = draw.choice(PIECES)
        elif kind == 4 and (number := re.compile(rb"\d+").search(out, at)):
            out[number.start() : number.end()] = str(draw.choice(NUMBERS)).encode()
        elif kind == 5 and len(out) < 200_000:  # a stretch many times: nested, if it opens something
            out[at:at] = out[at : at + draw.choice((1, 4, 20, 60))] * draw.choice((3, 30, 1000))
        elif kind == 6:
            other = draw.randrange(len(out) + 1)
            out[at : at + 40] = out[other : other + draw.choice((4, 40, 400))]
        elif len(out) > 20 and draw.random() < 0.3:
            del out[draw.randrange(len(out)) :]
    return bytes(out)


def changed(value: object, draw: random.Random) -> object:
    """A value of JSON with parts of it exchanged, dropped or doubled."""
    if draw.random() < 0.15:
        return draw.choice(EMPTY)
    if isinstance(value, dict):
        return {key: changed(inner, draw) for key, inner in value.items() if draw.random() > 0.05}
    if isinstance(value, list):
        return [changed(inner, draw) for inner in value] * draw.choice((1, 1, 1, 2))
    return value


# What is mutated, and what is done with it


class Models:
    together = 1
    suffix = ".gguf"
    kinds = ("gqa", "swa", "hybrid", "recurrent", "partial-rotary", "qkv-bias", "mrope", "alibi", "no-rope", "some-without-rope")

    def __init__(self, folder: Path) -> None:
        self._bytes = {kind: make_tiny_model(kind, folder).read_bytes() for kind in self.kinds}

    def mutant(self, draw: random.Random) -> bytes:
        data = self._bytes[draw.choice(self.kinds)]
        if draw.random() < 0.3:
            return flipped(data[:9_000], draw) + data[9_000:]
        gguf = parse(data)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            self._change(gguf, draw)
        return gguf.dump()

    def _change(self, gguf: Gguf, draw: random.Random) -> None:
        entry = draw.choice(gguf.kv)
        key, type_ = entry[0].decode(), entry[1]
        if draw.random() < 0.2:
            gguf.drop(key)
        elif type_ == 8:
            gguf.set(key, 8, draw.choice((b"", b"x" * 300, b"\xff\xfe", b"llama", b"gpt2", b"t5", b"dream")))
        elif type_ == 6:
            gguf.set(key, 6, draw.choice(FLOATS))
        elif type_ == 9:
            kind, values = entry[2]
            gguf.set(key, 9, (kind, draw.choice((values[:1], [], values * 2, values[::-1]))))
        elif type_ == 7:
            gguf.set(key, 7, not entry[2])
        else:
            gguf.set(key, type_, draw.choice(NUMBERS))
        if draw.random() < 0.1 and gguf.tensors:
            tensor = draw.choice(gguf.tensors)
            field = draw.choice((1, 2, 3))  # shape, type, offset
            tensor[field] = draw.choice(([1], [0], [2**40], [64, 64, 64])) if field == 1 else draw.choice(NUMBERS)

    def run(self, path: Path) -> None:
        pid = os.fork()
        if pid == 0:
            limit()
            silence()
            try:
                opening.opened(str(path))
            except BaseException:
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            raise SelfExtendError  # refused, by an error or by the end of the child
        opening.check = lambda path: None  # type: ignore[assignment]
        llm = SelfExtendLlama(path, n_ctx=256, n_threads=1)
        llm.prefill(llm.tokenize(b"one two three"))


class Documents:
    """The files of tests/data/field and a few made here; what they have packed is mutated unpacked."""

    together = 1
    suffix = ""

    def __init__(self, folder: Path) -> None:
        text = "# A heading\n\nThe treaty was signed by Ada Lovelace in 1843.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" * 6
        page = f"<html><head><title>T</title></head><body><h1>H</h1><p>{text}</p><table><tr><td>1</td></tr></table></body></html>"
        self._seeds = [(text.encode(), ".md"), (text.encode("utf-16"), ".txt"), (page.encode(), ".html"), (b"a;b\n1;2\n" * 20, ".csv")]
        self._seeds += [(b"{\\rtf1\\ansi a\\super 2\\strike b\\v c\\plain " + text.encode() + b"}", ".rtf")]
        self._seeds += [(_presentation(), ".pptx"), (_workbook(), ".xlsx"), (_opendocument(), ".odt")]
        self._seeds += [(path.read_bytes(), path.suffix) for path in sorted(FIELD.iterdir()) if path.suffix != ".md"]
        for data, suffix in self._seeds:  # each reader's libraries are imported here, and not in each fork
            (folder / f"seed{suffix}").write_bytes(data)
            with suppress(SelfExtendError):
                load_document(folder / f"seed{suffix}")
        self._seeds += [(bare, ".pdf") for data, suffix in self._seeds if suffix == ".pdf" and (bare := _unpacked(data)) != data]

    def mutant(self, draw: random.Random) -> bytes:
        data, self.suffix = draw.choice(self._seeds)
        if data.startswith(b"PK") and draw.random() < 0.8:
            return _repacked(data, draw)
        return flipped(data, draw)

    def run(self, path: Path) -> None:
        load_document(path)


def _repacked(data: bytes, draw: random.Random) -> bytes:
    """A zip file with one of its texts damaged."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    texts = sorted((name for name, held in members.items() if held), key=lambda name: -len(members[name]))
    name = draw.choice(texts[: draw.choice((1, 3, len(texts)))])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for other, held in members.items():
            new.writestr(other, flipped(held, draw) if other == name else held)
    return out.getvalue()


def _unpacked(pdf: bytes) -> bytes:
    """A PDF with its streams unpacked where they are; its table of places is wrong then, as readers know."""

    def bare(found: re.Match[bytes]) -> bytes:
        with suppress(zlib.error):
            return (
                found[1].replace(b"/FlateDecode", b"") + b"stream\n" + zlib.decompressobj().decompress(found[2], 100_000) + b"\nendstream"
            )
        return found[0]

    return re.sub(
        rb"(<<(?:(?!endobj|stream).)*/FlateDecode(?:(?!endobj|stream).)*)stream\r?\n(.*?)\r?\nendstream", bare, pdf, flags=re.DOTALL
    )


def _presentation() -> bytes:
    import pptx

    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Plan", "Buy a pump\nSell the old one"
    slide.shapes.add_table(2, 2, 0, 0, 914400, 914400).table.cell(0, 0).text = "item"
    slide.notes_slide.notes_text_frame.text = "Say it slowly"
    show.save(out := io.BytesIO())
    return out.getvalue()


def _workbook() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["item", "euros", 12.5, True])
    book.active.append(["pump", "=A1+1", 1e-7, None])
    book.active["C1"].number_format = '[$€-407]#,##0.00 "euros"'
    book.create_sheet("Names").append(["Anna"])
    book.save(out := io.BytesIO())
    return out.getvalue()


def _opendocument() -> bytes:
    names = " ".join(f'xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{n}:1.0"' for n in ("office", "text", "table", "style"))
    row = '<table:table-row><table:table-cell table:number-columns-repeated="3"><text:p>a</text:p></table:table-cell></table:table-row>'
    body = f"""<office:text><text:h text:outline-level="2">Report</text:h><text:p text:style-name="P1">The fee<text:s text:c="2"/>is
      <text:span text:style-name="T1">2</text:span><text:note><text:note-citation>1</text:note-citation><text:note-body>
      <text:p>May</text:p></text:note-body></text:note></text:p><text:list text:style-name="L1"><text:list-item text:start-value="3">
      <text:p>one</text:p><text:list><text:list-item><text:p>two</text:p></text:list-item></text:list></text:list-item></text:list>
      <table:table table:name="S">{row}{row}</table:table><text:soft-page-break/></office:text>"""
    styles = """<style:style style:name="T1"><style:text-properties style:text-position="super 58%"/></style:style>
      <text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="i" text:start-value="2"/>
      </text:list-style>"""
    with zipfile.ZipFile(out := io.BytesIO(), "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        file.writestr(
            "content.xml", f"<office:document-content {names}>{styles}<office:body>{body}</office:body></office:document-content>"
        )
    return out.getvalue()


class States:
    """Saved states, half of them with the right checksum for what is wrong in them; chats; and what the server keeps of documents."""

    together = 25
    suffix = ".state"

    def __init__(self, folder: Path) -> None:
        model = folder / "m.gguf"
        model.write_bytes(b"GGUF" * 100)
        cache = StateCache(folder / "states")
        assert cache.save(FakeState(model, list(range(600))))  # type: ignore[arg-type]
        (path,) = (folder / "states").glob("*.state")
        self._name, self._data = path.name, path.read_bytes()
        self._chat = json.dumps({
            "schema": 1, "model_path": "m.gguf", "model_identity": "0" * 32, "name": "a", "created": "2026-01-01T00:00:00+00:00",
            "updated": "2026-01-01T00:00:00+00:00", "system": None, "settings": {"ga_n": 4, "pages": ["1-3"], "max_tokens": 9},
            "documents": [{"path": "a.pdf", "sha256": "0" * 64, "title": "A", "pages": 3}],
            "messages": [{"role": "user", "text": "q", "tokens": ""}, {"role": "assistant", "text": "a", "tokens": "1 2 3"}],
        })  # fmt: skip
        self._kept = json.dumps({
            "id": f"doc-{'0' * 32}", "filename": "a.pdf", "bytes": 9, "created": 1, "n_pages": 1, "labels": ["1"], "notes": [],
            "has_pictures": True, "suffix": ".pdf", "model": "m", "tokens": 5,
        })  # fmt: skip

    def mutant(self, draw: random.Random) -> bytes:
        kind = draw.randrange(4)
        self.suffix = (".state", ".state", ".chat", ".document")[kind]
        if kind > 1:
            text = self._chat if kind == 2 else self._kept
            return flipped(text.encode(), draw) if draw.random() < 0.5 else json.dumps(changed(json.loads(text), draw)).encode()
        if kind == 1:
            return with_header(self._data, lambda meta: changed(meta, draw))
        head = 3_000  # the header; what comes behind it has a checksum
        return flipped(self._data[:head], draw) + self._data[head:]

    def run(self, path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            os.environ |= {"SELFEXTEND_CACHE_DIR": name, "SELFEXTEND_DATA_DIR": name}
            place = {".state": f"sessions/{self._name}", ".chat": "chats/a.json", ".document": f"documents/doc-{'0' * 32}.json"}[
                path.suffix
            ]
            (Path(name) / place).parent.mkdir()
            (Path(name) / place).write_bytes(path.read_bytes())
            for entry in StateCache().entries():
                entry.common_prefix(entry.tokens)
            commands = {".state": (["list"], ["info", self._name[:8]]), ".chat": (["list"], ["info", "a"])}
            for command in commands.get(path.suffix, ()):
                done = CliRunner().invoke(sessions.command, command)
                assert "This is a bug" not in done.output, done.output
            json.dumps([kept.described() for kept in Shelf().all()])


class Requests:
    """Lines of a batch, which are bodies for the server too."""

    together = 200
    suffix = ".jsonl"

    def __init__(self, folder: Path) -> None:
        body = {
            "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 9, "seed": 1, "n": 1, "stream": False, "stop": ["x"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "maxProperties": 3}}},
            "stream_options": {"include_usage": True}, "document_ids": ["doc-1"], "return_progress": True,
        }  # fmt: skip
        self._seed = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})

    def mutant(self, draw: random.Random) -> bytes:
        if draw.random() < 0.3:
            return flipped(self._seed.encode(), draw)
        return json.dumps(changed(json.loads(self._seed), draw)).encode()

    def run(self, path: Path) -> None:
        data = path.read_bytes()
        with suppress(SelfExtendError):
            chat_request(parsed(json.dumps(parsed(data).get("body")).encode()), Sampling())
        for item in from_requests(data.decode(errors="surrogateescape").splitlines()):
            item.digest()
            markdown_name(item.custom_id).encode()
            if item.body is not None:
                prompt_of(item.body)


class Server:
    """Requests as they come over a connection, to a server with one document and a model that refuses to answer."""

    together = 50
    suffix = ".http"
    document = f"/v1/documents/doc-{'0' * 32}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "documents"
        page = Document(Path("a.pdf"), "A", (Page(1, "1", "text"),), (), paged=True)
        kept = server_app.Kept(f"doc-{'0' * 32}", "a.pdf", 9, 1, 1, ("1",), (), True, ".pdf", "m", 5)
        (folder / "file").write_bytes(b"%PDF")
        Shelf(self._folder).put(kept, page, folder / "file")
        kind = b"Content-Type: application/pdf\r\n\r\n"
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n' + kind + b"%PDF\r\n--x--\r\n"
        gets = ["/", "/health", "/page.js", "/metrics", "/v1/models", "/v1/models/m", "/v1/documents", self.document]
        gets += [f"{self.document}/pages/1", f"{self.document}/pages/1.png?find=a%20b&find=c&width=300"]
        self._seeds = [_request("GET", target) for target in gets] * 2 + [
            _request("DELETE", self.document),
            _request("OPTIONS", "/v1/models"),
        ]
        said = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        bodies = {
            "chat/completions": {"messages": said, "max_tokens": 5, "document_ids": [f"doc-{'0' * 32}"], "stop": ["a"], "n": 2},
            "completions": {"prompt": "hi", "max_tokens": 5, "echo": True, "seed": 1, "temperature": 0.5},
            "responses": {"input": said, "instructions": "s", "max_output_tokens": 5, "text": {"format": {"type": "text"}}},
            "messages": {"system": said[0]["content"], "messages": said, "max_tokens": 5, "stop_sequences": ["a"], "top_k": 4},
            "messages/count_tokens": {"messages": said},
        }
        self._seeds += [_request("POST", f"/v1/{name}", json.dumps(body).encode()) for name, body in bodies.items()] * 2
        self._seeds += [_request("POST", "/v1/documents", form, "multipart/form-data; boundary=x")] * 3

    def mutant(self, draw: random.Random) -> bytes:
        return flipped(draw.choice(self._seeds), draw)

    def run(self, path: Path) -> None:
        head, _, body = path.read_bytes().partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        words = line.decode("ascii", "ignore").split()
        headers = [(name.strip().lower(), value.strip()) for name, mark, value in (field.partition(b":") for field in fields) if mark]
        if len(words) != 3 or any(not name or b"\n" in name + value for name, value in headers):
            raise SelfExtendError  # by whoever parses HTTP
        status = asyncio.run(self._answered(words[0], words[1], headers, body))
        if status >= 400:
            raise SelfExtendError

    async def _answered(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        def refuse(*_: Any, **__: Any) -> Any:
            raise Refused(400, "refused", "Refused.")

        server_app.Intake = lambda *_, **__: SimpleNamespace(take=refuse)  # type: ignore
        loaded = SimpleNamespace(is_set=lambda: True)
        plan = SimpleNamespace(describe=lambda: "a plan", capacity=9, n_ctx_train=9)
        model: Any = SimpleNamespace(loaded=loaded, name="m", plan=plan, capacity=9, document_size=lambda _: 1, forget=lambda _: None)
        model.prepared = model.prepared_text = refuse
        app = App(model, Worker(lambda: None, lambda: None), Shelf(self._folder), Access(), Limits())
        app._painter = SimpleNamespace(mark=refuse)  # type: ignore[assignment]
        where, _, query = target.partition("?")
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method, "root_path": "",
                 "path": unquote(where), "raw_path": where.encode(), "query_string": query.encode(), "headers": headers,
                 "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080)}  # fmt: skip
        sent: list[dict[str, Any]] = []
        coming = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(coming, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        await app.asgi(scope, receive, send)
        assert sent[0]["status"] != 500, sent
        return int(sent[0]["status"])


def _request(method: str, target: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nOrigin: http://localhost\r\nContent-Type: {kind}"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


TARGETS: dict[str, Callable[[Path], Models | Documents | States | Requests | Server]] = {
    "models": Models, "documents": Documents, "states": States, "requests": Requests, "server": Server,
}  # fmt: skip


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and "ASAN_OPTIONS" not in os.environ:  # AddressSanitizer takes terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    signal.alarm(SECONDS)


def silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


def tried(run: Callable[[Path], None], paths: Sequence[Path]) -> list[str]:
    """How each mutant ended: "read", "refused", or what went wrong, with its traceback behind it. One process tries them one after
    the other; another goes on behind the one that ended it."""
    ends: list[str] = []
    while len(ends) < len(paths):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            limit()
            silence()
            for path in paths[len(ends) :]:
                signal.alarm(SECONDS)
                os.write(writing, json.dumps(_end(run, path)).encode() + b"\n")
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as told:
            ends += map(json.loads, told)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            ends.append(f"hang: more than {SECONDS} s" if name == "SIGALRM" else f"crash: {name}")
        elif code := os.WEXITSTATUS(status):
            ends.append(f"crash: exit code {code}")
    return ends


def _end(run: Callable[[Path], None], path: Path) -> str:
    try:
        run(path)
    except SelfExtendError:
        return "refused"
    except MemoryError:
        return f"memory: more than {GIB} GiB"
    except BaseException as error:
        return f"error: {type(error).__name__}: {str(error)[:150]!r}\n{traceback.format_exc()[-6000:]}"
    return "read"


class Trial:
    """The mutants of one target: each number one mutant, in any process and any order."""

    def __init__(self, name: str, seed: int, folder: Path, deadline: float) -> None:
        self._name, self._seed, self._folder, self._deadline = name, seed, folder, deadline
        self._target = TARGETS[name](folder)

    @property
    def together(self) -> int:
        """Mutants that one process tries."""
        return self._target.together

    def __call__(self, numbers: Sequence[int]) -> dict[int, str]:
        """How they ended; none if the time was up before. Faults are kept."""
        if time.monotonic() > self._deadline:
            return {}
        paths = []
        for number in numbers:
            data = self._target.mutant(random.Random(f"{self._name} {self._seed} {number}"))
            paths.append(self._folder / f"{self._name}-{self._seed}-{number}{self._target.suffix}")
            paths[-1].write_bytes(data)
        ends = {}
        for number, path, told in zip(numbers, paths, tried(self._target.run, paths), strict=True):
            ends[number], _, words = told.partition("\n")
            if ends[number] not in FINE:
                KEPT.mkdir(parents=True, exist_ok=True)
                (KEPT / path.name).write_bytes(path.read_bytes())
                (KEPT / f"{path.stem}.words").write_text(f"{ends[number]}\n{words}")
            path.unlink()
        return ends


_trial: Trial


def _tried(numbers: Sequence[int]) -> dict[int, str]:
    return _trial(numbers)


def fuzz(name: str, numbers: Sequence[int], seed: int, folder: Path, jobs: int = 1, seconds: float = float("inf")) -> Counter[str]:
    """Try the mutants of one target with these numbers, `jobs` at once, and begin none after so many seconds; how they ended."""
    global _trial
    _trial = Trial(name, seed, folder, time.monotonic() + seconds)
    ends: Counter[str] = Counter()
    parts = [numbers[at : at + _trial.together] for at in range(0, len(numbers), _trial.together)]
    with get_context("fork").Pool(jobs) as pool:
        for found in pool.imap_unordered(_tried, parts):
            ends.update(found.values())
            for number, end in found.items():
                if end not in FINE:
                    print(f"{name} {seed} {number}: {end}", flush=True)
    return ends


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=200, help="mutants of each")
    parser.add_argument("--start", type=int, default=0, help="the number of the first: a long run in parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once; as many as there are processors")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target; fewer mutants then, if it takes longer")
    options = parser.parse_args()
    if unknown := {*options.targets} - {*TARGETS}:
        parser.error(f"there is no target {', '.join(unknown)}")
    faults = 0
    for name in options.targets or TARGETS:
        started = time.monotonic()
        numbers = range(options.start, options.start + options.count)
        with tempfile.TemporaryDirectory() as folder:
            ends = fuzz(name, numbers, options.seed, Path(folder), options.jobs, options.seconds)
        faults += sum(n for end, n in ends.items() if end not in FINE)
        print(f"{name}: {sum(ends.values())} mutants in {time.monotonic() - started:.0f} s: {dict(ends)}", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
