"""Questions about the twelve stories of *The Adventures of Sherlock Holmes*, each with its story as the document: LongBench's format.

    python docs/results/sherlock_qa.py sherlock-holmes.txt [STORIES] [CHARACTERS] >sherlock-qa.jsonl

The text is Project Gutenberg 1661 and isn't in this repository. With STORIES each document holds so many stories, the one that is
asked about at another place in each. With CHARACTERS it is cut to so many around a place where an answer stands.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_HEADING = re.compile(r"^(?:ADVENTURE )?[IVX]+\. (?:[A-Z' -]+)$", re.MULTILINE)

QUESTIONS: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (
        ("What is the name of the woman who keeps the photograph?", ("Irene Adler", "Adler")),
        ("Of which country is the client king?", ("Bohemia",)),
    ),
    (
        ("What did Jabez Wilson have to copy for the League?", ("the Encyclopædia Britannica", "the Encyclopaedia")),
        ("Under which name did John Clay work as Wilson's assistant?", ("Vincent Spaulding", "Spaulding")),
    ),
    (
        ("What is the name of the man whom Miss Sutherland was to marry?", ("Hosmer Angel", "Mr. Hosmer Angel")),
        ("Who was Hosmer Angel in truth?", ("James Windibank", "Mr. Windibank", "her stepfather")),
    ),
    (
        ("What is the name of the man who was murdered at the pool?", ("Charles McCarthy", "McCarthy")),
        ("In which country had McCarthy and Turner known each other before?", ("Australia",)),
    ),
    (
        ("Which three letters stood on the envelopes with the orange pips?", ("K. K. K.", "KKK")),
        ("What was the name of the ship that Holmes traced?", ("Lone Star", "the Lone Star")),
    ),
    (
        ("Under which name did Neville St. Clair beg in the City?", ("Hugh Boone", "Boone")),
        ("With what did Holmes wash the prisoner's face?", ("a sponge", "a very large bath-sponge", "a wet sponge")),
    ),
    (
        ("In which bird was the blue stone found?", ("a goose", "the goose")),
        ("Who stole the blue carbuncle?", ("James Ryder", "Ryder")),
    ),
    (
        ("What was the speckled band?", ("a snake", "a swamp adder")),
        ("What is the name of the stepfather of Helen Stoner?", ("Dr. Grimesby Roylott", "Grimesby Roylott")),
    ),
    (
        ("What did the engineer Victor Hatherley lose?", ("his thumb", "a thumb")),
        ("What did the men make with the hydraulic press?", ("counterfeit coins", "coins", "false money")),
    ),
    (
        ("What is the name of the lord who lost his bride?", ("Lord St. Simon", "Lord Robert St. Simon")),
        ("From which city in America came the bride?", ("San Francisco",)),
    ),
    (
        ("What is the name of the banker who was given the coronet?", ("Alexander Holder", "Holder")),
        ("How many beryls were missing from the coronet?", ("three",)),
    ),
    (
        ("What was Miss Hunter asked to do with her hair?", ("cut it short", "cut it quite short", "cut it off")),
        ("What is the name of the gentleman who engaged Miss Hunter?", ("Jephro Rucastle", "Mr. Rucastle")),
    ),
)


def stories(text: str) -> list[str]:
    """The twelve stories with their headings. Raises SystemExit if this is another text."""
    body = text.partition("*** END OF")[0]
    starts = [match.start() for match in _HEADING.finditer(body)][-len(QUESTIONS) :]
    if len(starts) != len(QUESTIONS):
        raise SystemExit("This isn't The Adventures of Sherlock Holmes of Project Gutenberg: twelve headings are wanted.")
    return [body[start:end].strip() for start, end in zip(starts, [*starts[1:], len(body)], strict=True)]


def documents(texts: list[str], count: int) -> list[str]:
    """For each story a run of `count` stories that holds it, as the first, the second, … and the first again."""
    firsts = [index - index % count for index in range(len(texts))]
    return ["\n\n".join(texts[(first + offset) % len(texts)] for offset in range(count)) for first in firsts]


def cut(context: str, answers: Sequence[str], characters: int) -> str:
    """So many characters at most, at paragraph ends, around the first place at which an answer stands."""
    if not characters or len(context) <= characters:
        return context
    places = [place for answer in answers if (place := context.lower().find(answer.lower())) >= 0]
    begin = min(max(0, min(places, default=0) - characters // 2), len(context) - characters)
    return context[begin : begin + characters].partition("\n\n")[2].rpartition("\n\n")[0]


def main() -> None:
    texts = stories(Path(sys.argv[1]).read_text(encoding="utf-8"))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    characters = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    for context, questions in zip(documents(texts, count), QUESTIONS, strict=True):
        for question, answers in questions:
            print(json.dumps({"context": cut(context, answers, characters), "input": question, "answers": answers}, ensure_ascii=False))


if __name__ == "__main__":
    main()
