"""`make demo`: two numbers on early pages of the sample and one question that needs reading, with SelfExtend and with the plain model.

Both get the same prompt tokens. The plain model's context is as long; only its positions run past the trained window.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import boundary
from .terminal import output, progress

if TYPE_CHECKING:
    from selfextend_local.documents import Document

ANSWER_TOKENS = 24


@dataclass(frozen=True)
class Outcome:
    answers: list[str]
    line: str


@click.command()
@click.argument("document", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@boundary
def command(document: Path) -> int:
    """Ask the embedded default model about DOCUMENT, the sample that selfextend_local.sample writes."""
    from selfextend_local.documents import load_document
    from selfextend_local.engine.default_model import DEFAULT_MODEL_NAME, model_or_default
    from selfextend_local.sample import SAMPLE_FACTS, SAMPLE_READING

    model = model_or_default()
    facts = SAMPLE_FACTS[:2]
    text = load_document(document)
    output.say(f"{text.title}: {text.page_count} pages, read by {DEFAULT_MODEL_NAME}")
    asked = (*facts, SAMPLE_READING)
    questions = [f.question for f in asked]
    extended = _ask(model, text, questions, "SelfExtend", plain=False)
    plain = _ask(model, text, questions, "plain model", plain=True)
    right = 0
    for fact, with_groups, without in zip(asked, extended.answers, plain.answers, strict=True):
        found, lost = fact.answer in with_groups, fact.answer not in without
        if fact in facts:
            right += found and lost
        else:
            click.echo("\nAnd one that needs reading, since the document says it in other words:")
        click.echo(f"\n{fact.question}  (page {fact.page}: {fact.answer})")
        click.echo(f"  SelfExtend   {'✓' if found else '✗'}  {with_groups}")
        click.echo(f"  plain model  {'✗' if lost else '✓'}  {without}")
    click.echo("\nSo small a model finds stated numbers and gets most other questions wrong: take a larger one for real work.")
    click.echo(f"\nSelfExtend   {extended.line}\nplain model  {plain.line}")
    return 0 if right == len(facts) else 1


def _ask(model: Path, document: Document, questions: list[str], label: str, *, plain: bool) -> Outcome:
    from selfextend_local.chat.conversation import Chat, Sampling, count_prompt_tokens
    from selfextend_local.engine.llama import SelfExtendLlama
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.positions import PLAIN

    with ModelPeek(model) as peek:
        need = count_prompt_tokens(peek, [document], None, max(questions, key=len)).prompt + 4 * ANSWER_TOKENS
    llm = SelfExtendLlama(model, need_tokens=need)
    if plain:
        # The plain model at the same length: group attention stays off, whatever the text's length.
        llm.pin_group_attention(PLAIN)
    answers, line = [], ""
    for question in questions:
        # A new chat for each question; the document's keys are still in the cache.
        chat = Chat(llm, documents=[document], sampling=Sampling(max_tokens=ANSWER_TOKENS), reserve=ANSWER_TOKENS)
        with progress.progress(f"{label}: reading") as update:
            answers.append(" ".join("".join(chat.ask(question, progress=update)).split()))
        stats = chat.last_stats
        if not line and stats:
            line = (
                f"{stats.prompt_tokens:,} tokens, trained for {llm.plan.n_ctx_train:,} ({stats.group_attention.label}), "
                f"read at {stats.prefill_tps:,.0f} tokens/s"
            )
    llm.close()
    return Outcome(answers, line)


if __name__ == "__main__":
    sys.exit(command())
