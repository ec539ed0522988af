"""What to read when documents are longer than the window: the passages that match a question, or the beginning.

Knows scores and a budget in tokens, which it never exceeds; how tokens are counted is the caller's. Says which pages are
in. Must not know models, prompts or the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from selfextend_local.documents.document import Document, Page, page_marker
from selfextend_local.documents.passages import Passage, passages_of
from selfextend_local.documents.search import PassageIndex

Count = Callable[[str], int]

GAP = "[…]"
_NEIGHBOUR = 0.35  # share of a passage's score that the ones beside it get: answers run on, and questions name the subject once
_TRIES = 12  # passages in a row that are found too long before the search for a shorter one ends


@dataclass(frozen=True, slots=True)
class Selection:
    """What was kept.

    Attributes:
        documents: those of which something was kept, with that text only and […] where text is missing.
        text: of all of them, with page markers, as the model is to read it.
        tokens: of `text`, as counted by the caller's function; at most the budget.
        pages: for each document given, labels of its pages that are in, in whole or in part.
        sentence: for the user, e.g. "Pages 1, 14-19 of 391 are in."
        complete: whether nothing had to be left out.
    """

    documents: tuple[Document, ...]
    text: str
    tokens: int
    pages: tuple[tuple[str, ...], ...]
    sentence: str
    complete: bool


def select_passages(documents: Sequence[Document], question: str, budget_tokens: int, count: Count) -> Selection:
    """The passages that match `question` best (BM25), in document order, in at most `budget_tokens`.

    The opening of each document comes first if it takes no more than a quarter of the budget, since it says what the
    document is. Passages that share no word with the question are left out even if there is room.

    Args:
        budget_tokens: for `Selection.text`; titles, the question and the answer are the caller's to reserve.
        count: tokens of a text; called about once for each passage that is considered.

    Raises LibraryError if SQLite has no FTS5.
    """
    whole = _whole_if_it_fits(documents, budget_tokens, count)
    if whole is not None:
        return whole
    with PassageIndex(documents) as index:
        passages, scores = index.passages, index.scores(question)
    if not scores:
        kept = trim(documents, budget_tokens, count)
        return replace(kept, sentence=f"No word of the question is in the text, so its beginning is taken. {kept.sentence}")
    budget = _Budget(passages, budget_tokens, count)
    for own in _by_document(passages).values():
        budget.take(own[0], at_most=budget_tokens // 4)
    missed = 0
    for i in _best_first(passages, scores):
        missed = 0 if budget.take(i) else missed + 1
        if missed == _TRIES:
            break
    return _within(documents, passages, budget.taken, budget_tokens, count)


def trim(documents: Sequence[Document], budget_tokens: int, count: Count) -> Selection:
    """The beginning, in at most `budget_tokens`; the sentence names the pages that are left out."""
    whole = _whole_if_it_fits(documents, budget_tokens, count)
    if whole is not None:
        return whole
    passages = tuple(p for document in documents for p in passages_of(document))
    budget = _Budget(passages, budget_tokens, count)
    for i in range(len(passages)):
        if not budget.take(i):
            break
    return _within(documents, passages, budget.taken, budget_tokens, count, name_missing=True)


def _whole_if_it_fits(documents: Sequence[Document], budget_tokens: int, count: Count) -> Selection | None:
    text = _text(documents)
    # Few tokens are longer than 64 characters, and those are rows of spaces; this saves counting a whole library.
    if len(text) > 64 * max(budget_tokens, 0):
        return None
    tokens = count(text)
    if tokens > budget_tokens:
        return None
    return Selection(tuple(documents), text, tokens, tuple(map(_labels, documents)), "Everything is in.", True)


def _best_first(passages: Sequence[Passage], scores: dict[int, float]) -> list[int]:
    smoothed = dict(scores)
    for a, b in pairwise(range(len(passages))):
        if passages[a].document is passages[b].document:
            smoothed[a] = smoothed.get(a, 0.0) + _NEIGHBOUR * scores.get(b, 0.0)
            smoothed[b] = smoothed.get(b, 0.0) + _NEIGHBOUR * scores.get(a, 0.0)
    return sorted((i for i, score in smoothed.items() if score > 0), key=lambda i: (-smoothed[i], i))


class _Budget:
    """Passages taken so far, and an estimate of what they cost with their markers; each text is counted once."""

    def __init__(self, passages: Sequence[Passage], tokens: int, count: Count) -> None:
        self.taken: list[int] = []
        self._passages, self._count, self._tokens = passages, count, tokens
        self._gap = count(f"\n\n{GAP}\n\n")
        self._costs: dict[int, int] = {}
        self._kept: set[int] = set()
        self._marked: set[tuple[int, int]] = set()
        self._spent = 0

    def take(self, i: int, at_most: int | None = None) -> bool:
        """Take passage `i` if there is room for it, and if it costs no more than `at_most`."""
        if i in self._kept:
            return True
        passage = self._passages[i]
        page = (id(passage.document), passage.page.number)
        if i not in self._costs:
            self._costs[i] = self._count(passage.text) + 1
        cost = self._costs[i] + self._new_gaps(i)
        if passage.document.paged and page not in self._marked:
            cost += self._count(page_marker(passage.page.label)) + 2
        if self._spent + cost > self._tokens or (at_most is not None and cost > at_most):
            return False
        self._spent += cost
        self._marked.add(page)
        self._kept.add(i)
        self.taken.append(i)
        return True

    def _new_gaps(self, i: int) -> int:
        """Tokens for the gap marks that passage `i` adds, negative if it closes a gap."""
        beside = (i - 1 in self._kept) + (i + 1 in self._kept)
        return (1 - beside) * self._gap


def _within(
    documents: Sequence[Document],
    passages: Sequence[Passage],
    taken: Sequence[int],
    budget_tokens: int,
    count: Count,
    *,
    name_missing: bool = False,
) -> Selection:
    """The selection of the passages `taken`, the last ones given up until the text as a whole is within the budget."""
    kept, own = list(taken), _by_document(passages)
    while True:
        reduced = [_reduced(document, passages, own.get(id(document), ()), frozenset(kept)) for document in documents]
        left = tuple(document for document in reduced if document.pages)
        text = _text(left)
        tokens = count(text) if text else 0
        if tokens <= budget_tokens or not kept:
            break
        # Costs of single passages are off by a token or two, so one passage is given up, seldom more.
        over = tokens - budget_tokens
        while kept and over > 0:
            over -= count(passages[kept.pop()].text)
    sentence = _sentence(documents, reduced, name_missing)
    return Selection(left, text, tokens, tuple(map(_labels, reduced)), sentence, False)


def _by_document(passages: Sequence[Passage]) -> dict[int, list[int]]:
    """The places of each document's passages, by the document's id()."""
    places: dict[int, list[int]] = {}
    for i, passage in enumerate(passages):
        places.setdefault(id(passage.document), []).append(i)
    return places


def _reduced(document: Document, passages: Sequence[Passage], own: Sequence[int], kept: frozenset[int]) -> Document:
    """`document` with the kept of its `own` passages only; without pages if there are none."""
    left = [i for i in own if i in kept]
    pages: list[Page] = []
    for _, group in groupby(left, key=lambda i: passages[i].page.number):
        places = list(group)
        pages.append(replace(passages[places[0]].page, text=_page_text(places, passages, kept, own, left[0])))
    return replace(document, pages=tuple(pages), unreadable_pages=())


def _page_text(group: Sequence[int], passages: Sequence[Passage], kept: Collection[int], own: Sequence[int], first: int) -> str:
    """The kept passages of a page. A gap is marked where it begins, and at the very start of a document, of which `first` is kept first."""
    parts: list[str] = []
    for i in group:
        if i == first and i != own[0]:
            parts.append(GAP)
        parts.append(passages[i].text)
        if i != own[-1] and i + 1 not in kept:
            parts.append(GAP)
    return "\n\n".join(parts)


def _text(documents: Iterable[Document]) -> str:
    return "\n\n".join(document.text_with_markers() for document in documents)


def _labels(document: Document) -> tuple[str, ...]:
    return tuple(page.label for page in document.pages if page.text)


def _sentence(documents: Sequence[Document], reduced: Sequence[Document], name_missing: bool) -> str:
    """Which pages of each document are in, and on request which are not."""
    several = len(documents) > 1
    shares = [_share(document, left, name_missing) for document, left in zip(documents, reduced, strict=True)]
    if not several:
        return shares[0][0].upper() + shares[0][1:] + "."
    return "; ".join(f"{document.title}: {share}" for document, share in zip(documents, shares, strict=True)) + "."


def _share(document: Document, left: Document, name_missing: bool) -> str:
    if not left.pages:
        return "nothing is in"
    if not document.paged:
        share = sum(len(page.text) for page in left.pages) / sum(len(page.text) for page in document.pages)
        return f"about {max(1, min(99, round(100 * share)))} % of the text is in"
    inside = {page.number for page in left.pages}
    kind, verb = ("page", "is") if len(inside) == 1 else ("pages", "are")
    said = f"{kind} {document.names(inside)} of {document.page_count} {verb} in"
    missing = [page.number for page in document.pages if page.text and page.number not in inside]
    return f"{said}, {document.names(missing)} left out" if name_missing and missing else said
