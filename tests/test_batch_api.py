"""The Python way in: results are yielded as they come, failures are values, a file makes it resumable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_models import TinyModel

from selfextend_local.batch import Failure, Instruction, summarize
from selfextend_local.errors import ModelNotFound

pytestmark = [pytest.mark.native, pytest.mark.process]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("a.txt", "b.txt", "empty.txt")]
    for path, text in zip(found, ("Some text.", "Another text, a little longer.", ""), strict=True):
        path.write_text(text)
    return found


def test_failures_are_values(paths: list[Path], tiny_model: TinyModel) -> None:
    results = {Path(r.custom_id).name: r for r in summarize(paths, tiny_model("gqa"), instruction=Instruction(max_tokens=4))}
    assert results["a.txt"].ok and results["a.txt"].summary.usage.completion_tokens == 4
    assert isinstance(results["empty.txt"].outcome, Failure)
    with pytest.raises(ValueError, match=r"empty\.txt failed: .* is empty"):
        _ = results["empty.txt"].summary


def test_leaving_early_keeps_what_is_done_and_a_later_call_does_the_rest(paths: list[Path], tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = summarize(paths, tiny_model("gqa"), instruction=Instruction(max_tokens=4), output=out)
    done = next(first)
    first.close()  # type: ignore[attr-defined]
    rest = list(summarize(paths, tiny_model("gqa"), instruction=Instruction(max_tokens=4), output=out))
    assert sorted([done.custom_id, *(r.custom_id for r in rest)]) == sorted(map(str, paths))


def test_a_missing_model_is_an_error_before_any_result(paths: list[Path]) -> None:
    with pytest.raises(ModelNotFound):
        next(summarize(paths, "none.gguf"))


def test_importing_it_loads_no_library() -> None:
    heavy = ("llama_cpp", "numpy", "jinja2", "distributed", "pypdfium2")
    code = f"import sys, selfextend_local.batch; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
