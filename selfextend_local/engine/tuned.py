"""What `selfextend tune` found out about a model, kept for the automatic choice.

Knows a folder of small JSON files, one a model, named by the model's identity. It knows no models and no measurements.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from selfextend_local.errors import ModelError
from selfextend_local.positions import GroupForm
from selfextend_local.storage.disk import replacing
from selfextend_local.storage.folders import PROFILES_VARIABLE, profile_folder
from selfextend_local.storage.identity import model_identity
from selfextend_local.storage.plain_json import loads

from .plan import Settings


@dataclass(frozen=True)
class Profile:
    """`ga_fraction`: share of the trained window that the model uses well; `ga_w`: neighbour window in tokens; `ga_temperature`:
    attention temperature, 0 = off; `ga_recall`: far tokens fetched, with `ga_mode` "recall".

    `evidence`: what was measured for it, in sentences, at `target_tokens`.
    """

    model: str
    ga_fraction: float
    ga_w: int
    target_tokens: int
    created: str
    evidence: tuple[str, ...] = ()
    ga_mode: GroupForm = "two-level"
    ga_temperature: float = 0.0
    ga_recall: int = 0


def profile_path(model: Path) -> Path:
    """The file that holds, or would hold, the profile of a model."""
    return profile_folder() / f"{model_identity(model)}.json"


def load_profile(model: Path) -> Profile | None:
    """The profile of a model file, None if it was never tuned. Raises ModelError if the profile can't be read."""
    if not profile_folder().is_dir() or not (path := profile_path(model)).is_file():
        return None
    try:
        held = loads(path.read_text(encoding="utf-8"))
        found = Profile(**held | {"evidence": tuple(held.get("evidence", ()))})
        in_range = 0 < found.ga_fraction <= 1 and found.ga_w >= 1 and 0 <= found.ga_temperature <= 10
        recalls = found.ga_mode == "recall"
        if not (in_range and found.ga_mode in get_args(GroupForm) and (found.ga_recall > 0) == recalls):
            raise ValueError("its figures are out of range")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"The tuning profile {path} can't be read ({error}). Delete it, or run selfextend tune again.") from error
    return found


def save_profile(model: Path, profile: Profile) -> Path:
    """Write the profile of a model file, at once or not at all. Raises ModelError."""
    path = profile_path(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, 0o666) as fresh:
            fresh.write_text(json.dumps(asdict(profile), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"The profile {path} can't be written ({error.strerror}). Set {PROFILES_VARIABLE} to another folder.") from error
    return path


def with_profile(settings: Settings, model: Path) -> Settings:
    """`settings` for this model: where the automatic choice has a free hand, what was tuned. What the user gave stays.

    Raises ModelError if there is a profile that can't be read.
    """
    if settings.ga_n != "auto" or settings.recalls or (settings.ga_w is not None and settings.ga_fraction is not None):
        return settings
    profile = load_profile(model)
    # What was tuned for one form says nothing of the other.
    if profile is None or settings.ga_mode not in ("auto", profile.ga_mode):
        return settings
    return replace(
        settings,
        ga_w=profile.ga_w if settings.ga_w is None else settings.ga_w,
        ga_fraction=profile.ga_fraction if settings.ga_fraction is None else settings.ga_fraction,
        ga_mode=profile.ga_mode,
        ga_recall=profile.ga_recall or settings.ga_recall,
        ga_temperature=profile.ga_temperature or None if settings.ga_temperature is None else settings.ga_temperature,
        tuned=True,
    )
