"""The pages that a model looked at for a question: under recall each layer says which far text it fetched.

Knows what was fetched, documents, and where they stand in a prompt. Must not know how an answer is shown, nor what it says.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from selfextend_local.documents.document import page_marker
from selfextend_local.positions import RECALL_SPAN

from .prompt import document_text

if TYPE_CHECKING:
    from selfextend_local.documents import Document, Page
    from selfextend_local.engine.llama import Fetched, SelfExtendLlama
    from selfextend_local.generation.prompts import Prompts

MOST_PAGES = 3
LEAST_SHARE = 0.5
"""Pages are named whose weight is at least that share of the first one's."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A page that the model looked at when it read a question. `weight`: of all pages' weights a share. A page weighs the square of the
    largest share of attention that a query of the question gave to a token of it, summed over layers."""

    document: Document
    page: Page
    weight: float


class Looking:
    """Listens while questions are read. What is fetched while the answer is written says little: docs/benchmarks.md has the figures."""

    def __init__(self, llm: SelfExtendLlama) -> None:
        self._llm = llm
        self._prompt: Sequence[int] = ()
        self._read = 0
        self._layers: list[Fetched] = []

    def reading(
        self, prompt: Sequence[int], start: int, progress: Callable[[int, int], None] | None
    ) -> Callable[[int, int], None]:
        """`progress` of a prefill of `prompt`, which notes what is fetched behind position `start`, where the question begins. What was
        noted of the same prompt stays: of a question that is asked again only the last token is read."""
        if self._prompt != prompt:
            self._prompt, self._read, self._layers = prompt, start, []

        def report(done: int, total: int) -> None:
            if done and self._llm.n_tokens > self._read and self._llm.group_attention.recall:
                self._layers += self._llm.fetched()
                self._read = self._llm.n_tokens
            if progress:
                progress(done, total)

        return report

    def pages(self, prompts: Prompts, stops: Sequence[int], documents: Sequence[Document]) -> tuple[LookedAt, ...]:
        """The pages looked at most, the first one most; none without recall, or without pages. `stops`: those of the prompt."""
        if not any(layer.tokens for layer in self._layers):
            return ()
        places = _places(self._llm, prompts, self._prompt, stops, documents)
        starts = [start for start, _, _ in places]
        weights = [0.0] * len(places)
        for layer in self._layers:
            best: dict[int, float] = {}
            for token, share in zip(layer.tokens, layer.shares, strict=True):
                at = bisect_right(starts, token + RECALL_SPAN // 2) - 1
                best[at] = max(share, best.get(at, 0.0))
            for at, share in best.items():
                if at >= 0 and places[at][2] is not None:
                    weights[at] += share**2
        order = sorted(range(len(places)), key=lambda at: -weights[at])[:MOST_PAGES]
        found = [(*places[at], weights[at] / (sum(weights) or 1.0)) for at in order if weights[at] >= LEAST_SHARE * max(weights) > 0]
        return tuple(LookedAt(document, page, weight) for _, document, page, weight in found if page is not None)


def _places(
    llm: SelfExtendLlama, prompts: Prompts, prompt: Sequence[int], stops: Sequence[int], documents: Sequence[Document]
) -> list[tuple[int, Document, Page | None]]:
    """(first token, document, page) of each page in a prompt; page None for what is in front of the pages, and behind a document."""
    found: list[tuple[int, Document, Page | None]] = []
    ahead = iter(stops)
    for document in documents:
        text = document_text(document)
        tokens = list(prompts.message("user", text).tokens)
        start, end = next(((stop - len(tokens), stop) for stop in ahead if prompt[max(0, stop - len(tokens)) : stop] == tokens), (0, 0))
        if not end:
            continue
        ends = list(accumulate(len(llm.detokenize([token])) for token in prompt[start:end]))
        at = size = 0
        found.append((start, document, None))
        for page in document.pages if document.paged else ():
            if page.text and (place := text.find(page_marker(page.label), at)) >= 0:
                size += len(text[at:place].encode())
                found.append((start + bisect_right(ends, size), document, page))
                at = place
        found.append((end, document, None))
    return found
