"""Texts that a user brings: a file as one string, its passages, and its name and hash for the record.

Knows documents. It knows no tokens.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path

from selfextend_local.errors import DocumentEmpty


@dataclass(frozen=True)
class Text:
    """`name` and `digest` go into the results; `content` doesn't."""

    name: str
    content: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content.encode("utf-8", "replace")).hexdigest()[:12]

    @property
    def record(self) -> dict[str, str]:
        return {"text": self.name, "text_hash": self.digest}

    def passages(self, words: int) -> list[str]:
        """The text cut at paragraph or sentence ends into passages of about `words` words (the last one is dropped if short)."""
        sentences = re.split(r"(?<=[.!?])[\"”’']?\s+|\n\s*\n", self.content)
        found: list[str] = []
        held: list[str] = []
        count = 0
        for sentence in sentences:
            clean = " ".join((sentence or "").split())
            if not clean:
                continue
            held.append(clean)
            count += len(clean.split())
            if count >= words:
                found.append(" ".join(held))
                held, count = [], 0
        return found


def read_text(path: str | Path) -> Text:
    """The text of a document in any format that `load_document` reads; a Project Gutenberg licence around it is left out.

    Raises DocumentError.
    """
    from selfextend_local.documents import load_document

    document = load_document(str(path))
    content = _without_licence("\n\n".join(page.text for page in document.pages if page.text))
    if not content.strip():
        raise DocumentEmpty(f"{path} holds no text. Name another file with --text.")
    return Text(Path(path).name, content)


def _without_licence(content: str) -> str:
    start = re.search(r"\*\*\* ?START OF .*?\*\*\*", content)
    end = re.search(r"\*\*\* ?END OF ", content)
    return content[start.end() if start else 0 : end.start() if end else len(content)]


def random_words(count: int, seed: int = 0) -> Text:
    """Words of the sample report in random order: a text of any length in which nothing is repeated but by chance."""
    from selfextend_local.sample.report import prose

    words = sorted(set(re.findall(r"[a-z]{3,}", prose())))
    chosen = random.Random(seed).choices(words, k=count)
    return Text("random words", " ".join(chosen))


def sample_text() -> Text:
    """The sample report with a year's log, some 25,000 tokens: a text for whoever names none."""
    from selfextend_local.sample.report import log_text, prose

    return Text("sample report", f"{prose()}\n\n{log_text(28)}")
