"""What a conversation is opened with. Every field has the default that the command line has, too."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from selfextend_local.engine.plan import Settings
from selfextend_local.generation.sampling import Sampling

Overflow = Literal["error", "trim", "select", "summarize"]
"""What to do with documents that don't fit: refuse; read the beginning; read what matches the question; read them in parts."""

_ENGINE = frozenset(f.name for f in fields(Settings))
_SAMPLING = frozenset(f.name for f in fields(Sampling))


@dataclass(frozen=True)
class ChatSettings:
    """Settings of a conversation.

    Attributes:
        model: a GGUF file; None = the embedded default.
        engine: group attention, KV cache, devices; what is to fit comes from the documents.
        sampling: how answers are drawn.
        system: replaces our system prompt; the empty string means none.
        cache: whether what the model reads is kept on disk, so that it is read once.
        ocr: whether the text of scanned pages is recognised.
        keep_headers: whether running heads and page numbers of a PDF stay on every page.
        read_timeout: seconds without progress after which the reading of a document is given up.
        read_memory: MiB that reading a document may take (Linux).
    """

    model: Path | None = None
    engine: Settings = field(default_factory=Settings)
    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    overflow: Overflow = "error"
    cache: bool = True
    ocr: bool = False
    keep_headers: bool = False
    read_timeout: float = 300.0
    read_memory: int = 4096

    def get(self, name: str) -> Any:
        """The value of a field of these settings, of the engine's or of the sampling's."""
        return getattr(self.engine if name in _ENGINE else self.sampling if name in _SAMPLING else self, name)

    def changed(self, **values: Any) -> ChatSettings:
        """These settings with other values, each named as for `get`."""
        engine = {name: value for name, value in values.items() if name in _ENGINE}
        sampling = {name: value for name, value in values.items() if name in _SAMPLING}
        own = {name: value for name, value in values.items() if name not in engine and name not in sampling}
        return replace(self, engine=replace(self.engine, **engine), sampling=replace(self.sampling, **sampling), **own)
