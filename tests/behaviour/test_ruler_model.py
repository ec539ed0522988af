"""The ruler model does RULER's tasks inside its window, in the library and through the modules that `selfextend eval` runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from selfextend_local.engine.llama import ModelPeek
from selfextend_local.evaluation.methods import Setup
from selfextend_local.evaluation.model_reader import MEASURED, ModelReaders
from selfextend_local.evaluation.prompting import PeekTokenizer
from selfextend_local.evaluation.tasks.ruler.task import Ruler

pytestmark = pytest.mark.process

MODEL = Path(__file__).parents[1] / "data" / "ruler.gguf"


def test_needles_and_chains_are_found_inside_the_window() -> None:
    with ModelPeek(MODEL) as peek:
        items = Ruler(("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt"), None, samples=1).items(PeekTokenizer(peek), 1024)
    with ModelReaders(MODEL, replace(MEASURED, gpu_layers=0, threads=1)) as shelf:
        scores = {str(item.labels["part"]): item.perform(shelf.reader(Setup(), 1100))["score"] for item in items}
    assert scores == dict.fromkeys(("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt"), 1.0)
