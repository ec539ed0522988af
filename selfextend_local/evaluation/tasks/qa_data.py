"""Data sets of questions about documents, in the forms that they come in, as cases.

LongBench (also v2), InfiniteBench, L-Eval, NarrativeQA, HotpotQA, MuSiQue, QuALITY and SQuAD, as lines of JSON or as one list. A field is
known by its name, whatever the data set. Knows JSON. It knows no tokens.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from selfextend_local.evaluation.items import TaskError
from selfextend_local.storage.plain_json import loads

CONTEXT = ("context", "contexts", "document", "text", "passage", "article", "story", "paragraphs")
QUESTION = ("question", "query", "input", "instruction")
ANSWERS = ("answers", "answer", "outputs", "output", "targets", "target", "reference", "gold_label")
OPTIONS = ("options", "choices")
_COUNTED_FROM_ONE = "gold_label"
_LETTERS = string.ascii_uppercase[:8]


@dataclass(frozen=True)
class Case:
    """A document, a question about it, and answers that would be right."""

    context: str
    question: str
    answers: tuple[str, ...]


def read_cases(path: Path) -> tuple[tuple[Case, ...], str]:
    """The cases of a file, and the file's name and hash for the record. Raises TaskError, naming the place."""
    data = path.read_bytes()
    found = []
    for place, held in _objects(data.decode("utf-8-sig", "replace")):
        try:
            found += list(_cases(held))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"has no {error.args[0]}" if isinstance(error, KeyError) else "is not of a known form"
            raise TaskError(
                f'{place} of {path} {what}. Lines are of the form {{"context": …, "input": …, "answers": […]}}; '
                "selfextend eval qa --help names the other forms."
            ) from None
    if not found:
        raise TaskError(f"{path} holds no questions.")
    return tuple(found), f"{path.name} {sha256(data).hexdigest()[:12]}"


def _objects(text: str) -> Iterator[tuple[str, Any]]:
    """What stands in the one list of the file, or on each line, with its place."""
    whole = _parsed(text)
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        whole = whole["data"]
    if isinstance(whole, dict):
        whole = [whole]
    if isinstance(whole, list):
        yield from ((f"Entry {number}", held) for number, held in enumerate(whole, 1))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"Line {number}", _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return None


def _cases(held: Mapping[str, Any]) -> Iterator[Case]:
    """Of one object. Raises KeyError with what is missing, and what else a wrong form causes."""
    if any("qas" in part for part in held.get("paragraphs", ()) if isinstance(part, dict)):  # SQuAD
        for part in held["paragraphs"]:
            yield from (_case(part, asked) for asked in part["qas"] if asked["answers"])
    elif isinstance(held.get("instructions"), list):  # L-Eval: its input is the document
        for question, answer in zip(held["instructions"], held["outputs"], strict=True):
            yield _case({"context": held["input"]}, {"question": question, "answer": answer})
    elif isinstance(held.get("questions"), list):  # QuALITY
        yield from (_case(held, asked) for asked in held["questions"])
    else:
        yield _case(held, held)


def _case(document: Mapping[str, Any], asked: Mapping[str, Any]) -> Case:
    context = _joined(_first(document, CONTEXT, "context")[1])
    question = _joined(_first(asked, QUESTION, "question")[1])
    name, given = _first(asked, ANSWERS, "answer")
    options = _options(asked)
    answers = _strings(given)
    if options:
        question += "".join(f"\n{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))
        answers = _right_option(answers, options, 1 if name == _COUNTED_FROM_ONE else 0)
    if not answers:
        raise KeyError("answer")
    return Case(context, question, tuple(dict.fromkeys(answers)))


def _first(held: Mapping[str, Any], names: Sequence[str], what: str) -> tuple[str, Any]:
    for name in names:
        if held.get(name) not in (None, "", []):
            return name, held[name]
    raise KeyError(what)


def _joined(value: Any) -> str:
    """A text may be an object with a title and a text, or a list of such parts and of lists."""
    if isinstance(value, dict):
        return "\n".join(_joined(value[name]) for name in ("title", "text", "paragraph_text", "sentences") if value.get(name))
    if isinstance(value, list):
        return ("\n" if all(isinstance(part, str) for part in value) else "\n\n").join(filter(None, map(_joined, value)))
    if isinstance(value, str):
        return value
    raise TypeError


def _strings(given: Any) -> list[str]:
    if isinstance(given, dict):
        given = given["text"] if "text" in given else given["aliases"]
    held = given if isinstance(given, list) else [given]
    return [text for one in held if (text := str(one["text"] if isinstance(one, dict) else one)).strip()]


def _options(held: Mapping[str, Any]) -> list[str]:
    lettered = [held[f"choice_{letter}"] for letter in _LETTERS if f"choice_{letter}" in held]  # LongBench v2
    options = lettered or next((held[name] for name in OPTIONS if held.get(name)), [])
    return [str(option) for option in (options.values() if isinstance(options, dict) else options)]


def _right_option(answers: Sequence[str], options: Sequence[str], first: int) -> list[str]:
    """Given is its text, its letter or its number; said may be its text or its letter."""
    known = {str(i + first): option for i, option in enumerate(options)} | dict(zip(_LETTERS, options, strict=False))
    found = [option for answer in answers if (option := answer if answer in options else known.get(answer.strip(), "")) in options]
    return [said for option in found for said in (option, _LETTERS[list(options).index(option)])]
