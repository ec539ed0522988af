"""Where sessions lie on this machine. Must not know what is in the files."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SELFEXTEND_CACHE_DIR"
"""Folder for what can be made again, instead of the platform's own."""

DATA_VARIABLE = "SELFEXTEND_DATA_DIR"
"""Folder for what the user made, instead of the platform's own."""

_APPLICATION = "selfextend-local"


def state_folder() -> Path:
    """Where saved states lie. They can be deleted at any time."""
    return _base(CACHE_VARIABLE, platformdirs.user_cache_dir(_APPLICATION)) / "sessions"


def chat_folder() -> Path:
    """Where chats lie: beside the user's data, since a cache may be emptied and a chat can't be made again."""
    return _base(DATA_VARIABLE, platformdirs.user_data_dir(_APPLICATION)) / "chats"


def _base(variable: str, default: str) -> Path:
    chosen = os.environ.get(variable)
    return Path(chosen).expanduser() if chosen else Path(default)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner reads, since a session holds the text of documents. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
