"""The sample document of the demo: an invented island report of some 40 pages.

Knows which facts stand on which page, so that an answer about them can be
checked. Must not know models or tokens. `python -m selfextend_local.sample
OUT.pdf` writes it; fpdf2 is imported only then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.errors import SelfExtendError

__all__ = ["SAMPLE_FACTS", "SAMPLE_READING", "Fact", "write_sample"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A question that one page of the sample answers, in so many words.

    Attributes:
        question: what to ask.
        answer: the words of the document, which stand on no other page of it.
        page: where, counted from 1; the printed page number is the same.
    """

    question: str
    answer: str
    page: int


# The first two are early and plain enough for a model of 135M parameters, and are what the demo asks.
SAMPLE_FACTS: tuple[Fact, ...] = (
    Fact("What is the pass key of the north vault?", "48213", 3),
    Fact("What is the radio code of the lighthouse?", "35926", 5),
    Fact("What is the serial number of the rain gauge?", "91754", 6),
    Fact("What is the station boat called?", "Marigold", 4),
    Fact("What was the strongest gust of the year?", "97 knots", 12),
    Fact("What was the rarest bird of the year?", "gyrfalcon", 35),
    Fact("Who will be the next warden of the observatory?", "Signe Aldous", 40),
)

SAMPLE_READING = Fact("Who takes care of the boat?", "Magnus", 5)
"""A question in other words than the document's ("Old Magnus Fell looked after the boat"), on a page that names five people."""


def write_sample(target: str | os.PathLike[str]) -> Path:
    """Write the sample PDF to `target`, replacing what is there; return its path.

    Raises:
        SelfExtendError: fpdf2 is missing, or `target` cannot be written.
    """
    from selfextend_local.sample.book import report_pdf

    path = Path(target)
    data = report_pdf()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SelfExtendError(
            f"cannot write {path} ({error.strerror}): choose another place"
        ) from error
    return path
