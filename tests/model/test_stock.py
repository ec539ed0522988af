"""The plain model of a real file is the stock library's, bit for bit, when ggml's kernels compute it.

SELFEXTEND_STOCK_LIB names the folder of a stock libllama that was built on the same machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.model

STOCK = os.environ.get("SELFEXTEND_STOCK_LIB")

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from support.driver import Engine

model, out, kv_type, flash_attn = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "True"
tokens = [int(t) for t in np.random.default_rng(3).integers(100, 40_000, 220)]
with Engine(model, type_k=kv_type, type_v=kv_type, flash_attn=flash_attn, n_ctx=256, n_ubatch=128, n_threads=2) as engine:
    np.save(out, engine.decode(tokens, batches=[128, 60, 1, 1, 30]))
"""


def logits(model: Path, out: Path, kv_type: str, flash_attn: bool, environment: dict[str, str]) -> np.ndarray:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])} | environment
    command = [sys.executable, "-c", SCRIPT, str(model), str(out), kv_type, str(flash_attn)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.asarray(np.load(out))


@pytest.mark.skipif(not STOCK, reason="SELFEXTEND_STOCK_LIB is not set")
@pytest.mark.parametrize(("kv_type", "flash_attn"), [("f16", False), ("f16", True), ("q8_0", True), ("q4_0", True)])
def test_without_groups_it_is_the_stock_library_bit_for_bit(default_model: Path, tmp_path: Path, kv_type: str, flash_attn: bool) -> None:
    """But for our kernels for CPUs, whose distance is printed."""
    assert STOCK
    stock = logits(default_model, tmp_path / "stock.npy", kv_type, flash_attn, {"LLAMA_CPP_LIB_PATH": STOCK})
    plain = logits(default_model, tmp_path / "plain.npy", kv_type, flash_attn, {"GGML_CPU_OWN_KERNELS": "0"})
    usual = logits(default_model, tmp_path / "usual.npy", kv_type, flash_attn, {})
    apart = np.sqrt(np.mean((usual - stock) ** 2)) / stock.std()
    print(f"{kv_type}, flash attention {flash_attn}: with our kernels {apart:.5f} of the spread of the logits apart")
    assert np.array_equal(plain, stock)
