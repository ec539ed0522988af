"""A plugin for `llm`: our models under its command, and documents as its fragments.

    llm -m selfextend/default -f document:report.pdf "Who signed?"

Knows llm's hooks. What a conversation about documents is, is the workspace's. A distribution of its own, so that what knows no llm
doesn't need it; llm finds this module by the entry point of the pyproject.toml beside it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field
from selfextend_cli.flags.schema import is_whole
from selfextend_cli.models import named
from selfextend_cli.terminal import output

from selfextend_local.chat.listener import Listener
from selfextend_local.errors import SelfExtendError

if TYPE_CHECKING:
    from selfextend_local.chat.settings import ChatSettings
    from selfextend_local.chat.workspace import Workspace
    from selfextend_local.documents import Document

_END = re.compile(r"\[end of document\]", re.IGNORECASE)
_BEGINS = re.compile(r"^\[document ([^\[\]\n]*)\]\n", re.MULTILINE)
_ENDS = re.compile(r"\n\[end of document\]$", re.MULTILINE)
_PAGE = re.compile(r"^\[page ([^\[\]\n]+)\]$", re.MULTILINE)
_FOLDER = "SELFEXTEND_CHAT_MODELS_DIR"
_CUT = {
    "length": "(cut: max_tokens is reached; -o max_tokens N)",
    "context": "(cut: the context is full)",
    "loop": "(stopped: it went round in circles; ask for less at once, or take a larger model)",
}


@llm.hookimpl
def register_models(register: Any) -> None:
    """The default model, those of config.toml and those of the models' folder."""
    folder = os.environ.get(_FOLDER)
    found: dict[str, Path | None] = dict(named(Path(folder) if folder else None))
    for name, path in {"default": None, **found}.items():
        register(LongModel(f"selfextend/{output.visible(name)}", path))


@llm.hookimpl
def register_fragment_loaders(register: Any) -> None:
    register("document", document)


def document(argument: str) -> llm.Fragment:
    """document:FILE - the text of a PDF, an Office file, an EPUB, a mail …, each page after a line that any model can cite."""
    from selfextend_local.chat.settings import ChatSettings
    from selfextend_local.chat.sources import read_source

    try:
        found = read_source(argument, None, ChatSettings(), Listener()).document
    except SelfExtendError as error:
        raise ValueError(output.visible(str(error))) from error
    for warning in found.warnings:
        output.say(f"{found.title}: {warning}")
    title = re.sub(r"[\[\]\n]", " ", found.title)
    body = _END.sub("(end of document)", found.text_with_markers())
    return llm.Fragment(f"[document {title}]\n{body}\n[end of document]", str(Path(argument).resolve()))


def _shown(piece: str) -> str:
    """A piece of an answer as llm may print it."""
    return output.visible(piece) if sys.stdout.isatty() else piece


def documents_and_question(text: str) -> tuple[tuple[Document, ...], str]:
    """What `document` made of files, and the text without it."""
    documents, rest, at = [], [], 0
    while (begins := _BEGINS.search(text, at)) and (ends := _ENDS.search(text, begins.end() - 1)):
        documents.append(_document(begins[1], text[begins.end() : ends.start()]))
        rest.append(text[at : begins.start()])
        at = ends.end()
    return tuple(documents), "".join([*rest, text[at:]]).strip()


def _document(title: str, body: str) -> Document:
    from selfextend_local.documents import Document, Page

    before, *marked = _PAGE.split(body)
    labels, texts = marked[::2], marked[1::2]
    pages = [Page(number, label, text.strip()) for number, (label, text) in enumerate(zip(labels, texts, strict=True), 1)]
    whole = Page(1, "1", before.strip())
    return Document(Path(title), title, tuple(pages) or (whole,), (), paged=bool(pages))


@dataclass(frozen=True)
class Asked:
    """What llm sends, told apart: its messages hold the fragments of all turns in their texts."""

    system: str | None
    documents: tuple[Document, ...]
    turns: tuple[tuple[str, str], ...]
    question: str

    @classmethod
    def of(cls, prompt: Any) -> Asked:
        """Of a `llm.Prompt`."""
        said = [(str(message.role), "".join(getattr(part, "text", "") for part in message.parts)) for message in prompt.messages]
        system = next((text for role, text in said if role == "system"), None)
        asked = [documents_and_question(text) for role, text in said if role == "user"]
        answers = [text for role, text in said if role == "assistant"]
        documents = tuple(dict.fromkeys(document for documents, _ in asked for document in documents))
        questions = [question for _, question in asked]
        turns = tuple(zip(questions[:-1], answers, strict=False))
        return cls(system, documents, turns, questions[-1] if questions else "")


class LongModel(llm.Model):
    """One model: a conversation of llm is a workspace, which stays open for the next question."""

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """What `-o NAME VALUE` takes."""

        max_tokens: int | None = Field(default=None, gt=0, description="Tokens of an answer.")
        temperature: float | None = Field(default=None, ge=0, description="0 = always the likeliest token.")
        top_p: float | None = Field(default=None, gt=0, le=1, description="Draw from the likeliest tokens of this share.")
        seed: int | None = Field(default=None, ge=0, description="The same seed, the same answer.")
        ga_mode: str | None = Field(
            default=None, pattern="^(auto|two-level|progressive|recall)$", description="How far text is read."
        )

    def __init__(self, model_id: str, path: Path | None) -> None:
        self.model_id = model_id
        self._path = path
        self._key: object = None
        self._turns: tuple[tuple[str, str], ...] = ()
        self._open: Workspace | None = None
        atexit.register(self.close)

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """The answer in pieces, without what the model thought aloud. A page that it names falsely is told on stderr, as is why it was
        cut. Raises llm.ModelError, also for JSON by a schema that was."""
        from selfextend_local.generation.thinking import parts

        asked = Asked.of(prompt)
        if not asked.question:
            raise llm.ModelError('Ask a question: llm -m MODEL -f document:report.pdf "Who signed?"')
        said: list[str] = []
        try:
            workspace = self._workspace(asked, self._settings(prompt, asked.system))
            for part in parts(workspace.stream(asked.question), open=workspace.thinks_first):
                if not part.thought:
                    said.append(part.text)
                    yield _shown(part.text)
        except SelfExtendError as error:
            raise llm.ModelError(output.visible(str(error))) from error
        answer = "".join(said)
        self._turns = (*asked.turns, (asked.question, answer))
        self._report(answer, workspace, response)
        if prompt.schema and not is_whole(answer):
            raise llm.ModelError("The answer was cut before its JSON was complete: raise max_tokens (-o max_tokens N).")

    def _report(self, answer: str, workspace: Workspace, response: Any) -> None:
        from selfextend_cli.chat.reply import citation_line

        for citation in workspace.citations(answer):
            output.say(citation_line(citation))
        stats = workspace.chat.last_stats
        if stats is not None:
            if stats.stop_reason in _CUT:
                output.say(_CUT[stats.stop_reason])
            response.set_usage(input=stats.prompt_tokens, output=stats.completion_tokens)
        response.response_json = {"plan": workspace.fit.plan.describe()}

    def _workspace(self, asked: Asked, settings: ChatSettings) -> Workspace:
        from selfextend_cli.chat.listener import SayingListener

        from selfextend_local.chat.workspace import Workspace
        from selfextend_local.sessions.turn import Turn

        key = (asked.documents, settings)
        if self._open is None or (self._key, self._turns) != (key, asked.turns):
            self.close()
            history = [Turn(question, answer, ()) for question, answer in asked.turns]
            self._open = Workspace(asked.documents, settings, SayingListener(), history=history, translate=True)
        self._key = key
        return self._open

    def _settings(self, prompt: Any, system: str | None) -> ChatSettings:
        from selfextend_local.chat.settings import ChatSettings
        from selfextend_local.engine.default_model import model_or_default

        given = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
        if prompt.schema:
            given["schema"] = json.dumps(prompt.schema)
        return ChatSettings(model=model_or_default(self._path), system=system).changed(**given)

    def close(self) -> None:
        """Free the model, once what it has read is on disk."""
        if self._open is not None:
            self._open.close()
            self._open = None
