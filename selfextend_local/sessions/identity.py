"""What a saved state belongs to: a model, a library and the settings that its bytes depend on.

The text is no part of it: documents, system prompt and chat template are all in the tokens, which are compared one by
one. Nor are the context's size, the threads and the devices, which change where a key lies and not what it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from selfextend_local.engine import machine
from selfextend_local.storage.identity import model_identity

if TYPE_CHECKING:
    from selfextend_local.engine.llama import SelfExtendLlama


@dataclass(frozen=True)
class Identity:
    """Two states can stand for each other only if all of this is equal.

    Attributes:
        model: `model_identity` of the file.
        library: version of llama-cpp-python, which carries the number of our patch set.
        settings: of the context, as `SelfExtendLlama.state_settings`.
        byte_order: of the machine; the bytes of a state are otherwise the same on all.
    """

    model: str
    library: str
    settings: Mapping[str, Any]
    byte_order: str = sys.byteorder

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(json.dumps(asdict(self), sort_keys=True).encode())

    def difference(self, now: Identity) -> str | None:
        """What this identity has that `now` has not, in words; None if they are equal."""
        if self.model != now.model:
            return "another model"
        if self.library != now.library:
            return f"llama-cpp-python {self.library}, and this is {now.library}"
        if self.byte_order != now.byte_order:
            return "a machine with another byte order"
        changed = [n for n in sorted({*self.settings, *now.settings}) if self.settings.get(n) != now.settings.get(n)]
        return ", ".join(f"{n}={self.settings.get(n)} instead of {now.settings.get(n)}" for n in changed) or None


def identity_of(llm: SelfExtendLlama) -> Identity:
    """The identity of the states of a loaded model. Raises OSError if its file has gone."""
    return Identity(model_identity(llm.info.path), machine.library_version(), llm.state_settings())
