"""Pages that an answer names, as pictures with the passage marked: in the terminal where it shows them, as files elsewhere.

Knows citations and readers. Must not know how terminals take pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from selfextend_local.errors import DocumentError
from selfextend_local.storage.folders import make_private, picture_folder

from ..terminal import interrupts, output, pictures

if TYPE_CHECKING:
    from selfextend_local.documents.citations import Citation
    from selfextend_local.documents.marking import Marked
    from selfextend_local.documents.passages import Passage
    from selfextend_local.documents.reader import Reader, ReadLimits

_KEPT = 50
"""Pictures that stay in their folder; the oldest go."""


def show_page(citation: Citation, limits: ReadLimits) -> None:
    """Show the page that a citation names, with its passage marked, or say where its picture lies; nothing if it isn't of a PDF."""
    from selfextend_local.documents.reader import Reader

    passage = citation.passage
    if passage is None or not _is_pdf(passage.document.path):
        return
    try:
        with closing(Reader(limits)) as reader, interrupts.StopOnInterrupt() as stop:
            found = _marked(reader, passage, [citation.claim] if citation.is_quote else [], stop)
    except DocumentError as error:
        output.say(f"No picture of the page: {error}")
        return
    how = pictures.protocol()
    if how is None:
        output.say(_saved(passage, found))
    else:
        pictures.show(found.png, _middle(found), how)


def _is_pdf(path: Path) -> bool:
    from selfextend_local.documents.kinds import is_pdf_file

    try:
        return is_pdf_file(path)
    except OSError:
        return path.suffix.lower() == ".pdf"  # the reader says what is the matter


def _marked(reader: Reader, passage: Passage, quotes: Sequence[str], stop: interrupts.StopOnInterrupt) -> Marked:
    """The page with the first of these marked that stands on it; bare if none does."""
    for texts in _tried(passage, quotes):
        found = reader.mark(passage.document.path, passage.label, texts, must_find=False, should_stop=stop)
        if found.hits:
            break
    return found


def _tried(passage: Passage, quotes: Sequence[str]) -> Iterator[Sequence[str]]:
    from selfextend_local.documents.passages import sentences_of

    if quotes:
        yield quotes
    yield [passage.text]
    sentences = [passage.text[start:end] for start, end in sentences_of(passage.text)]
    if usable := [sentence for sentence in sentences if any(map(str.isalnum, sentence))]:
        yield usable


def _middle(found: Marked) -> float:
    """Where the first mark is, as a share of the page's height; a third of it if there is none."""
    boxes = found.hits[0] if found.hits else ()
    return (boxes[0].top + boxes[-1].bottom) / 2 / found.height if boxes else 1 / 3


def _saved(passage: Passage, found: Marked) -> str:
    """Keep the picture; returns a sentence on where it is."""
    from selfextend_local.storage.disk import replacing

    folder, path = picture_folder(), passage.document.path
    known = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:6]
    target = folder / f"{path.stem}-{known}-p{pictures.fit_for_name(found.label)}.png"
    try:
        make_private(folder)
        with replacing(target) as temporary:
            temporary.write_bytes(found.png)
        _drop_oldest(folder)
    except OSError as error:
        return f"No picture of the page: {target} can't be written ({error.strerror})."
    return f"Page {found.label}{', marked' if found.hits else ''}: {target}"


def _drop_oldest(folder: Path) -> None:
    kept = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime)
    for path in kept[:-_KEPT]:
        path.unlink(missing_ok=True)
