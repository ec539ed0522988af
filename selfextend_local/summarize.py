"""The summary of one document: read whole if it fits the window, else in parts that are merged.

Knows documents and the wording of the requests. The model is anything that answers prompts, so the same steps serve a
loaded model and a server. Must not know batches, files or the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from selfextend_local.documents import Document
from selfextend_local.documents.sections import Section, page_names, split
from selfextend_local.engine.grammar import grammar_of
from selfextend_local.errors import ContextOverflow, SelfExtendError
from selfextend_local.generation.completion import Completion, Finish, LocalModel, Progress, Prompt, ShouldStop, TextModel
from selfextend_local.generation.sampling import LONG_ANSWERS, Sampling

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.positions import GroupForm

How = Literal["whole", "parts"]

SUMMARIZE = "Summarize the document below. Name what it is about and its main points"
CITE = "Cite pages like [page 3]."
MERGE = (
    "Below are notes on the parts of one document, in order, each under the pages that it covers. "
    "From them, do this for the whole document, and keep the page references:"
)

_MARGIN = 16  # tokens; the pieces of a prompt may tokenise a little longer together than apart
_PART_SHARE = 8  # the notes on a part may take this share of the window
_SMALLEST_ROOM = 64


@dataclass(frozen=True, slots=True)
class Instruction:
    """What to do with each document.

    Attributes:
        text: the request; None = a summary.
        template: the whole user message as a Jinja template with `document`, and optionally `title`, `pages`,
            `max_words`; what stands before the first of `document`, `title` and `pages` is read once for all documents.
        max_words, max_tokens: the length of the answer. Without `max_tokens` there is room for `max_words`, or 512 tokens.
        schema: a JSON schema, as text, for the final answer.
        drawn: how answers are drawn; its lengths and its schema don't count, and its stop texts end the final answer only.
    """

    text: str | None = None
    template: str | None = None
    max_words: int | None = None
    max_tokens: int | None = None
    schema: str | None = None
    drawn: Sampling = LONG_ANSWERS

    @property
    def request(self) -> str:
        """The request in a sentence or two."""
        text = self.text or f"{SUMMARIZE}."
        return text if self.max_words is None else f"{text} Write at most {self.max_words} words."

    def sampling(self) -> Sampling:
        # English words take 1.3 to 1.5 tokens, other languages up to twice that; the word limit ends the answer first.
        tokens = self.max_tokens or (3 * self.max_words + 16 if self.max_words else 512)
        words = None if self.schema else self.max_words
        return replace(self.drawn, max_tokens=tokens, max_words=words, schema=self.schema)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds. `cached_tokens` of the prompts were not evaluated again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def plus(self, answer: Completion) -> Usage:
        return Usage(
            self.prompt_tokens + answer.prompt_tokens,
            self.cached_tokens + answer.cached_tokens,
            self.completion_tokens + answer.completion_tokens,
            self.prefill_s + answer.prefill_s,
            self.decode_s + answer.decode_s,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """The notes on a part of a document; `first` and `last` are page labels, None without pages."""

    first: str | None
    last: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary and how it came about.

    Attributes:
        how: "whole": the model read all of it at once; "parts": it read the `parts`, then their notes.
        pages: pages read, or 0 for documents without pages.
        ga_n, ga_w, ga_mode: the group attention of the longest prompt.
    """

    text: str
    how: How
    parts: tuple[Part, ...]
    pages: int
    usage: Usage
    finish: Finish
    ga_n: int = 1
    ga_w: int = 0
    ga_mode: GroupForm = "two-level"


def summarize_document(
    llm: SelfExtendLlama,
    documents: Document | Sequence[Document],
    instruction: str | Instruction | None = None,
    *,
    max_words: int | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Summary:
    """Summarise a document, or several together, with a loaded model.

    Args:
        instruction: the request, if it isn't a plain summary.
        progress: called with (tokens read, tokens to read), all parts together.

    Raises:
        Interrupted: `should_stop` said so.
        ContextOverflow: the window doesn't even hold the request.
    """
    wanted = instruction if isinstance(instruction, Instruction) else Instruction(instruction, max_words=max_words)
    return summarize_with(LocalModel(llm), documents, wanted, progress=progress, should_stop=should_stop)


def summarize_with(
    model: TextModel,
    documents: Document | Sequence[Document],
    instruction: Instruction,
    *,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Summary:
    """As `summarize_document`, with any model that answers prompts."""
    given = (documents,) if isinstance(documents, Document) else tuple(documents)
    work = _Work(model, instruction, progress, should_stop)
    prompt = document_prompt(instruction, given)
    pages = pages_read(given)
    size = model.size(prompt)
    if size + instruction.sampling().max_tokens <= model.capacity:
        work.left = size
        text = work.answer(prompt, instruction.sampling())
        return work.summary(text, "whole", (), pages)
    parts = work.notes(given)
    return work.summary(work.merged(parts, instruction.sampling()), "parts", tuple(parts), pages)


def read_whole(answer: Completion, pages: int) -> Summary:
    """The summary that a single answer is."""
    return Summary(answer.text, "whole", (), pages, Usage().plus(answer), answer.finish, answer.ga_n, answer.ga_w, answer.ga_mode)


def pages_read(documents: Sequence[Document]) -> int:
    """Pages with text in them, 0 for documents without pages."""
    return sum(d.page_count - len(d.unreadable_pages) for d in documents if d.paged)


def check(instruction: Instruction) -> None:
    """Raises SelfExtendError if the template or the schema can't be used."""
    if instruction.template is not None:
        _templated(instruction, {"document": "", "title": "", "pages": ""})
    grammar_of(instruction.schema)


def document_prompt(instruction: Instruction, documents: Sequence[Document], section: Section | None = None) -> Prompt:
    """The request, the documents or one section of the only one, and the request again: models follow what is near."""
    paged = any(d.paged for d in documents)
    title = ", ".join(d.title_line for d in documents)
    text = section.text if section else "\n\n".join(d.text_with_markers() for d in documents)
    if section and section.label:
        title = f"{title}, {section.label}"
    if instruction.template is not None:
        pages = sum(d.page_count for d in documents)
        return _templated(instruction, {"document": text, "title": title, "pages": str(pages)})
    cite = f" {CITE}" if paged and instruction.text is None and not instruction.schema else ""
    # Where pages are cited stands at the end only, so that documents with and without pages share the beginning.
    before = f"{instruction.request}\n\nDocument: "
    return Prompt((("user", f"{before}{title}\n\n{text}\n\n{_again(instruction.request)}{cite}"),), len(before))


def _again(request: str) -> str:
    return request.replace("the document below", "the document above")


def _templated(instruction: Instruction, values: dict[str, str]) -> Prompt:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    other = {"max_words": instruction.max_words, "prompt": instruction.request}
    try:
        template = environment.from_string(instruction.template or "")
        text, twin = template.render(**values, **other), template.render({name: "\x00" for name in values}, **other)
    except jinja2.TemplateError as error:
        raise SelfExtendError(f"The template can't be used ({error}): it may name document, title, pages, max_words, prompt.") from error
    if "\x00" not in twin:
        raise SelfExtendError("The template never names the document: write {{ document }} where its text belongs.")
    return Prompt((("user", text),), twin.index("\x00"))


@dataclass
class _Work:
    """The summary of one document in the making: progress over all its prompts, and what they took."""

    model: TextModel
    instruction: Instruction
    progress: Progress | None
    should_stop: ShouldStop | None
    done: int = 0
    left: int = 0
    usage: Usage = field(default_factory=Usage)
    answers: list[Completion] = field(default_factory=list)

    def answer(self, prompt: Prompt, sampling: Sampling) -> str:
        size = self.model.size(prompt)
        report = self.progress

        def moved(done: int, total: int) -> None:
            if report:
                # `total` leaves out what was in the cache already.
                report(self.done + size - total + done, self.done + max(self.left, size))

        answer = self.model.answer(prompt, sampling, progress=moved, should_stop=self.should_stop)
        self.done, self.left = self.done + size, max(0, self.left - size)
        self.usage = self.usage.plus(answer)
        self.answers.append(answer)
        return answer.text

    def notes(self, documents: Sequence[Document]) -> list[Part]:
        """Map: each section read in as large a window as there is."""
        sampling = self._notes_sampling()
        work = [(d, s) for d in documents for s in split(d, self.model.count, self._room(d, sampling))]
        prompts = [document_prompt(self.instruction, [d], s) for d, s in work]
        self.left = sum(map(self.model.size, prompts))
        return [
            Part(section.first, section.last, self.answer(prompt, sampling))
            for (_, section), prompt in zip(work, prompts, strict=True)
        ]

    def merged(self, parts: Sequence[Part], sampling: Sampling) -> str:
        """Merge: the notes read together; if they don't fit either, each half of them first."""
        prompt = self._merge_prompt(parts)
        if len(parts) <= 2 or self.model.size(prompt) + sampling.max_tokens <= self.model.capacity:
            return self.answer(prompt, sampling)
        notes, half = self._notes_sampling(), len(parts) // 2
        groups = [parts[:half], parts[half:]]
        texts = [g[0].text if len(g) == 1 else self.merged(g, notes) for g in groups]
        return self.merged([Part(g[0].first, g[-1].last, text) for g, text in zip(groups, texts, strict=True)], sampling)

    def _merge_prompt(self, parts: Sequence[Part]) -> Prompt:
        request = self.instruction.request.replace("Summarize the document below", "Summarize the document")
        before = f"{MERGE} {request}\n\n"
        notes = "\n\n".join(f"[{page_names(part.first, part.last) or f'part {i}'}]\n{part.text}" for i, part in enumerate(parts, start=1))
        return Prompt((("user", f"{before}{notes}\n\n{request}"),), len(before))

    def _notes_sampling(self) -> Sampling:
        final = self.instruction.sampling()
        return replace(final, schema=None, stop=(), max_tokens=max(16, min(final.max_tokens, self.model.capacity // _PART_SHARE)))

    def _room(self, document: Document, sampling: Sampling) -> int:
        longest = max((page.label for page in document.pages), key=len)
        frame = Section("", longest, f"{longest}.") if document.paged else Section("", None, None)
        taken = self.model.size(document_prompt(self.instruction, [document], frame)) + sampling.max_tokens + _MARGIN
        room = self.model.capacity - taken
        if room < _SMALLEST_ROOM:
            raise ContextOverflow(
                f"The request and the answer take {taken:,} of the {self.model.capacity:,} tokens of the context, which leaves no "
                "room for a document: shorten the request, lower max_tokens, or take a longer context.",
                taken + _SMALLEST_ROOM,
                self.model.capacity,
            )
        return room

    def summary(self, text: str, how: How, parts: tuple[Part, ...], pages: int) -> Summary:
        far, last = max(self.answers, key=lambda a: a.prompt_tokens), self.answers[-1]
        return Summary(text, how, parts, pages, self.usage, last.finish, far.ga_n, far.ga_w, far.ga_mode)
