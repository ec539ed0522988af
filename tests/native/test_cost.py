"""What group attention costs, in operations and values instead of seconds: the same on every machine, so it guards against regressions."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.driver import Engine, Node
from support.tiny_models import HEAD_DIM, N_HEAD_KV, N_VOCAB, TinyModel

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
N_LAYER = 2  # of the tiny model "gqa"
WINDOW = STEP = 32
GROUPED = (4, WINDOW, STEP)
PLAIN = (1, WINDOW, STEP)
KV_TYPES = ["f16", "q8_0", "q4_0"]

Kind = tuple[str, str, tuple[str, ...]]


def text(n_tokens: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(5).integers(3, N_VOCAB, n_tokens)]


def kinds(nodes: list[Node]) -> Counter[Kind]:
    return Counter((node.operation, node.type, node.sources) for node in nodes)


class Recorder:
    """An engine that tells which operations a decode ran."""

    def __init__(self, path: Path, scheme: tuple[int, int, int], kv_type: str = "f16") -> None:
        self._nodes: list[Node] = []
        self._engine = Engine(path, type_k=kv_type, type_v=kv_type, flash_attn=True, n_ubatch=STEP, on_node=self._nodes.append)
        self._engine.set_group_attn(*scheme)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.close()

    def decode(self, n_tokens: int) -> list[Node]:
        self._nodes.clear()
        self._engine.decode(text(n_tokens))
        return list(self._nodes)


def step_of(path: Path, kv_type: str) -> list[Node]:
    """The operations that the first boundary step adds to the decode of its token."""
    with Recorder(path, GROUPED, kv_type) as grouped, Recorder(path, PLAIN, kv_type) as plain:
        grouped.decode(WINDOW + STEP)
        plain.decode(WINDOW + STEP)
        extra = kinds(grouped.decode(1)) - kinds(plain.decode(1))
        assert kinds(grouped.decode(1)) == kinds(plain.decode(1)), "a token that crosses no boundary costs what it costs without groups"
    return [Node(*kind, n_values=0) for kind in extra.elements()]


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("model", ["gqa", "partial-rotary", "swa", "qkv-bias"])
def test_a_step_adds_the_documented_operations(tiny_model: TinyModel, model: str, kv_type: str) -> None:
    found = set(kinds(step_of(tiny_model(model), kv_type)))
    assert found == documented(kv_type)


def documented(kv_type: str) -> set[Kind]:
    """The rows of the table in docs/backends.md that hold for this KV cache type."""
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8").partition("<!-- operations of a boundary step")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.partition("\n\n")[0].splitlines()[3:]]
    assert len(rows) == 6
    return {
        (operation, result.replace("type of K", kv_type), tuple(operands.replace("type of K", kv_type).split(", ")))
        for operation, result, operands, cache, _ in rows
        if cache == "all" or kv_type != "f16"
    }


def test_a_step_rotates_the_keys_that_move_once(tiny_model: TinyModel) -> None:
    """w + r - 1 keys a layer: all from the old boundary on, but for the first, which stays where it is."""
    with Recorder(tiny_model("gqa"), GROUPED) as grouped, Recorder(tiny_model("gqa"), PLAIN) as plain:
        for n_tokens in (WINDOW + STEP, STEP, STEP):
            rotated, in_plain = rope_values(grouped.decode(n_tokens)), rope_values(plain.decode(n_tokens))
        rotated, in_plain = rope_values(grouped.decode(1)), rope_values(plain.decode(1))
    assert rotated - in_plain == N_LAYER * (WINDOW + STEP - 1) * N_HEAD_KV * HEAD_DIM


def rope_values(nodes: list[Node]) -> int:
    return sum(node.n_values for node in nodes if node.operation == "ROPE")


def test_a_prefill_is_cut_as_without_groups(tiny_model: TinyModel) -> None:
    """With w and r multiples of the micro-batch the steps fall on its borders: equally many micro-batches, equally large."""
    n_tokens = 6 * STEP
    with Recorder(tiny_model("gqa"), GROUPED) as grouped, Recorder(tiny_model("gqa"), PLAIN) as plain:
        flash = [[node for node in one.decode(n_tokens) if node.operation == "FLASH_ATTN_EXT"] for one in (grouped, plain)]
    assert flash[0] == flash[1]
    assert len(flash[0]) == N_LAYER * n_tokens // STEP


CASES = {
    "ggml-metal/ggml-metal-device.m": "ggml_metal_device_supports_op(",
    "ggml-cuda/ggml-cuda.cu": "ggml_backend_cuda_device_supports_op(",
    "ggml-vulkan/ggml-vulkan.cpp": "ggml_backend_vk_device_supports_op(",
}
"""Backend source -> the function in it that says what the backend can compute."""


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The backends of the pin, by file; skips where the source distribution is not at hand."""
    sys.path.insert(0, str(ROOT / "patches"))
    from backend.pin import read_pin
    from backend.sdist import local_sdist, members

    pin = read_pin(ROOT / "patches" / "pin")
    sdist = local_sdist(pin)
    if sdist is None:
        pytest.skip(f"{pin.sdist_name} is not on this machine")
    wanted = {f"vendor/llama.cpp/ggml/src/{file}": file for file in CASES}
    return {wanted[path]: data.decode() for path, data in members(sdist, pin) if path in wanted}


@pytest.mark.parametrize("file", CASES)
def test_backends_support_the_operations(sources: dict[str, str], file: str) -> None:
    """GET_ROWS from, SET_ROWS to and ROPE of the types of K, by the words of the source."""
    function = sources[file].partition(CASES[file])[2]
    assert "return" in case(function, "ROPE")
    get_rows, set_rows = case(function, "GET_ROWS"), case(function, "SET_ROWS")
    for kv_type in ("F16", "Q8_0", "Q4_0"):
        listed = f"GGML_TYPE_{kv_type}" in get_rows
        # Metal names the two types that it can't read
        assert listed or ("src[0]->type !=" in get_rows and "switch" not in get_rows), kv_type
        assert f"GGML_TYPE_{kv_type}" in set_rows
    assert "GGML_TYPE_F32" in set_rows


def case(function: str, operation: str) -> str:
    """The lines of one `case` of a switch, up to the next operation that is not a fall-through."""
    found = re.search(rf"case GGML_OP_{operation}:(?:\s*case GGML_OP_\w+:)*(.*?)case GGML_OP_", function, re.DOTALL)
    assert found, f"no case for {operation}"
    return found[1]
