"""docs/results/pride_qa.py: documents that questions share, and answers that stand where they are said to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "results" / "pride_qa.py"

TEXT = """THE GARDEN

Contents

Chapter 1
Chapter 2
Chapter 3

Chapter 1

The gardener was called Old

Tom, and he planted three hundred
tulips.

Chapter 2

The dog buried a silver spoon under the Pear-tree.

Chapter 3

Nobody found it.

End of the  Project  Gutenberg EBook of The Garden

A licence
"""


@pytest.fixture(scope="module")
def pride() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pride_qa", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_questions_of_a_part_share_its_chapters_and_name_answers_that_stand_in_them(pride: ModuleType) -> None:
    asked = (pride.Asked(1, "Who planted tulips?", ("Old Tom", "Tom")), pride.Asked(2, "Under what was the spoon?", ("the pear-tree",)))
    made = list(pride.rows(TEXT, (pride.Part(1, 2, asked), pride.Part(3, 3, (pride.Asked(3, "Who found it?", ("nobody",)),)))))
    assert [(row["input"], row["answers"]) for row in made] == [
        ("Who planted tulips?", ("Old Tom", "Tom")),
        ("Under what was the spoon?", ("the pear-tree",)),
        ("Who found it?", ("nobody",)),
    ]
    assert made[0]["context"] == made[1]["context"]
    assert made[0]["context"].startswith("Chapter 1\n\nThe gardener") and made[0]["context"].endswith("under the Pear-tree.")
    assert made[2]["context"] == "Chapter 3\n\nNobody found it."


@pytest.mark.parametrize(("chapter", "answer"), [(1, "Old Tim"), (2, "Old Tom"), (1, "hundred tulip"), (1, "ree hundred")])
def test_an_answer_that_stands_elsewhere_or_nowhere_is_refused(pride: ModuleType, chapter: int, answer: str) -> None:
    with pytest.raises(SystemExit, match="doesn't stand in chapter"):
        list(pride.rows(TEXT, (pride.Part(1, 3, (pride.Asked(chapter, "Who?", (answer,)),)),)))


def test_another_text_is_refused(pride: ModuleType) -> None:
    with pytest.raises(SystemExit, match="chapter 4 is missing"):
        list(pride.rows(TEXT))


def test_there_are_twelve_different_questions_on_each_of_eight_parts(pride: ModuleType) -> None:
    assert len(pride.PARTS) == 8
    assert (pride.PARTS[0].first, pride.PARTS[-1].last) == (1, 61)
    every = [asked for part in pride.PARTS for asked in part.asked]
    assert len({asked.question for asked in every}) == len(every) == 96
    for part in pride.PARTS:
        chapters = [asked.chapter for asked in part.asked]
        assert len(chapters) == 12
        assert chapters == sorted(chapters)
        assert part.first <= chapters[0] and chapters[-1] <= part.last
        # From the beginning to the end: no third of the chapters is left out.
        third = (part.last - part.first + 1) / 3
        assert {int((chapter - part.first) / third) for chapter in chapters} == {0, 1, 2}
    assert all(asked.answers and all(0 < len(answer.split()) <= 8 for answer in asked.answers) for asked in every)
