"""-p and its flags, without a terminal: what goes where, what --json holds, what --overflow does, and --continue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.process, pytest.mark.native]

Once = Callable[..., Any]
REPORT = [
    "answer", "prompt_tokens", "completion_tokens", "ga_n", "ga_w", "ga_mode", "n_ctx", "n_ctx_train", "documents", "timings",
    "stop_reason", "citations", "looked_at", "overflow",
]  # fmt: skip


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pages of which one speaks of the vault: 16,000 bytes, a token each."""
    pages = [f"This is page {i}, about weather and wind. " * 9 for i in range(1, 41)]
    pages[29] = "The vault opens at nine. The warden has the key to the vault."
    path = tmp_path_factory.mktemp("documents") / "book.txt"
    path.write_text("\f".join(pages), encoding="utf-8")
    return path


def report(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_report(once: Once, paged_document: Path) -> None:
    found = report(once("--doc", str(paged_document), "-p", "Which key? 1", "--json"))
    assert list(found) == REPORT
    assert found["answer"] == "The key is **48213** [page 2]."
    assert found["overflow"] is None
    (citation,) = found["citations"]
    assert (citation["page"], citation["status"], citation["document"]) == ("2", "verified", str(paged_document))
    assert "says the warden" in citation["passage"]


def test_thoughts_are_never_in_the_answer(once: Once) -> None:
    found = report(once("-p", "Think 4", "--json"))
    assert (found["answer"], found["thinking"]) == ("Forty-two.", "Let me see.")
    done = once("-p", "Think 4")
    assert done.stdout == "Forty-two.\n"
    assert "(thinking)\nLet me see.\n(end of thinking)" in done.stderr
    assert "Let me see" not in once("-p", "Think 4", "--think", "hide").stderr


def test_no_cite(once: Once, paged_document: Path) -> None:
    assert report(once("--doc", str(paged_document), "-p", "Which key? 1", "--json", "--no-cite"))["citations"] == []


def test_a_document_from_stdin(once: Once) -> None:
    found = report(once("--doc", "-", "-p", "Which key? 1", "--json", stdin="Some text from a pipe."))
    assert found["documents"][0]["tokens"] > 20


def test_pages_of_each_document(once: Once, paged_document: Path, short_document: Path) -> None:
    whole = report(once("--doc", str(paged_document), "-p", "a 1", "--json"))["prompt_tokens"]
    part = report(once("--doc", str(paged_document), "--pages", "1,3", "-p", "a 1", "--json"))["prompt_tokens"]
    assert part < whole
    two = ("--doc", str(paged_document), "--doc", str(short_document))
    assert once(*two, "--pages", "2", "-p", "a").returncode == 2
    assert once(*two, "--pages", "2", "--pages", "all", "-p", "Which key? 1").returncode == 0
    assert "has no page '7'" in once("--doc", str(paged_document), "--pages", "7", "-p", "a").stderr


def test_too_long_is_an_error_with_figures_and_fixes(once: Once, book: Path) -> None:
    done = once("--doc", str(book), "--ga-n", "1", "-p", "Who has the key? 1")
    assert done.returncode == 1
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert re.match(r"error: [\d,]+ tokens are [\d,]+ more than the 8,192 that fit\. Take --ga-n \d+, or --ga-n auto\.", line)
    assert "--overflow select" in line and "--pages" in line
    assert once("--doc", str(book), "--ga-n", "1", "--overflow", "error", "-p", "a").returncode == 1


@pytest.mark.parametrize(("mode", "said"), [("trim", "left out"), ("select", "29-31")])
def test_overflow_reads_what_fits_and_says_what(once: Once, book: Path, mode: str, said: str) -> None:
    arguments = ("--doc", str(book), "--ga-n", "1", "--overflow", mode, "--max-tokens", "64", "-p", "Who has the key to the vault? 1")
    found = report(once(*arguments, "--json"))
    assert found["overflow"]["mode"] == mode
    assert said in found["overflow"]["note"]
    assert found["prompt_tokens"] + 64 <= 8192
    assert f"overflow: {found['overflow']['note']}" in once(*arguments).stderr


def test_overflow_summarize_goes_over_all_of_it(once: Once, book: Path) -> None:
    arguments = ("--doc", str(book), "--ga-n", "1", "--overflow", "summarize", "--max-tokens", "64")
    found = report(once(*arguments, "-p", "Who has the key to the vault? 1", "--json"))
    assert list(found) == REPORT
    assert found["answer"] == "The key is **48213** [page 2]."
    parts = found["overflow"]["parts"]
    assert (parts[0][0], parts[-1][1]) == ("1", "40")
    assert len(parts) > 1


def test_a_conversation_about_too_long_a_document_is_about_notes(once: Once, book: Path) -> None:
    done = once("--doc", str(book), "--ga-n", "1", "--overflow", "summarize", "--max-tokens", "64", stdin="Which key? 1\n/context\n")
    assert done.returncode == 0, done.stderr
    assert "notes are taken, a part at a time" in done.stderr
    assert "Notes on book" in done.stderr
    assert done.stdout == "The key is **48213** [page 2].\n"


def test_overflow_changes_nothing_that_fits(once: Once, paged_document: Path) -> None:
    assert report(once("--doc", str(paged_document), "--overflow", "select", "-p", "a 1", "--json"))["overflow"] is None


def test_one_question_needs_no_room_for_a_conversation(once: Once, tmp_path: Path) -> None:
    snug = tmp_path / "snug.txt"
    snug.write_text("x" * 7900, encoding="utf-8")
    arguments = ("--doc", str(snug), "--ga-n", "1", "--max-tokens", "100")
    assert once(*arguments, "-p", "Which key? 1").returncode == 0
    # A conversation gets what room there is.
    done = once(*arguments, stdin="Which key? 1\n")
    assert done.stdout == "The key is **48213** [page 2].\n", done.stderr


def test_a_conversation_that_fills_the_window_gets_a_larger_one(once: Once) -> None:
    done = once("--ga-mode", "progressive", stdin=f"Which key? 1\n{'long ' * 700}1\n/context\n{'long ' * 90_000}1\n/undo\n")
    assert done.stdout == "The key is **48213** [page 2].\n" * 2, done.stderr
    assert "The window was full and has been made larger." in done.stderr
    assert "2 questions and answers" in done.stderr
    assert re.search(r"error: The conversation would take [\d,]+ tokens and the context holds", done.stderr)
    assert "Forgotten: long long" in done.stderr


def test_select_chooses_with_the_first_question_of_a_conversation(once: Once, book: Path) -> None:
    done = once("--doc", str(book), "--ga-n", "1", "--overflow", "select", "--max-tokens", "64",
                stdin="Who has the key to the vault? 1\n/context\n/exit\n")  # fmt: skip
    assert done.returncode == 0
    assert "the passages that match your first question will be read" in done.stderr
    assert re.search(r"overflow: Pages .*29-31 of 40 are in", done.stderr), done.stderr
    assert done.stdout.startswith("The key is")
    again = once("--continue", "--ga-n", "1", stdin="/context\n").stderr
    assert re.search(r"overflow: Pages .*29-31 of 40 are in", again), again


def test_continue_brings_the_last_chat_back(once: Once, paged_document: Path) -> None:
    assert "no chat to continue" in once("--continue").stderr
    assert once("--doc", str(paged_document), "--max-tokens", "50", stdin="Which key? 1\n").returncode == 0
    done = once("--continue", stdin="/doc list\n/set max-tokens\n/undo\n/undo\n")
    assert done.returncode == 0, done.stderr
    assert "> Which key? 1" in done.stderr
    assert "1  vault: 3 pages" in done.stderr
    assert re.search("max-tokens +50 ", done.stderr)
    assert "Forgotten: Which key? 1" in done.stderr
    assert "Nothing has been asked yet" in done.stderr


def test_continue_says_so_when_the_document_has_changed(once: Once, tmp_path: Path) -> None:
    document = tmp_path / "notes.txt"
    document.write_text("First text.", encoding="utf-8")
    once("--doc", str(document), stdin="Which key? 1\n")
    document.write_text("Second text.", encoding="utf-8")
    assert "notes has changed since this chat" in once("--continue", stdin="").stderr


def test_what_was_read_is_not_read_again(once: Once, tmp_path: Path) -> None:
    document = tmp_path / "long.txt"
    document.write_text("Words to be read once. " * 100, encoding="utf-8")
    question = ("--doc", str(document), "-p", "Which key? 1")
    assert "kept" not in once(*question).stderr
    kept = re.search(r"([\d,]+) prompt tokens \(([\d,]+) kept from disk\)", once(*question).stderr)
    assert kept
    assert "kept" not in once(*question, "--no-cache").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--doc", "-", "-p", "-"], "stdin can be read once"),
        (["--pages", "3"], "--pages is given 1 times and --doc 0 times"),
        (["--continue", "--doc", "a.pdf"], "--continue brings the documents of the last chat"),
        (["--overflow", "guess", "-p", "x"], "is not one of"),
        (["--think", "maybe", "-p", "x"], "is not one of"),
    ],
)
def test_flags_that_contradict_each_other(once: Once, arguments: list[str], message: str) -> None:
    done = once(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
