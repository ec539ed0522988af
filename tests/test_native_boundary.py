"""The native boundary: every code has its exception, and a stock library is told from ours."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from selfextend_local import native
from selfextend_local.errors import ContextOverflow, LibraryError, ModelError
from selfextend_local.positions import GroupAttention

PATCHES = Path(__file__).parents[1] / "patches"


def test_every_status_of_the_c_header_has_its_exception() -> None:
    """Wherever the series declares them."""
    sources = [path.read_text() for path in (*PATCHES.glob("*.patch"), *PATCHES.glob("src/*.h"))]
    declared = dict(re.findall(r"^\+?\s+LLAMA_GROUP_ATTN_(\w+)\s+= +(-?\d+)", "\n".join(sources), re.MULTILINE))
    assert declared
    assert {name: int(value) for name, value in declared.items()} == {s.name: s.value for s in native.Status}
    assert set(native.REFUSALS) == set(native.Status) - {native.Status.OK}


@pytest.mark.parametrize("status", [s for s in native.DecodeStatus if s not in (0, 2)])
def test_every_decode_failure_has_its_exception(status: native.DecodeStatus) -> None:
    error = native.decode_error(status, 600, 512)
    assert isinstance(error, ContextOverflow if status is native.DecodeStatus.NO_SLOT else ModelError)


def test_a_stock_library_is_told_how_to_get_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = SimpleNamespace(_lib=SimpleNamespace(_name="libllama.so"))
    monkeypatch.setattr(native.library, "bindings", lambda: stock)
    assert not native.is_patched()
    with pytest.raises(LibraryError, match=r"stock one without group attention. Install .* pip install ./patches"):
        native.set_group_attention(None, GroupAttention(4))
    native.set_group_attention(None, GroupAttention(1))


@pytest.mark.native
def test_the_installed_library_is_ours() -> None:
    assert native.probe().patched


@pytest.mark.native
def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"junk.gguf can't be loaded: "):
        native.open_model_without_weights(junk)
