"""The one exception of this package. Its message is a whole sentence that names the next step."""

from __future__ import annotations


class BuildError(Exception):
    """The patched llama-cpp-python cannot be built; `str()` is what the user reads."""
