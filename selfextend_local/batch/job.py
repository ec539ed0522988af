"""What a batch does with every document: the instruction, the model and its settings, the limits.

Plain values that travel between machines. `key` says whether a result still stands: same input, same instruction, same
model, same settings. Must not know how any of it is carried out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from selfextend_local.engine.plan import GpuLayers, GroupMode, GroupSize
from selfextend_local.errors import ModelNotFound
from selfextend_local.storage.identity import model_identity
from selfextend_local.summarize import Instruction

LAYOUT = 3
"""Raised when the wording or the layout of the prompts changes, or what "auto" means, so that old results don't pass for new ones."""


@dataclass(frozen=True)
class ModelSettings:
    """How to load the model. `context`: the largest window in tokens; None = four trained windows, if the memory allows.
    `together`: short items that are answered side by side on this machine."""

    path: Path
    ga_n: GroupSize = "auto"
    ga_w: int | None = None
    ga_mode: GroupMode = "auto"
    kv_type: str = "f16"
    context: int | None = None
    threads: int | None = None
    gpu_layers: GpuLayers = 0
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
        model = self.model
        group = (model.ga_n, model.ga_w, model.ga_mode)
        parts = [LAYOUT, input_digest, asdict(self.instruction), fingerprint, *group, model.kv_type, model.context]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fingerprint(model: Path) -> str:
    """The identity of a model file. Raises ModelNotFound."""
    try:
        return model_identity(model)
    except OSError as error:
        raise ModelNotFound(f"There is no model file {model}. Name a GGUF file with --model.") from error
