"""Facts planted in documents of fifty pages: is the page that holds the fact among those that the model looked at for the question?

    python docs/benchmarks/looked.py MODEL.gguf TEXT.txt [--documents N] [--threads N]

Prints how often the first page and one of at most three is the right one, the share of the named pages that are right, and the same of
BM25 (SQLite's, the best passage of a page). 24 facts a document, in the wordings of recall.py.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path

from recall import PLACES, WORDINGS

from selfextend_local.chat.looked import LEAST_SHARE, MOST_PAGES, Looking
from selfextend_local.chat.prompt import first_question, system_prompt
from selfextend_local.documents import Document, Page
from selfextend_local.documents.search import PassageIndex
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.generation.prompts import ModelVocabulary, Prompts

PAGES, WORDS = 50, 200


def planted(words: list[str], number: int) -> tuple[Document, list[tuple[str, str]]]:
    """A document, and (question, label of the page that answers it)."""
    chosen = random.Random(number)
    first = 2000 + number * PAGES * WORDS
    pages = [" ".join(words[first + i * WORDS : first + (i + 1) * WORDS]) for i in range(PAGES)]
    asked = []
    for i, (place, page) in enumerate(zip(PLACES, chosen.sample(range(PAGES), len(PLACES)), strict=True)):
        value = chosen.randrange(1000, 99_999)
        statement, question = (part.format(place=place, number=value) for part in WORDINGS[i % len(WORDINGS)][:2])
        sentences = pages[page].split(". ")
        sentences[chosen.randrange(1, max(2, len(sentences) - 1))] += f". {statement[:-1]}"
        pages[page] = ". ".join(sentences)
        asked.append((question, str(page + 1)))
    numbered = tuple(Page(i, str(i), text) for i, text in enumerate(pages, start=1))
    return Document(Path("x.txt"), "A story", numbered, (), paged=True), asked


def named(weights: Mapping[str, float]) -> list[str]:
    order = sorted(weights, key=lambda label: -weights[label])[:MOST_PAGES]
    return [label for label in order if weights[label] >= LEAST_SHARE * weights[order[0]]]


def say(name: str, found: list[tuple[list[str], str]]) -> None:
    first = sum(labels[:1] == [right] for labels, right in found)
    right = sum(right in labels for labels, right in found)
    pages = sum(len(labels) for labels, _ in found)
    precision, each = right / max(1, pages), pages / len(found)
    print(f"{name}: first {first} of {len(found)}, named {right}, precision {precision:.2f}, {each:.1f} pages named")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--documents", type=int, default=1)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    words = Path(options.text).read_text(encoding="utf-8").split(" ")
    llm = SelfExtendLlama(options.model, ga_mode="recall", need_tokens=24_000, n_threads=options.threads)
    prompts = Prompts(ModelVocabulary(llm))
    looked, searched = [], []
    for number in range(options.documents):
        document, asked = planted(words, number)
        with PassageIndex([document]) as index:
            for question, right in asked:
                parts = first_question([document], question)
                system = prompts.message("system", system_prompt([document], None) or "")
                tokens, stops = prompts.laid_out([system, prompts.message("user", *parts)])
                looking = Looking(llm)
                llm.prefill(tokens, expect=23_900, stops=stops, progress=looking.reading(tokens, stops[-1], None))
                found = looking.pages(prompts, stops, [document])
                looked.append(([one.page.label for one in found], right))
                best: dict[str, float] = {}
                for passage, score in index.scores(question).items():
                    label = index.passages[passage].page.label
                    best[label] = max(score, best.get(label, 0.0))
                searched.append((named(best), right))
        say("looked at", looked)
        say("BM25", searched)


if __name__ == "__main__":
    main()
