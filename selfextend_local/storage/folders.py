"""Where things lie on this machine: every folder, and every variable that names another.

    SELFEXTEND_CACHE_DIR   what can be made again: states of what was read, pictures of pages
    SELFEXTEND_DATA_DIR    what the user made or gave: chats, documents of the server
    SELFEXTEND_STATE_DIR   what was typed
    SELFEXTEND_PROFILES    what `selfextend tune` found out
    SELFEXTEND_CONFIG      config.toml
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "SELFEXTEND_CACHE_DIR"
DATA_VARIABLE = "SELFEXTEND_DATA_DIR"
STATE_VARIABLE = "SELFEXTEND_STATE_DIR"
PROFILES_VARIABLE = "SELFEXTEND_PROFILES"
CONFIG_VARIABLE = "SELFEXTEND_CONFIG"

_APPLICATION = "selfextend-local"


def state_folder() -> Path:
    """Where saved states lie. They can be deleted at any time."""
    from platformdirs import user_cache_path

    return (chosen(CACHE_VARIABLE) or _usual(user_cache_path)) / "sessions"


def model_folder() -> Path:
    """Where it is remembered which model files have been opened. It can be deleted at any time."""
    return state_folder().with_name("models")


def kv_folder() -> Path:
    """Where KV caches lie that are in a file. The files have no names: they are gone with the process that made them."""
    return state_folder().with_name("kv")


def picture_folder() -> Path:
    """Where pictures of pages lie that a terminal can't show. It can be deleted at any time."""
    return state_folder().with_name("pictures")


def program_folder() -> Path:
    """Where programs lie that are built from the patched source. `patches/` puts them there."""
    return state_folder().with_name("programs")


def chat_folder() -> Path:
    """Where chats lie: beside the user's data, since a cache may be emptied and a chat can't be made again."""
    from platformdirs import user_data_path

    return (chosen(DATA_VARIABLE) or _usual(user_data_path)) / "chats"


def document_folder() -> Path:
    """Where the server keeps the documents that it was given."""
    return chat_folder().with_name("documents")


def history_file() -> Path:
    """Where what was typed is kept."""
    from platformdirs import user_state_path

    return (chosen(STATE_VARIABLE) or _usual(user_state_path)) / "history"


def profile_folder() -> Path:
    """Where tuning profiles lie."""
    from platformdirs import user_config_path

    return chosen(PROFILES_VARIABLE) or _usual(user_config_path) / "profiles"


def config_file() -> Path:
    """The file with the user's own defaults."""
    from platformdirs import user_config_path

    return chosen(CONFIG_VARIABLE) or _usual(user_config_path) / "config.toml"


def chosen(variable: str) -> Path | None:
    """What a variable names; None if it is unset or empty."""
    named = os.environ.get(variable)
    return Path(os.path.expanduser(named)) if named else None


def _usual(folder: Callable[..., Path]) -> Path:
    # On Windows platformdirs puts a folder of the author, by default the application again, around ours: earlier versions
    # kept chats, states and what was typed there.
    earlier = folder(_APPLICATION)
    return earlier if earlier.is_dir() else folder(_APPLICATION, appauthor=False)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner reads, since a session holds the text of documents, and whatever is missing above it.

    Raises OSError, a PermissionError if it is somebody else's.
    """
    if not folder.parent.exists():
        make_private(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_ours(folder.stat()):
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user")


def is_ours(status: os.stat_result) -> bool:
    """Whether nobody but this user and the administrator owns a file or folder; others could have put anything there."""
    return not hasattr(os, "getuid") or status.st_uid in (os.getuid(), 0)
