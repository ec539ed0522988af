"""Programs that know nothing of us get group attention by LLAMA_GROUP_ATTN_*; a refusal is a warning, never a failed context."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from support.driver import Engine
from support.logits import text
from support.tiny_models import TRAINED_WINDOW, TinyModel

from selfextend_local import positions
from selfextend_local.engine import plan
from selfextend_local.native.context import recall_figures

pytestmark = [pytest.mark.native, pytest.mark.process]

N_CTX = 600
LOGITS = """
import json, sys
from llama_cpp import Llama, llama_cpp
llama = Llama(sys.argv[1], n_ctx=600, n_batch=64, n_ubatch=64, logits_all=True, verbose=True, type_k=0, type_v=0)
llama.eval(json.loads(sys.argv[2]))
print(json.dumps(llama.scores[llama.n_tokens - 1].tolist()))
"""


def stock_program(path: Path, tokens: list[int], **settings: str) -> tuple[np.ndarray, str]:
    """The last logits and the log of a program of llama-cpp-python, with LLAMA_GROUP_ATTN_<name>=<value> for each setting."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_GROUP_ATTN")}
    environment |= {f"LLAMA_GROUP_ATTN_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-c", LOGITS, str(path), json.dumps(tokens)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return np.array(json.loads(done.stdout.splitlines()[-1]), dtype=np.float32), done.stderr


def grouped(path: Path, tokens: list[int], levels: Iterable[positions.Level], temperature: float = 0.0) -> np.ndarray:
    with Engine(path, n_ctx=N_CTX, n_batch=64, n_ubatch=64) as engine:
        assert engine.set_levels([(level.n, level.w, level.r) for level in levels]) == 0
        assert engine.set_temperature(temperature) == 0
        return engine.decode(tokens)[-1]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < 2e-3)


def test_a_program_that_sets_nothing(tiny_model: TinyModel) -> None:
    path, tokens = tiny_model("gqa"), text(400)
    asked = positions.fixed(8, 32, TRAINED_WINDOW)
    logits, log = stock_program(path, tokens, N="8", W="32", TEMPERATURE="0.5")
    assert close(logits, grouped(path, tokens, asked.levels, 0.5))
    assert "group attention n = 8, w = 32" in log
    plain, _ = stock_program(path, tokens)
    assert not close(logits, plain)


@pytest.mark.parametrize("mode", ["two-level", "progressive"])
def test_the_automatic_choice_is_the_package_s(tiny_model: TinyModel, mode: str) -> None:
    path, tokens = tiny_model("gqa"), text(400)
    chosen = positions.choose(N_CTX, TRAINED_WINDOW, progressive=mode == "progressive")
    assert chosen.n > 1
    logits, _ = stock_program(path, tokens, N="auto", MODE=mode)
    assert close(logits, grouped(path, tokens, chosen.levels))


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("gqa", {"N": "3"}, "LLAMA_GROUP_ATTN_N=3 is neither a power of two nor auto"),
        ("gqa", {"N": "many"}, "LLAMA_GROUP_ATTN_N=many is neither"),
        ("gqa", {"N": "4", "W": "no"}, "LLAMA_GROUP_ATTN_W=no is not a number of tokens"),
        ("gqa", {"N": "4", "W": "128"}, "w=128 doesn't fit the trained window of 128 tokens"),
        ("gqa", {"N": "4", "MODE": "other"}, "none of two-level, progressive, recall and auto"),
        ("gqa", {"TEMPERATURE": "hot"}, "LLAMA_GROUP_ATTN_TEMPERATURE=hot: not a number"),
        ("alibi", {"N": "4"}, "no rotary positions"),
        ("recurrent", {"N": "auto"}, "no group attention"),
    ],
)
def test_a_refusal_is_a_warning(tiny_model: TinyModel, kind: str, settings: dict[str, str], reason: str) -> None:
    path, tokens = tiny_model(kind), text(100)
    logits, log = stock_program(path, tokens, **settings)
    assert reason in log
    plain, quiet = stock_program(path, tokens)
    assert np.array_equal(logits, plain)
    assert "LLAMA_GROUP_ATTN" not in quiet


LONG = """
import ctypes, sys
from llama_cpp import Llama, llama_cpp
trained = {"llama.context_length": int(sys.argv[3])} if sys.argv[3:] else None
llama = Llama(sys.argv[1], n_ctx=int(sys.argv[2]), n_batch=512, n_ubatch=512, verbose=True, flash_attn=True, kv_overrides=trained)
get = llama_cpp._lib.llama_get_recall
get.argtypes, get.restype = [ctypes.c_void_p], type("Recall", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_int32) for n in "abcdefghi"]})
print([getattr(get(llama.ctx), name) for name in "abcdefghi"])
"""


@pytest.mark.parametrize(
    ("settings", "n_ctx", "said"),
    [
        ({"N": "auto"}, 8 * 512, "group attention n = 64, w = 64, progressive"),
        ({"N": "auto"}, 9 * 512, "recall of 96, w = 64"),
        ({"N": "auto", "MODE": "progressive"}, 9 * 512, "progressive"),
        ({"MODE": "recall"}, 1024, "recall of 96, w = 64"),
        ({"MODE": "recall", "RECALL": "64"}, 1024, "recall of 64, w = 64"),
        ({"MODE": "recall", "RECALL": "65"}, 1024, "no group attention: LLAMA_GROUP_ATTN_RECALL=65 is not a multiple of 32"),
        ({"MODE": "recall", "N": "4"}, 1024, "no group attention: recall takes no groups"),
    ],
)
def test_the_automatic_choice_recalls_where_the_package_does(fixture_model: Path, settings: dict[str, str], n_ctx: int, said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_GROUP_ATTN")}
    environment |= {f"LLAMA_GROUP_ATTN_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-c", LONG, str(fixture_model), str(n_ctx)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said in done.stderr
    if settings == {"N": "auto"}:
        chosen = plan.group_attention_for(plan.Settings(), n_ctx, 512)
        grouped = f"group attention n = {chosen.n}, w = {chosen.w}, progressive"
        assert said == (f"recall of {chosen.recall}, w = {chosen.w}" if chosen.recall else grouped)
        assert json.loads(done.stdout.splitlines()[-1]) == (recall_figures(chosen) if chosen.recall else [0] * 9)


@pytest.mark.parametrize(
    ("window", "n_ctx", "w"),
    [(4096, 12_544, None), (8192, 24_576, None), (8192, 24_832, None), (16_384, 49_408, None), (16_384, 49_408, 4096)],
)
def test_recall_has_the_figures_of_the_package(fixture_model: Path, window: int, n_ctx: int, w: int | None) -> None:
    """Up to three trained windows, and beyond."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_GROUP_ATTN")}
    environment |= {"LLAMA_GROUP_ATTN_MODE": "recall"} | ({"LLAMA_GROUP_ATTN_W": str(w)} if w else {})
    command = [sys.executable, "-c", LONG, str(fixture_model), str(n_ctx), str(window)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == recall_figures(positions.fetching(None, w, window, n_tokens=n_ctx))


def test_a_call_wins(tiny_model: TinyModel) -> None:
    _setenv("LLAMA_GROUP_ATTN_N", "8")
    try:
        with Engine(tiny_model("gqa")) as engine:
            assert engine.get_group_attn()[0] == 8
            assert engine.set_group_attn(2, 16, 16) == 0
            assert engine.get_group_attn() == (2, 16, 16)
            assert engine.set_group_attn(1, 1, 1) == 0
            assert engine.get_group_attn()[0] == 1
    finally:
        _setenv("LLAMA_GROUP_ATTN_N", "")


def _setenv(name: str, value: str) -> None:
    """In the process, where the library looks: os.environ does that too, but Windows' C runtimes have copies of their own."""
    ctypes.CDLL(None).setenv(name.encode(), value.encode(), 1)


@pytest.mark.parametrize(
    ("settings", "count"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_that_wait_leave_their_core_to_others(settings: dict[str, str], count: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", "from selfextend_local.native.library import bindings; bindings()"]
    environment |= {"OMP_DISPLAY_ENV": "verbose", **settings}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("the library is built without GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{count}'" in said
