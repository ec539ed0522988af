"""Passages: pieces of a page of about a hundred words, cut where paragraphs or sentences end.

Knows how to cut, and in which form words are compared. Must not know databases, tokens or citations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from selfextend_local.documents.document import Document, Page

_ENOUGH, _MOST = 500, 900  # characters; about 85 and 150 English words
_PARAGRAPH_END = re.compile(r"\n\s*\n|\Z")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])|[。！？]|\n|\Z")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|No|Nos|Fig|vs|cf|e\.g|i\.e|pp?|[A-Z])\.\s+$")

# Scripts written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"\d+(?:[.,:]\d+)*|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:['’][^\W\d_{_UNSPACED}]+)*|[^\W_{_UNSPACED}]|[%$€£¥§°]")
_UNSPACED_WORD = re.compile(f"[{_UNSPACED}]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_DIACRITICS = re.compile("[\u0300-\u036f]")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a page.

    Attributes:
        document: it is from this document, which is not compared.
        page: and from this page.
        offset: where it begins in ``page.text``, in characters.
        text: ``page.text[offset : offset + len(text)]``.
    """

    document: Document = field(repr=False, compare=False)
    page: Page = field(repr=False)
    offset: int
    text: str

    @property
    def label(self) -> str:
        """The page as printed."""
        return self.page.label


def passages_of(document: Document, only: Collection[int] | None = None) -> Iterator[Passage]:
    """The document, or `only` its pages with these numbers, cut into passages in order; only white space is lost."""
    for page in document.pages:
        if only is not None and page.number not in only:
            continue
        for start, end in _cuts(page.text):
            yield Passage(document, page, start, page.text[start:end])


def sentences_of(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of `text` begin and end, outer white space left out."""
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if match.group() and _ABBREVIATION.search(text, max(start, match.end() - 8), match.end()):
            continue
        yield from _stripped(text, start, match.end())
        start = match.end()


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Ends of paragraphs, of sentences in long paragraphs, and of words in long sentences."""
    start = last = 0
    for begin, end in _units(text):
        if last > start and end - start > _MOST or last - start >= _ENOUGH:
            yield from _stripped(text, start, last)
            start = begin
        last = end
    yield from _stripped(text, start, last)


def _units(text: str) -> Iterator[tuple[int, int]]:
    """What is not to be cut: paragraphs that are short enough, else sentences, else as many words as are allowed."""
    start = 0
    for match in _PARAGRAPH_END.finditer(text):
        for begin, end in _stripped(text, start, match.start()):
            if end - begin <= _MOST:
                yield begin, end
                continue
            for a, b in sentences_of(text[begin:end]):
                yield from _pieces(text, begin + a, begin + b)
        start = match.end()


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > _MOST:
        space = text.rfind(" ", start + _ENOUGH, start + _MOST)
        cut = space if space > 0 else start + _MOST
        yield start, cut
        start = cut
    yield start, end


@lru_cache(maxsize=4096)
def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of `text` in the form in which they are compared.

    Case, accents, punctuation, the kind of quotes and hyphens go; "1,000" becomes "1000" while "3.5" stays itself; of
    the symbols only those that change what a number means are kept. A word of a script without spaces is a character.
    """
    plain = _DIACRITICS.sub("", unicodedata.normalize("NFD", text.replace("’", "'"))).casefold()
    return tuple(_WORD.findall(_THOUSANDS.sub("", unicodedata.normalize("NFC", plain))))


def is_unspaced(word: str) -> bool:
    """Whether a word of `words_of` is a character of a script without spaces, so rather a part of a word."""
    return bool(_UNSPACED_WORD.fullmatch(word))
