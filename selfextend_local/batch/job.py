"""What a batch does with every document: the instruction, the model and its settings, the limits.

Plain values that travel between machines. `key` says whether a result still stands: same input, same instruction, same
model, same settings. Must not know how any of it is carried out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfextend_local.engine.plan import Settings
from selfextend_local.errors import ModelNotFound
from selfextend_local.generation.sampling import LONG_ANSWERS
from selfextend_local.storage.identity import model_identity
from selfextend_local.summarize import Instruction

from .defaults import BATCH

LAYOUT = 3
"""Raised when the wording or the layout of the prompts changes, or what "auto" means, so that old results don't pass for new ones."""


@dataclass(frozen=True)
class ModelSettings:
    """How to load the model. `settings.n_ctx`: the largest window in tokens; None = four trained windows, if the memory allows.
    `together`: short items that are answered side by side on this machine."""

    path: Path
    settings: Settings = BATCH
    together: int | Literal["auto"] = "auto"


@dataclass(frozen=True)
class Limits:
    """What a single document may cost: seconds and MiB for the reader, seconds for the model (None = no limit)."""

    read_s: float = 60.0
    read_mib: int = 2048
    answer_s: float | None = None


@dataclass(frozen=True)
class Job:
    instruction: Instruction
    model: ModelSettings
    limits: Limits = field(default_factory=Limits)

    def key(self, input_digest: str, fingerprint: str) -> str:
        """The identity of a result: a hash of the input, the instruction, the model and the settings that matter."""
        model = self.model.settings
        group = (model.ga_n, model.ga_w, model.ga_mode)
        # Named only where they are set, so that results from before there was a flag still stand.
        unusual = {"ga_temperature": model.ga_temperature, "ga_recall": model.ga_recall}
        more = [{name: value for name, value in unusual.items() if value}] if any(unusual.values()) else []
        parts = [LAYOUT, input_digest, _said(self.instruction), fingerprint, *group, model.kv_type, model.n_ctx, *more]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _said(instruction: Instruction) -> dict[str, Any]:
    """What an answer depends on, in the form that the keys of standing results were made of."""
    said = asdict(instruction)
    drawn, usual = said.pop("drawn"), asdict(LONG_ANSWERS)
    unusual = {name: value for name, value in drawn.items() if value != usual[name]}
    return said | {"temperature": drawn["temperature"], "seed": drawn["seed"]} | unusual


def fingerprint(model: Path) -> str:
    """The identity of a model file. Raises ModelNotFound."""
    try:
        return model_identity(model)
    except OSError as error:
        raise ModelNotFound(f"There is no model file {model}. Name a GGUF file with --model.") from error
