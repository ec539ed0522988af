"""What the pages under docs/ say: their commands run, their error messages are the code's, their anchors are there.

Whether commands, flags and files exist is tests/test_readme.py's matter.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from support.fixture_model import FIXTURE_MODEL
from support.gguf_edit import parse

import selfextend_local.errors

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "patches/README.md", "cli/llm-selfextend/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# Lines that no test of this file runs, and what does, or why nothing can.
ELSEWHERE = {
    r"sudo |xcode-select ": "another system",
    r"(CMAKE_ARGS=-DGGML_CUDA=on|git clone|source|cd) ": "another system, or the reader's shell",
    r"make (demo|test|quick|lint|docs|wheels|llama-server)": "Makefile",
    r"selfextend serve .*--parallel": "tests/test_llama_server.py",
    r"pip install \./patches": "Makefile",
    r"pip install dist/": "patches/try_wheels.py",
    r"pip download ": "a package index",
    r"dask |.*--scheduler ": "tests/test_batch_dask.py",
    r"llm ": "tests/integrations/test_llm_plugin.py",
    r"sh docs/integrations/open_webui\.sh ": "tests/integrations/test_open_webui.py",
    r"(LLAMA_GROUP_ATTN_N=auto )?python docs/integrations/(read_with|planned)": "tests/integrations/test_recipes.py",
    r"python patches/(tool|prove)\.py |cmake ": "tests/test_patch_backend.py",
}
CODES = {"docs/batch.md": {0, 3}}  # three of its documents are broken
BEFORE = {"README.md": "long_text = 'The grass is green. ' * 200\n"}
ADDRESS = "http://127.0.0.1:8080"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of what a page shows to be run."""
    return _BLOCK.findall(read(page))


def lines(block: str) -> Iterator[str]:
    """The commands of a block: as many lines as their quotes need."""
    command = ""
    for line in block.splitlines():
        command += line + "\n"
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            continue
        if words:
            yield command.strip()
        command = ""
    assert not command.strip(), command


def elsewhere(line: str) -> str | None:
    return next((who for pattern, who in ELSEWHERE.items() if re.match(pattern, line)), None)


def test_who_runs_the_other_lines_is_there() -> None:
    assert [who for who in ELSEWHERE.values() if "/" in who and not (ROOT / who).is_file()] == []
    every = [line for page in PAGES for language, block in blocks(page) if language == "sh" for line in lines(block)]
    assert [pattern for pattern in ELSEWHERE if not any(re.match(pattern, line) for line in every)] == []
    assert len([line for line in every if elsewhere(line) is None]) > 40


@dataclass
class Shell:
    """A folder with the files that the pages name, in which their commands run one after another."""

    folder: Path
    environment: dict[str, str]
    server: subprocess.Popen[str] | None = None
    places: dict[str, str] = field(default_factory=dict)

    def run(self, line: str) -> tuple[int, str]:
        for shown, real in self.places.items():
            line = line.replace(shown, real)
        if line.startswith("selfextend serve"):
            return self.serve(line)
        environment = dict(self.environment)
        if "--self-test" in line:  # the model that is installed passes it; this one knows no keys in so long a text
            del environment["SELFEXTEND_DEFAULT_MODEL"]
        how = {**self.how, "env": environment}
        done = subprocess.run(["bash", "-c", line], input="Who signed?\n", text=True, capture_output=True, timeout=600, **how)
        if "/v1/documents" in line and done.returncode == 0:
            self.places["doc-8de239a17ace079cc4859760e41c7126"] = json.loads(done.stdout)["id"]
        return done.returncode, done.stdout[-1000:] + done.stderr[-2000:]

    def python(self, code: str) -> tuple[int, str]:
        (self.folder / "block.py").write_text(code.replace(ADDRESS, self.places.get(ADDRESS, ADDRESS)), encoding="utf-8")
        return self.run("python block.py")

    def serve(self, line: str) -> tuple[int, str]:
        """Start it on a port of its own, and leave it running."""
        self.close()
        command = ["bash", "-c", "exec " + line.partition("  #")[0] + " --port 0"]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **self.how)
        said = ""
        assert self.server.stderr is not None
        for words in self.server.stderr:
            said += words
            if ready := re.search(r"Ready: (http\S+)", words):
                self.places[ADDRESS] = ready[1].rstrip("/")
                return 0, said
        return self.server.wait(), said

    def close(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.communicate(timeout=600)
            self.server = None

    @property
    def how(self) -> dict[str, object]:
        return {"cwd": self.folder, "env": self.environment}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    names = ("CACHE_DIR", "DATA_DIR", "STATE_DIR", "PROFILES")
    environment = {
        **os.environ,
        **{f"SELFEXTEND_{name}": str(tmp_path / name.lower()) for name in names},
        "SELFEXTEND_DEFAULT_MODEL": str(tmp_path / "mistral.gguf"),
        "PIP_NO_INDEX": "1",  # what the pages install is there: `make` has installed it
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    model = parse(FIXTURE_MODEL.read_bytes()).set("llama.context_length", 4, 8192)  # so that plans are those of usual models
    (tmp_path / "mistral.gguf").write_bytes(model.dump())
    (tmp_path / "models").mkdir()
    for name in ("model.gguf", "models/small.gguf"):
        (tmp_path / name).symlink_to(FIXTURE_MODEL)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for name in ("report.txt", "notes.md", "question.txt", "reports/a.txt", "reports/b.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Anna Berg signed it.\n\nThe key of the north vault is 48213.\n", encoding="utf-8")
    (tmp_path / "questions.txt").write_text("Who signed?\nWhen?\n", encoding="utf-8")
    (tmp_path / "who.json").write_text('{"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}}}', encoding="utf-8")
    item = {"input": "Who signed?", "context": "Anna Berg signed it. " * 40, "answers": ["Anna Berg"]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    for name in ("report.pdf", "a.pdf"):
        _write_pdf(tmp_path / name)
    started = Shell(tmp_path, environment)
    yield started
    started.close()


def _write_pdf(path: Path) -> None:
    """Pages i to iv and 1 to 8."""
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("helvetica", size=11)
    for number in range(12):
        pdf.add_page(label_style="r" if number < 4 else "D", label_start=1 if number in (0, 4) else None)
        pdf.multi_cell(0, text=f"Page {number} of the report. The north vault is open. Anna Berg signed it.")
    pdf.output(str(path))


@pytest.mark.process
@pytest.mark.native
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_commands_of_a_page_run(page: str, shell: Shell) -> None:
    if "--folder reports" in read(page):
        for path in (shell.folder / "reports").iterdir():
            path.unlink()
    for language, block in blocks(page):
        if language == "python":
            code, said = shell.python(BEFORE.get(page, "") + block)
            assert code == 0, f"{block}\n{said}"
            continue
        for line in lines(block):
            if elsewhere(line) is None:
                code, said = shell.run(line)
                assert code in CODES.get(page, {0}), f"{line}\n{said}"


# ---- Messages

TROUBLE = "docs/troubleshooting.md"
LITERAL_WORDS = 3  # a message with fewer of its own is put together of others'


def template(node: ast.expr) -> list[str]:
    """The texts that an expression can be, … for what is put in."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)]
    if isinstance(node, ast.IfExp):
        return template(node.body) + template(node.orelse)
    if isinstance(node, ast.BinOp):
        return [a + b for a in template(node.left) or ["…"] for b in template(node.right) or ["…"]]
    return []


@cache
def expressions(*folders: str) -> list[ast.expr]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.expr)]


def messages() -> set[str]:
    """What the package's errors say, where they are made."""
    found = set()
    for node in expressions("selfextend_local", "cli"):
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        error = getattr(selfextend_local.errors, name, None) if name else None
        if isinstance(error, type) and issubclass(error, Exception) and node.args:
            found |= {text for text in template(node.args[0]) if len(re.findall(r"[^\W\d_]+", text)) >= LITERAL_WORDS}
    return found


def listed() -> set[str]:
    rows = [row.split("|")[1] for row in read(TROUBLE).splitlines() if row.startswith("| `")]
    return {text for row in rows for text in re.findall(r"`([^`]+)`", row)}


@pytest.mark.slow
def test_the_messages_listed_are_the_codes() -> None:
    texts = {text for node in expressions("selfextend_local", "cli", "patches") for text in template(node)}
    assert len(listed()) > 150
    assert sorted(row for row in listed() if not any(row in text for text in texts)) == []


@pytest.mark.slow
def test_every_message_is_listed() -> None:
    found = messages()
    assert len(found) > 150
    missing = sorted(text for text in found if not any(row in text for row in listed()))
    assert missing == [], f"give each a row in {TROUBLE}"


# ---- Anchors


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_anchors_exist(page: str) -> None:
    source = ROOT / page
    links = re.findall(r"\]\(([^)#:\s]*\.md)?#([^)]+)\)", read(page))
    assert [(path, name) for path, name in links if name not in anchors(source.parent / path if path else source)] == []
