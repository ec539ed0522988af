"""`selfextend eval TASK`: does the extension work on this model? The same items under each method, with intervals.

Knows the flags of each task. What they share is in `evaluating`; what is measured is imported when a task runs, so that
--help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import boundary
from ..flags.types import ListOf
from ..terminal import output
from .run import Options, evaluate, number, one_of, read_length, shared, tokens_of


@click.group("eval", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure what a model does with long texts, under several methods, in one run.

    \b
    Examples:
      selfextend eval passkey --lengths 4k,8k,16k --methods plain,selfextend,yarn
      selfextend eval ppl --text novel.txt --lengths 8k,16k --plot nll.png
      selfextend eval passkey --help

    Each result is a line of JSON in --out, written as soon as it is known. Run the same command again after Ctrl-C or a
    crash: what is done is not done twice. Tables go to stdout, all else to stderr.
    """


task_command = {"context_settings": {"help_option_names": ["-h", "--help"]}}


@command.command("passkey", **task_command)
@shared
@click.option("--depths", type=click.IntRange(1), default=8, show_default=True, help="Places of the key, evenly spread.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Keys for each place.")
@click.option("--digits", type=ListOf("N", number), default="5", show_default=True, help="Digits of a key, such as 5,10,64.")
@click.option("--format", "formats", type=ListOf("FORMATS", one_of(("plain", "chat"))), default="plain", show_default=True)
@click.option("--introduction/--no-introduction", default=True, show_default=True, help="Say first that a key is hidden.")
@click.option("--seed", type=int, default=0, show_default=True)
@boundary
def passkey(**flags: Any) -> int:
    """Find a number in noise: depths x lengths x repeats.

    \b
    Examples:
      selfextend eval passkey --lengths 8k,16k --depths 8 --methods plain,selfextend,yarn,upstream
      selfextend eval passkey --lengths 2x --digits 5,10,64 --format plain,chat --plot keys.png
    """
    from selfextend_local.evaluation.tasks.passkey import Passkey

    options = Options.take(flags)
    return evaluate(Passkey(**flags), options)


@command.command("ppl", **task_command)
@shared
@click.option("--text", "text", required=True, metavar="FILE", help="Any document: text, Markdown, PDF.")
@click.option(
    "--window",
    type=ListOf("LENGTH", read_length),
    help="Slide a window of so many tokens over the text (1x = the trained one) instead of one pass.",
)
@boundary
def ppl(text: str, window: tuple[int | float, ...] | None, **flags: Any) -> int:
    """Negative log-likelihood of a text, against the position in it.

    \b
    Examples:
      selfextend eval ppl --text novel.txt --lengths 4k,16k --methods plain,selfextend,yarn --plot nll.png
      selfextend eval ppl --text novel.txt --lengths 16k --methods plain --window 1x
    """
    from selfextend_local.evaluation.tasks.perplexity import Perplexity
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    read = read_text(text)
    return evaluate(lambda trained: Perplexity(read, tokens_of(window[0], trained) if window else None), options)


@command.command("copy", **task_command)
@shared
@click.option("--text", "text", required=True, metavar="FILE", help="Any document: text, Markdown, PDF.")
@click.option("--depths", type=click.IntRange(1), default=8, show_default=True, help="Passages to repeat, evenly spread.")
@boundary
def copy(text: str, depths: int, **flags: Any) -> int:
    """How much easier a passage is when it stands in the text already, against its distance. For weak models too.

    \b
    Example:
      selfextend eval copy --text novel.txt --lengths 4k,8k,16k --methods plain,selfextend
    """
    from selfextend_local.evaluation.tasks.copying import Copying
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    return evaluate(Copying(read_text(text), depths), options)


_FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "plain", "chat"]),
    default="auto",
    show_default=True,
    help="With the model's chat template or without; auto: with, if it has one.",
)
_SEED = click.option("--seed", type=int, default=0, show_default=True)


@command.command("facts", **task_command)
@shared
@click.option("--text", required=True, metavar="FILE", help="Any document: text, Markdown, PDF.")
@click.option("--facts", type=click.IntRange(1, 120), default=24, show_default=True, help="Facts in the text, evenly spread.")
@_FORMAT
@_SEED
@boundary
def facts(text: str, **flags: Any) -> int:
    """Numbers in plain sentences of a text, asked as the chat asks: how likely the right one is, and how many are said.

    \b
    Example:
      selfextend eval facts --text novel.txt --lengths 8k,16k,32k --methods plain,selfextend,yarn
    """
    from selfextend_local.evaluation.tasks.facts import Facts
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    return evaluate(Facts(read_text(text), **flags), options)


@command.command("planted", **task_command)
@shared
@click.option("--text", metavar="FILE", help="Any document. Default: the sample report, repeated.")
@click.option("--keys", type=click.IntRange(1, 120), default=24, show_default=True, help="Keys in the text, one asked at a time.")
@click.option("--facts", type=click.IntRange(1, 120), default=24, show_default=True, help="Facts in the same text.")
@_FORMAT
@_SEED
@boundary
def planted(text: str | None, **flags: Any) -> int:
    """Keys and facts planted in one text, asked one by one: what selfextend tune measures by, and a check of its promise.

    \b
    Example:
      selfextend eval planted --text novel.txt --lengths 16k --methods selfextend --seed 7
    """
    from selfextend_local.evaluation.tasks.planted import Planted
    from selfextend_local.evaluation.texts import read_text, sample_text

    options = Options.take(flags)
    return evaluate(Planted(read_text(text) if text else sample_text(), **flags), options)


_SAMPLES = click.option("--samples", type=click.IntRange(1), default=8, show_default=True, help="Questions for each task and length.")


@command.command("ruler", **task_command)
@shared
@click.option("--text", metavar="FILE", help="Any document, to hide needles in; without it, the tasks that need none are asked.")
@click.option("--tasks", "parts", type=ListOf("NAMES", str), help="Of RULER's eleven synthetic tasks. Default: all.")
@_SAMPLES
@_FORMAT
@click.option("--seed", type=int, default=42, show_default=True)
@boundary
def ruler(text: str | None, parts: tuple[str, ...] | None, **flags: Any) -> int:
    """RULER's synthetic tasks at any length, and the effective length of each method.

    \b
    Examples:
      selfextend eval ruler --text novel.txt --lengths 4k,8k,16k --methods plain,yarn,selfextend --plot ruler.png
      selfextend eval ruler --tasks niah_single_1,vt --lengths 0.5x,1x,2x,4x --samples 16

    Tasks: niah_single_1 to _3, niah_multikey_1 to _3, niah_multivalue, niah_multiquery, vt, cwe, fwe. A length counts the
    prompt and the answer. Score: the share of the wanted values that the answer contains.
    """
    from selfextend_local.evaluation.tasks.ruler.task import PARTS, WITH_ESSAY, Ruler
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    if unknown := [name for name in parts or () if name not in PARTS]:
        raise click.UsageError(f"{unknown[0]!r} is no task of RULER. There are {', '.join(PARTS)}.")
    chosen = parts or tuple(name for name in PARTS if text or name not in WITH_ESSAY)
    return evaluate(Ruler(chosen, read_text(text) if text else None, **flags), options)


@command.command("babilong", **task_command)
@shared
@click.option("--text", required=True, metavar="FILE", help="Any document, best a novel.")
@click.option("--tasks", "parts", type=ListOf("NAMES", one_of(("qa1", "qa2", "qa3"))), default="qa1,qa2,qa3", show_default=True)
@_SAMPLES
@_FORMAT
@click.option("--seed", type=int, default=42, show_default=True)
@boundary
def babilong(text: str, **flags: Any) -> int:
    """Who went where and carried what, told between the sentences of a novel: one, two or three facts have to be put together.

    \b
    Example:
      selfextend eval babilong --text novel.txt --lengths 4k,16k --methods plain,selfextend,yarn
    """
    from selfextend_local.evaluation.tasks.babilong import BabiLong
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    return evaluate(BabiLong(read_text(text), **flags), options)


@command.command("gap", **task_command)
@shared
@click.option("--text", required=True, metavar="FILE", help="Any document.")
@click.option("--samples", type=click.IntRange(1), default=12, show_default=True, help="Questions at each length.")
@_FORMAT
@click.option("--seed", type=int, default=42, show_default=True)
@boundary
def gap(text: str, **flags: Any) -> int:
    """A needle that shares no word with its question, so that meaning has to find it.

    \b
    Example:
      selfextend eval gap --text novel.txt --lengths 4k,16k --methods plain,selfextend,yarn
    """
    from selfextend_local.evaluation.tasks.gap import LexicalGap
    from selfextend_local.evaluation.texts import read_text

    options = Options.take(flags)
    return evaluate(LexicalGap(read_text(text), **flags), options)


@command.command("qa", **task_command)
@shared
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Lines of JSON, or one list.",
)
@click.option("--max-tokens", type=click.IntRange(1), default=48, show_default=True, help="Of an answer.")
@_FORMAT
@boundary
def qa(data: Path, **flags: Any) -> int:
    """Questions about documents, graded with F1, ROUGE-L and exact match.

    \b
    Example:
      selfextend eval qa --data multifieldqa_en.jsonl --lengths 4k,8k,16k --methods plain,selfextend

    A line of --data: {"context": "the document", "input": "the question", "answers": ["...", "..."]}, which is LongBench's form.
    Those of LongBench v2, InfiniteBench, L-Eval, NarrativeQA, HotpotQA, MuSiQue, QuALITY and SQuAD are read too, as lines or as one list.
    A question stands at the shortest of --lengths that holds it whole; no document is cut.
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.evaluation.prompting import PeekTokenizer
    from selfextend_local.evaluation.tasks.qa import QuestionAnswering
    from selfextend_local.evaluation.tasks.qa_data import read_cases

    options = Options.take(flags)
    cases, record = read_cases(data)
    with ModelPeek(model_or_default(options.model)) as peek:
        lengths = tuple(sorted({tokens_of(length, peek.info.n_ctx_train) for length in options.lengths}))
        task = QuestionAnswering(cases, record, lengths, **flags)
        if left_out := task.too_long(PeekTokenizer(peek)):
            output.say(f"{left_out} of {len(cases)} questions don't fit {max(lengths):,} tokens and are left out.")
    return evaluate(task, options)
