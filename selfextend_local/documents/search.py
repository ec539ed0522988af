"""Search in documents: passages in an FTS5 table of SQLite, in memory.

Knows FTS5's query language, so that nothing a user types is a syntax error in it. Must not know tokens or the terminal.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from itertools import pairwise
from types import TracebackType

from selfextend_local.documents.document import Document
from selfextend_local.documents.passages import Passage, is_unspaced, passages_of, words_of
from selfextend_local.errors import LibraryError

_PHRASE = re.compile(r"[\"“”„«»「」]([^\"“”„«»「」]*)[\"“”„«»「」]")
_MOST_TERMS = 500  # of a query
_SYMBOLS = re.compile(r"[^\w\s.,;:!?'’\"“”„«»「」()-]")
_QUOTES = str.maketrans("’‘“”„«»", "''\"\"\"\"\"")

# Words that nearly every passage holds; a question is better without them.
STOPWORDS = frozenset(
    """
    a about all an and any are as at be been but by can could did do does for from had has have he her his how i if in into is it its
    me mr mrs my no not of on or our she so such tell than that the their them then there these they this to us was we were what when
    where which who whom whose why will with would you your
    """.split()  # noqa: SIM905
)


class PassageIndex:
    """The passages of some documents, to be searched. Usable from any one thread at a time; close it, or use `with`.

    Attributes:
        passages: all of them, in the order of the documents.

    Raises LibraryError if this Python's SQLite lacks FTS5.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self.passages: tuple[Passage, ...] = tuple(p for document in documents for p in passages_of(document))
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            # Words are cut by us, so that a passage and a query are cut alike; the table only stems them.
            self._database.execute("CREATE VIRTUAL TABLE passages USING fts5(words, tokenize='porter unicode61')")
        except sqlite3.OperationalError as error:
            self._database.close()
            raise LibraryError("The SQLite of this Python has no FTS5, so documents can't be searched: use another Python build") from error
        rows = ((i, " ".join(_indexed(passage.text))) for i, passage in enumerate(self.passages))
        self._database.executemany("INSERT INTO passages (rowid, words) VALUES (?, ?)", rows)

    def find(self, text: str, limit: int = 10) -> list[Passage]:
        """The passages that hold `text`, best first.

        Words in quotes must stand together. Passages with all the words come before those with some. What has symbols
        in it ("§ 4.2", "a@b.c") is looked for as it is written, then by its words.
        """
        found: list[int] = []
        if _SYMBOLS.search(text):
            found = self._holding(text, limit)
        if not found:
            phrases = list(filter(None, (_indexed(match[1]) for match in _PHRASE.finditer(text))))
            terms = list(filter(None, map(_indexed, _PHRASE.sub(" ", text).split())))[:_MOST_TERMS]
            found = self._ranked(_all_of([*phrases, *terms]), limit)
            if len(found) < limit:
                found += [i for i in self._ranked(_all_of(phrases) or _any_of(_telling(terms)), 2 * limit) if i not in found]
        if not found:
            found = self._holding(text, limit)
        return [self.passages[i] for i in found[:limit]]

    def scores(self, question: str) -> dict[int, float]:
        """How well passages match the telling words of `question`: index in `passages` to BM25, higher is better."""
        words = _indexed(question)
        # In scripts without spaces a single character says little, two say about as much as a word.
        pairs = [[a, b] for a, b in pairwise(words) if is_unspaced(a) and is_unspaced(b)]
        terms = _telling([*pairs, *([word] for word in words if not is_unspaced(word))])
        return dict(self._matches(_any_of(terms[:_MOST_TERMS]), len(self.passages)))

    def _ranked(self, query: str, limit: int) -> list[int]:
        return [i for i, _ in self._matches(query, limit)]

    def _matches(self, query: str, limit: int) -> list[tuple[int, float]]:
        if not query:
            return []
        rows = self._database.execute(
            "SELECT rowid, -bm25(passages) FROM passages WHERE passages MATCH ? ORDER BY bm25(passages), rowid LIMIT ?", (query, limit)
        )
        return list(rows)

    def _holding(self, text: str, limit: int) -> list[int]:
        """The first passages in which `text` stands letter for letter, but for case, white space and the kind of quotes."""
        wanted = _plain(text.strip(" \t\n\"“”«»"))
        if not wanted:
            return []
        return [i for i, passage in enumerate(self.passages) if wanted in _plain(passage.text)][:limit]

    def close(self) -> None:
        """Free the table; searching is over."""
        self._database.close()

    def __enter__(self) -> PassageIndex:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _indexed(text: str) -> list[str]:
    """The words of `text` that FTS5 can find; a decimal number is one of them ("4.2" becomes "4d2")."""
    words = (re.sub(r"(?<=\d)[.,:](?=\d)", "d", word) for word in words_of(text))
    return [word.removesuffix("'s").replace("'", "") for word in words if word[0].isalnum()]


def _telling(terms: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The terms that aren't mere stop words, each once; all of them if nothing else is there."""
    return [list(term) for term in dict.fromkeys(map(tuple, terms)) if not STOPWORDS.issuperset(term)] or list(terms)


def _all_of(terms: Iterable[Sequence[str]]) -> str:
    return " AND ".join(map(_quoted, terms))


def _any_of(terms: Iterable[Sequence[str]]) -> str:
    return " OR ".join(map(_quoted, terms))


def _quoted(words: Sequence[str]) -> str:
    # In double quotes nothing is an operator; our words hold no quotes.
    return '"' + " ".join(words) + '"'


def _plain(text: str) -> str:
    return " ".join(text.translate(_QUOTES).split()).casefold()
