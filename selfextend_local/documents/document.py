"""What the rest of the program sees of a document: pages of clean text.

Knows page numbers, page labels and the marker line that a model cites; no text of a
document can pass for such a marker. Must not know file formats, encodings or the
libraries that read them, nor models and tokens: counting what fits is the caller's
business.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_NAMED_PAGES = 12
_FORGED_MARKER = re.compile(r"[\[［【]([^\S\n]*pages?\b[^\[\]［］【】\n]*)[\]］】]", re.IGNORECASE)


def page_marker(label: str) -> str:
    """The line that stands before the page with this label: ``[page 12]``, ``[page iv]``."""
    return f"[page {label}]"


def without_markers(text: str) -> str:
    """`text` with what looks like one of our markers in round brackets: ``(page 12)``.

    So a document that holds the line "[page 12]" can't make the model, or a reader,
    believe that page 12 begins there.
    """
    return _FORGED_MARKER.sub(r"(\1)", text)


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

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Document:
        """What `for_json` made of a document, after a passage through JSON. Raises KeyError, TypeError if it is something else."""
        pages = tuple(Page(**page) for page in data["pages"])
        return cls(Path(data["path"]), data["title"], pages, tuple(data["unreadable_pages"]), data["paged"], tuple(data["notes"]))

    def for_json(self) -> dict[str, Any]:
        """As values of JSON."""
        return asdict(self) | {"path": str(self.path)}

    @property
    def title_line(self) -> str:
        """The title on one line, in which nothing passes for a page marker."""
        return without_markers(" ".join(self.title.split()))

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
        pages = "page" if self.page_count == 1 else "pages"
        missing = (
            f"{count} of {self.page_count} {pages} {'has' if count == 1 else 'have'} no text (scanned or blank?): "
            f"{self.names(self.unreadable_pages, most=_NAMED_PAGES)}"
        )
        return (missing, *self.notes)

    def text_with_markers(self, only: Collection[int] | None = None) -> str:
        """The text for the model, each page after its marker line.

        Pages without text are left out, since there is nothing in them to cite.
        A document that is not paged comes without markers.

        Args:
            only: page numbers to include; all when None. Order is the file's.
        """
        wanted = None if only is None else frozenset(only)
        parts = [
            f"{page_marker(page.label)}\n{without_markers(page.text)}" if self.paged else without_markers(page.text)
            for page in self.pages
            if page.text and (wanted is None or page.number in wanted)
        ]
        return "\n\n".join(parts)

    def names(self, numbers: Collection[int], *, most: int | None = None) -> str:
        """The labels of these pages, as "iv, 9, 31-33".

        Args:
            numbers: page numbers, in any order; those that the document lacks are skipped.
            most: cut the list short, with "...", after so many entries.
        """
        wanted = frozenset(numbers)
        runs: list[list[Page]] = []
        for page in self.pages:
            if page.number in wanted:
                if runs and page.number == runs[-1][-1].number + 1:
                    runs[-1].append(page)
                else:
                    runs.append([page])
        names = [_run_name(run[0].label, run[-1].label) for run in runs]
        if most is not None and len(names) > most:
            names = [*names[:most], "..."]
        return ", ".join(names)


def _run_name(first: str, last: str) -> str:
    if first == last:
        return first
    return f"{first}-{last}" if first.isalnum() and last.isalnum() else f"{first} to {last}"
