"""What the rest of the program sees of a document: pages of clean text.

Knows page numbers, page labels and the marker line that a model cites. Must not
know file formats, encodings or the libraries that read them, nor models and
tokens: counting what fits is the caller's business.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_NAMED_PAGES = 12


def page_marker(number: int) -> str:
    """The line that stands before page `number` (1-based): ``[page 12]``."""
    return f"[page {number}]"


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        number: position in the file, counted from 1; what a user asks for.
        label: what is printed on the page ("iv", "12"); equals the number when
            the file says nothing else.
        text: paragraphs, separated by blank lines; may be empty.
    """

    number: int
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the model is to read it.

    Attributes:
        path: the file that was read.
        title: from the file's metadata or first heading, else its name.
        pages: in order; a document without pages holds one Page.
        unreadable_pages: numbers (from 1) of the pages without text.
        paged: whether page numbers mean anything to the reader.
        notes: other things the reader should know, one sentence each.
    """

    path: Path
    title: str
    pages: tuple[Page, ...]
    unreadable_pages: tuple[int, ...]
    paged: bool
    notes: tuple[str, ...] = ()

    @property
    def page_count(self) -> int:
        """Number of pages in the file, those without text included."""
        return len(self.pages)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences to show before the first answer; empty when all is well."""
        if not self.unreadable_pages:
            return self.notes
        count = len(self.unreadable_pages)
        have = "page has" if self.page_count == 1 else "pages have"
        missing = (
            f"{count} of {self.page_count} {have} no text (scanned or blank?): "
            f"{_listed(self.unreadable_pages)}"
        )
        return (missing, *self.notes)

    def text_with_markers(self, only: Collection[int] | None = None) -> str:
        """The text for the model, each page after its marker line.

        Pages without text are left out, since there is nothing in them to cite.
        A document that is not paged comes without markers.

        Args:
            only: page numbers to include; all when None. Order is the file's.
        """
        parts = [
            f"{page_marker(page.number)}\n{page.text}" if self.paged else page.text
            for page in self.pages
            if page.text and (only is None or page.number in only)
        ]
        return "\n\n".join(parts)


def _listed(numbers: tuple[int, ...]) -> str:
    """`numbers` as "4, 9, 31-33", cut short after a dozen entries."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    names = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    if len(names) > _NAMED_PAGES:
        names = [*names[:_NAMED_PAGES], "..."]
    return ", ".join(names)
