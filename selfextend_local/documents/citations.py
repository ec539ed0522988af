"""Page references in an answer, each held against the page that it names.

Knows how answers refer to pages, and when a page bears out a quote or a claim. The rule that counts: nothing is called
verified that isn't on the page. So a quote must be there word for word (case, punctuation, hyphens and line breaks
aside; no small differences are forgiven, since one word can be "not"), and a claim without a quote must have all its
telling words, names and numbers within two sentences of the page, in the same order, with the same negations. True
claims in other words are therefore often "unverified", which means no more than that. Must not know models or the
terminal.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, lru_cache

from selfextend_local.documents.document import Document, Page
from selfextend_local.documents.labels import pages_between
from selfextend_local.documents.passages import Passage, passages_of, sentences_of, words_of
from selfextend_local.documents.search import PassageIndex

_LABEL = r"(?:\d{1,7}|[ivxlc]+|[IVXLC]{2,}|[A-Z]{1,3}-?\d{1,5})(?![\w])"
_DASH = r"\s*(?:-|–|—|\bto\b|\bthrough\b)\s*"
_ITEM = rf"{_LABEL}(?:{_DASH}{_LABEL})?"
_REFERENCE = re.compile(rf"\b(?:[Pp]ages?|PAGES?|[Pp]p?\.)\s*(?P<items>{_ITEM}(?:\s*(?:(?:,\s*)?\band\b|[,;&])\s*{_ITEM})*)")
_ITEMS = re.compile(rf"(?P<first>{_LABEL})(?:{_DASH}(?P<last>{_LABEL}))?")
_BRACKETED = re.compile(r"[\[(［【]([^\[\]()［］【】\n]{1,160})[\])］】]")
_NAMED_PAGE = re.compile(r"\s*(?:(?P<title>[^\n]*\S)\s*[,:]\s*)?[Pp]age\s+(?P<label>[^\n]*\S)\s*")
_LEAD = re.compile(r"(?:see|cf|from|in|on|source|ref|and|also|e\.g)\b\.?[\s:]*", re.IGNORECASE)
_QUOTED = re.compile("“([^“”]+)”|\"([^\"\n]+)\"|«([^«»]+)»|„([^„“”]+)[“”]|「([^「」]+)」")
_BEFORE_REFERENCE = re.compile(r"\b(?:see|on|in|from|at|by|to)\s*$", re.IGNORECASE)
_FRAME = re.compile(r"^(?:according to|as (?:stated|mentioned|described|shown|noted) (?:in|on|by))\b[^,]{0,60},", re.IGNORECASE)
_ELLIPSIS = re.compile(r"\[?(?:…|\.\s?\.\s?\.)\]?")
_WHOLE_QUOTE = 4  # words from which on a quote stands for itself; shorter ones only together with their sentence
_STRETCH = 1.5  # words of the page over which a claim may be spread, for each of its own
_BEFORE = 6  # and so many more; also, words before a claim in which a "not" counts
_CLAUSE_END = re.compile(r"[,;:.!?()](?=\D|$)|[—–]|--|\n")
_MOST_SENTENCES = 3  # of a page, that together bear a claim out
_LEAST = 2  # telling words without which a sentence claims too little to be checked
_MOST = 200  # telling words, or quotes, beyond which it claims too much

_NEGATIONS = frozenset("no not never none nobody nothing neither nor cannot without hardly".split())  # noqa: SIM905
# Words that may differ between an answer and the page: they carry grammar, or speak of the document itself.
_GRAMMAR = frozenset(
    """
    a an the of and that this these those it its as which who whom there is are was were be been being am has have had do does did
    according answer document text page pages author says said states stated mentions mentioned describes described passage
    """.split()  # noqa: SIM905
)


class Status(str, Enum):
    """What checking a citation came to; the value is for the user."""

    VERIFIED = "verified"
    NOT_ON_PAGE = "page found, quote not on it"
    UNVERIFIED = "unverified"
    NO_SUCH_PAGE = "no such page"


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in an answer that names a page or a range of pages.

    Attributes:
        start, end: of the whole reference in the answer, brackets included.
        first, last: labels as written; the same for a single page.
        title: of the document, where the answer names it, else "".
    """

    start: int
    end: int
    first: str
    last: str
    title: str = ""

    @property
    def label(self) -> str:
        """The page or range as written."""
        return self.first if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Citation:
    """A reference that has been checked.

    Attributes:
        reference: where it stands in the answer.
        document: the one that has the page; None if none has.
        status: what came of it.
        claim: the quote, or the sentence without its references, that was looked for.
        is_quote: whether `claim` is a quote.
        passage: what on the page is closest to the claim; None if there is no such page or nothing in common.
        elsewhere: label of the page of that document that does hold the quote, if the cited one doesn't.
    """

    reference: Reference
    document: Document | None
    status: Status
    claim: str
    is_quote: bool
    passage: Passage | None
    elsewhere: str | None = None

    @property
    def label(self) -> str:
        """The page or range as the answer writes it."""
        return self.reference.label


def find_citations(answer: str) -> list[Reference]:
    """The page references in `answer`, in order.

    Such as [page 12], [pages 3-5, 9], (p. 12), page iv, pp. 3–5, [Title, page 3], [page Chapter One]. A list gives one
    reference for each of its items, all with the place of the whole.
    """
    found: list[Reference] = []
    starts: list[int] = []
    ends: list[int] = [0]
    for bracket in _BRACKETED.finditer(answer):
        inside = list(_inside(bracket))
        if inside:
            found += inside
            starts.append(bracket.start())
            ends.append(bracket.end())
    for match in _REFERENCE.finditer(answer):
        if match.start() >= ends[bisect_right(starts, match.start())]:
            found += _items(match["items"], *match.span(), "")
    return sorted(found, key=lambda r: r.start)


def _inside(bracket: re.Match[str]) -> Iterator[Reference]:
    """The references in a bracket: "Title, page 3; p. 7", or any label after the word "page"."""
    text = bracket[1]
    matches = list(_REFERENCE.finditer(text))
    # "page 3 Men in a Boat" is a label, "page 3, at the end" is not.
    if matches and not (len(matches) == 1 and re.match(r"\s+\w", text[matches[0].end() :])):
        title = _LEAD.sub("", text[: matches[0].start()].strip(" ,;:-–—"), count=1)
        # A remark that happens to mention a page is no title, but the reference in it counts.
        title = title if len(title) <= 100 else ""
        for match in matches:
            yield from _items(match["items"], *bracket.span(), title)
        return
    named = _NAMED_PAGE.fullmatch(text)
    if named and bracket[0][0] in "[［【":
        yield Reference(*bracket.span(), named["label"], named["label"], named["title"] or "")


def _items(text: str, start: int, end: int, title: str) -> Iterator[Reference]:
    for match in _ITEMS.finditer(text):
        yield Reference(start, end, match["first"], match["last"] or match["first"], title)


def check_citations(answer: str, documents: Sequence[Document]) -> list[Citation]:
    """Each page reference of `answer` with what its page says to it.

    If several documents have the page and the answer doesn't say which is meant, the one that bears it out is taken.
    """
    references = find_citations(answer)
    # A model that has lost its way repeats itself for pages; what is the same is checked once.
    done: dict[tuple[str, str, str], Citation] = {}
    citations = []
    for reference, claim in zip(references, _claims(answer, references), strict=True):
        key = (reference.label, reference.title, claim.text)
        done[key] = done[key] if key in done else _checked(reference, claim, documents)
        citations.append(replace(done[key], reference=reference))
    return citations


def evidence(citation: Citation) -> str | None:
    """The sentence of the page that bears a verified citation out, or the few that do so together; None for any other citation."""
    if citation.status is not Status.VERIFIED or citation.passage is None:
        return None
    text, claim = citation.passage.page.text, citation.claim
    bears_out = holds if citation.is_quote else _supports
    spans = list(sentences_of(text))
    for width in range(1, _MOST_SENTENCES + 1):
        for (start, _), (_, end) in zip(spans, spans[width - 1 :], strict=False):
            if bears_out(text[start:end], claim):
                return text[start:end].strip()
    return citation.passage.text


def suggest_page(sentence: str, documents: Sequence[Document], index: PassageIndex | None = None) -> Passage | None:
    """The passage that bears out a `sentence` without a reference, by the rule of `check_citations`; None if none does.

    Args:
        index: of the same documents, to spare making one.
    """
    if index is None:
        with PassageIndex(documents) as own:
            return suggest_page(sentence, documents, own)
    claim = _Claim(sentence)
    candidates = [passage for quote in claim.quotes for passage in index.find(f'"{quote}"', 5)]
    candidates += index.find(sentence.replace('"', " "), 20)
    pages = {(id(p.document), p.page.number): p for p in candidates if p.document.paged}
    for passage in pages.values():
        if claim.status([passage.page]) is Status.VERIFIED:
            return claim.closest(passage.document, [passage.page])
    return None


class _Claim:
    """What a reference is to bear out: the quotes of a sentence, and the sentence."""

    def __init__(self, text: str) -> None:
        self.text = re.sub(r"\s+(?=[.,;:!?])", "", " ".join(text.split())).strip(" ,;:")
        matches = list(_QUOTED.finditer(self.text))
        self.quotes = [quote.strip() for match in matches if len(words_of(quote := "".join(g or "" for g in match.groups()))) > 1]
        self.rest = _QUOTED.sub(" ", self.text)
        self._pages: dict[int, str | None] = {}

    @property
    def shown(self) -> str:
        """The longest quote, or the sentence."""
        return max(self.quotes, key=len) if self.quotes else self.text

    def status(self, pages: Sequence[Page]) -> Status:
        """What `pages`, read as one text, say to this claim."""
        text = "\n\n".join(page.text for page in pages)
        if len(self.quotes) > _MOST:
            return Status.UNVERIFIED
        if not all(holds(text, quote) for quote in self.quotes):
            return Status.NOT_ON_PAGE
        if any(len(words_of(quote)) >= _WHOLE_QUOTE for quote in self.quotes):
            numbers = [word for word in words_of(self.rest) if word[0].isdigit()]
            fine = set(numbers) <= set(words_of(text))
        else:
            fine = _supports(text, self.text)
        return Status.VERIFIED if fine else Status.UNVERIFIED

    def page_with_quotes(self, document: Document) -> str | None:
        """The label of the first page that holds the quotes; it is looked for once, however many other pages a list names."""
        if id(document) not in self._pages:
            held = (page.label for page in document.pages if all(holds(page.text, quote) for quote in self.quotes))
            self._pages[id(document)] = next(held, None)
        return self._pages[id(document)]

    def closest(self, document: Document, pages: Sequence[Page]) -> Passage | None:
        """The passage of `pages` that shares most words with the quote or the sentence, if any."""
        wanted = set(_telling(self.shown))
        best, most = None, 0
        numbers = {page.number for page in pages}
        for passage in passages_of(document, numbers):
            shared = len(wanted & set(_telling(passage.text))) + 1000 * bool(self.quotes and holds(passage.text, self.shown))
            if shared > most:
                best, most = passage, shared
        return best


def _checked(reference: Reference, claim: _Claim, documents: Sequence[Document]) -> Citation:
    results = []
    for document in _meant(reference.title, documents):
        pages = _pages(document, reference)
        if pages:
            results.append((claim.status(pages), document, pages))
    if not results:
        return Citation(reference, None, Status.NO_SUCH_PAGE, claim.shown, bool(claim.quotes), None)
    order = [Status.VERIFIED, Status.UNVERIFIED, Status.NOT_ON_PAGE]
    status, document, pages = min(results, key=lambda result: order.index(result[0]))
    elsewhere = None
    if status is Status.NOT_ON_PAGE:
        elsewhere = claim.page_with_quotes(document)
    return Citation(reference, document, status, claim.shown, bool(claim.quotes), claim.closest(document, pages), elsewhere)


def _pages(document: Document, reference: Reference) -> Sequence[Page]:
    """The pages that are meant; none if the document lacks one of them."""
    found = pages_between(document, reference.first, reference.last)
    item = _ITEMS.match(reference.first)
    if found is None and item and item.end() < len(reference.first):
        found = pages_between(document, item["first"], item["last"] or item["first"])
    return found or ()


def _meant(title: str, documents: Sequence[Document]) -> Sequence[Document]:
    """The paged documents that a reference with this title can mean; all of them if none is called so."""
    paged = [document for document in documents if document.paged]
    wanted = words_of(title)
    if not wanted:
        return paged
    called = [d for d in paged if _contains(words_of(d.title), wanted) or _contains(words_of(d.path.stem), wanted)]
    return called or paged


def _claims(answer: str, references: Sequence[Reference]) -> list[_Claim]:
    """What each reference stands for: the text of its sentence up to it, from the reference before it on.

    The last reference of a sentence has the sentence's end as well. One that stands before the text, or after its full
    stop, has the text that follows in the sentence, or the sentence before.
    """
    claims: dict[tuple[int, int], _Claim] = {}
    made = cache(_Claim)
    left = deque(sorted({(r.start, r.end) for r in references}))
    before = ""
    for start, end in _sentences_with_references(answer, references):
        spans = []
        while left and left[0][0] < end:
            spans.append(left.popleft())
        cuts = [start, *(point for span in spans for point in span), end]
        parts = [_BEFORE_REFERENCE.sub("", answer[a:b]) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        for span, text in zip(spans, _shared_out(parts), strict=True):
            claims[span] = made(text or before)
        before = " ".join(parts)
    return [claims[reference.start, reference.end] for reference in references]


def _shared_out(parts: Sequence[str]) -> list[str]:
    """For each reference between two of `parts` of a sentence the text that it stands for, or ""."""
    if len(parts) == 2:
        whole = " ".join(parts)
        return [whole if _telling(whole) else ""]
    shares: list[str] = []
    latest = ""
    for part in parts[:-1]:
        latest = part if _telling(part) else latest
        shares.append(latest)
    if shares and _telling(parts[-1]):
        shares[-1] = f"{shares[-1]} {parts[-1]}"
    following = ""
    for i in reversed(range(len(shares))):
        following = parts[i + 1] if _telling(parts[i + 1]) else following
        shares[i] = shares[i] or following
    return shares


def _sentences_with_references(answer: str, references: Sequence[Reference]) -> Iterator[tuple[int, int]]:
    """Sentences of `answer`; no cut falls within a reference ("p. 12") or a quote."""
    whole = {place for start, end in {(r.start, r.end) for r in references} for place in range(start + 1, end)}
    whole.update(place for match in _QUOTED.finditer(answer) for place in range(match.start() + 1, match.end()))
    start: int | None = None
    last = 0
    for a, b in sentences_of(answer):
        start = a if start is None else start
        last = b
        if b not in whole:
            yield start, b
            start = None
    if start is not None:
        yield start, last


def holds(text: str, quote: str) -> bool:
    """Whether `quote` stands in `text` word for word; what it leaves out with an ellipsis may stand between."""
    parts = [part for part in _ELLIPSIS.split(quote) if words_of(part)]
    if not parts:
        return False
    return any(_in_order(form(text), [form(part) for part in parts]) for form in (_joined, words_of))


@lru_cache(maxsize=4096)
def _joined(text: str) -> tuple[str, ...]:
    """The words of `text`, those with a hyphen as one, also where it stands at the end of a line."""
    return words_of(re.sub(r"(?<=[^\W\d_])[-\u00ad\u2010\u2011]\s*(?=[^\W\d_])", "", text))


def _in_order(words: Sequence[str], parts: Sequence[Sequence[str]]) -> bool:
    text, at = _spaced(words), 0
    for part in parts:
        wanted = _spaced(part)
        at = text.find(wanted, at)
        if at < 0:
            return False
        at += len(wanted) - 1
    return True


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return _spaced(part) in _spaced(words)


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "


def _supports(text: str, sentence: str) -> bool:
    """Whether two neighbouring sentences of `text` have all telling words of `sentence`, in order and equally negated."""
    wanted, negations = _claimed(sentence)
    if not _LEAST <= len(wanted) <= _MOST:
        return False
    spans = list(sentences_of(text))
    ends = [b for _, b in spans[1:]] + [b for _, b in spans[-1:]]
    return any(_says(text[start:end], wanted, negations) for (start, _), end in zip(spans, ends, strict=True))


@lru_cache(maxsize=256)
def _claimed(sentence: str) -> tuple[tuple[str, ...], int]:
    """The telling words of a claim, and how many negations it has."""
    return tuple(_telling(_FRAME.sub("", sentence))), _negations(_joined(sentence))


def _says(text: str, wanted: Sequence[str], negations: int) -> bool:
    """Whether `text` has the words `wanted` in order and not far apart, with so many negations about them."""
    words = [(word, i) for i, clause in enumerate(_CLAUSE_END.split(text)) for word in _joined(clause)]
    stems = [_stem(word) for word, _ in words]
    spread = int(_STRETCH * len(wanted)) + _BEFORE
    for start in (i for i, stem in enumerate(stems) if stem == wanted[0]):
        end = _end_of(wanted, stems[start : start + spread])
        if end is None:
            continue
        end += start
        # "It is not true that ..." comes before, "... is not true" within the clause.
        after = (word for word, clause in words[end + 1 :] if clause == words[end][1])
        around = [*(word for word, _ in words[max(0, start - _BEFORE) : end + 1]), *after]
        if _negations(around) == negations:
            return True
    return False


def _end_of(wanted: Sequence[str], stems: Sequence[str]) -> int | None:
    """Index of the last of `wanted` in `stems`, all being there in order; else None."""
    end = -1
    for word in wanted:
        try:
            end = stems.index(word, end + 1)
        except ValueError:
            return None
    return end


def _telling(text: str) -> list[str]:
    """The words that must agree, without the endings of plurals and tenses."""
    return [_stem(word) for word in _joined(text) if word not in _GRAMMAR]


def _stem(word: str) -> str:
    if word[0].isdigit() or len(word) < 4:
        return word
    word = word.removesuffix("'s")
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _negations(words: Iterable[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith("n't") for word in words)
