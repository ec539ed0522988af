"""summarize_document on any model that answers prompts: which way a document goes, what the prompts hold, what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from selfextend_local.documents import Document, Page
from selfextend_local.errors import ContextOverflow, SelfExtendError
from selfextend_local.generation.completion import Completion, Progress, Prompt, ShouldStop
from selfextend_local.generation.sampling import Sampling
from selfextend_local.generation.stream import within
from selfextend_local.summarize import Instruction, check, document_prompt, summarize_with


@dataclass
class Echo:
    """A model whose tokens are words, and that answers with the number of its prompts so far."""

    capacity: int
    prompts: list[Prompt] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    def count(self, text: str) -> int:
        return len(text.split())

    def size(self, prompt: Prompt) -> int:
        return sum(self.count(text) for _, text in prompt.messages)

    def answer(
        self, prompt: Prompt, sampling: Sampling, *, progress: Progress | None = None, should_stop: ShouldStop | None = None
    ) -> Completion:
        assert self.size(prompt) + sampling.max_tokens <= self.capacity
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        if progress:
            progress(self.size(prompt), self.size(prompt))
        return Completion(f"note {len(self.prompts)}", "stop", self.size(prompt), 0, 2)

    def sent(self, index: int) -> str:
        return self.prompts[index].messages[-1][1]


def report(pages: int, words: int = 100) -> Document:
    return Document(
        Path("r.pdf"), "Report", tuple(Page(n, str(n), f"p{n} " * words) for n in range(1, pages + 1)), (), paged=True
    )


def test_what_fits_is_read_whole() -> None:
    model = Echo(2000)
    summary = summarize_with(model, report(3), Instruction(max_words=50))
    assert (summary.how, summary.parts, summary.pages, len(model.prompts)) == ("whole", (), 3, 1)
    assert "[page 2]\np2 p2" in model.sent(0)


def test_the_request_stands_before_the_document_for_the_cache_and_after_it_for_the_model() -> None:
    instruction = Instruction("List the dates.", max_words=50)
    one, two = (document_prompt(instruction, [report(n)]) for n in (1, 4))
    assert one.shared == two.shared > len("List the dates.")
    assert one.messages[0][1][: one.shared] == two.messages[0][1][: two.shared]
    assert one.messages[0][1].endswith("List the dates. Write at most 50 words.")


def test_what_does_not_fit_is_read_in_parts_that_keep_their_pages() -> None:
    model = Echo(500)
    summary = summarize_with(model, report(12), Instruction(max_words=10))
    assert summary.how == "parts"
    assert [(p.first, p.last) for p in summary.parts][0] == ("1", summary.parts[0].last)
    assert summary.parts[-1].last == "12"
    assert summary.text == f"note {len(model.prompts)}"
    merged = model.sent(-1)
    assert all(f"[pages {p.first}-{p.last}]\n{p.text}" in merged for p in summary.parts if p.first != p.last)
    assert summary.usage.prompt_tokens == sum(model.size(p) for p in model.prompts)


def test_notes_that_do_not_fit_either_are_merged_in_groups() -> None:
    model = Echo(160)
    summary = summarize_with(model, report(60), Instruction(max_words=5, max_tokens=16))
    assert summary.how == "parts"
    assert len(model.prompts) > len(summary.parts) + 1


def test_progress_covers_all_parts_and_only_grows() -> None:
    seen: list[tuple[int, int]] = []
    summarize_with(Echo(500), report(12), Instruction(max_words=10), progress=lambda done, total: seen.append((done, total)))
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert seen[0][0] < seen[0][1]
    assert seen[-1][0] == seen[-1][1]


def test_the_schema_is_for_the_final_answer_only() -> None:
    model = Echo(500)
    summarize_with(model, report(12), Instruction(max_tokens=30, schema='{"type": "object"}'))
    assert [s.schema for s in model.samplings[:-1]] == [None] * (len(model.samplings) - 1)
    assert model.samplings[-1].schema == '{"type": "object"}'


def test_a_request_that_fills_the_window_is_an_error_with_the_next_step() -> None:
    with pytest.raises(ContextOverflow, match="leaves no room for a document: shorten the request"):
        summarize_with(Echo(300), report(12), Instruction("please " * 280, max_tokens=10))


def test_templates() -> None:
    prompt = document_prompt(Instruction(template="Dear reader of {{ title }}:\n{{ document }}\nGo on."), [report(1)])
    text = prompt.messages[0][1]
    assert text.startswith("Dear reader of Report:\n[page 1]\np1")
    assert text.endswith("\nGo on.")
    assert text[: prompt.shared] == "Dear reader of "


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ documnet }}", "may name document"), ("{% if", "can't be used"), ("Hello", "never names")],
)
def test_a_template_that_cannot_work_is_refused_before_any_work(template: str, message: str) -> None:
    with pytest.raises(SelfExtendError, match=message):
        check(Instruction(template=template))


def test_a_document_that_looks_like_a_template_stays_text() -> None:
    document = Document(Path("a.txt"), "{{ 7 * 7 }}", (Page(1, "1", "{{ title }} {% if %}"),), (), paged=False)
    text = document_prompt(Instruction(template="{{ title }}: {{ document }}"), [document]).messages[0][1]
    assert text == "{{ 7 * 7 }}: {{ title }} {% if %}"


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("One two. Three four.", 9, "One two. Three four."),
        ("One two. Three four five.", 4, "One two."),
        ("One two three four", 3, "One two three …"),
        ("See p. 3.5 of it. And more here", 6, "See p. 3.5 of it."),
    ],
)
def test_the_word_limit_ends_at_a_sentence(text: str, most: int, kept: str) -> None:
    assert within(text, most) == kept
