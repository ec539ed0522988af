"""What group attention costs, in operations and values instead of seconds: the same on every machine, so it guards against regressions."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support import supports_op
from support.driver import GPU_LAYERS, Engine, Node, library
from support.supports_op import SupportsOp
from support.tensors import Tensors
from support.tiny_models import HEAD_DIM, N_HEAD_KV, N_VOCAB, TinyModel

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
N_LAYER = 2  # of the tiny model "gqa"
WINDOW = STEP = 32
GROUPED = (4, WINDOW, STEP)
PLAIN = (1, WINDOW, STEP)
KV_TYPES = ["f16", "q8_0", "q4_0"]
APART = "f16 apart"
MODELS = ["gqa", "partial-rotary", "swa", "qkv-bias", "mrope"]

Kind = tuple[str, str, tuple[str, ...]]


def text(n_tokens: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(5).integers(3, N_VOCAB, n_tokens)]


def kinds(nodes: list[Node]) -> Counter[Kind]:
    return Counter((node.operation, node.type, node.sources) for node in nodes)


class Recorder:
    """An engine that tells which operations a decode ran."""

    def __init__(self, path: Path, scheme: tuple[int, int, int], kv_type: str = "f16") -> None:
        self._nodes: list[Node] = []
        self._engine = Engine(
            path, type_k=kv_type, type_v=kv_type, flash_attn=True, n_ubatch=STEP, n_seq_max=2, on_node=self._nodes.append
        )
        self._engine.set_group_attn(*scheme)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.close()

    def decode(self, n_tokens: int) -> list[Node]:
        self._nodes.clear()
        self._engine.decode(text(n_tokens))
        return list(self._nodes)

    def set_temperature(self, c: float) -> None:
        assert self._engine.set_temperature(c) == 0

    def decode_other(self) -> None:
        """A token of another sequence, whose cell comes between those of this one."""
        self._engine.decode(text(1), seq=1)


def step_of(path: Path, cache: str) -> list[Node]:
    """The operations that the first boundary step adds to the decode of its token: they run before the others. `cache`: a KV
    cache type, or APART."""
    with Recorder(path, GROUPED, cache.split()[0]) as grouped:
        grouped.decode(WINDOW)
        if cache == APART:
            grouped.decode_other()
        grouped.decode(STEP)
        with_step, without = grouped.decode(1), grouped.decode(1)
    step, rest = with_step[: -len(without)], with_step[-len(without) :]
    assert rest == without
    return step


@pytest.mark.parametrize("cache", [*KV_TYPES, APART])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_adds_the_documented_operations(tiny_model: TinyModel, model: str, cache: str) -> None:
    assert set(kinds(step_of(tiny_model(model), cache))) == documented("boundary step", cache)


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_token_without_a_step_costs_what_it_costs_without_groups(tiny_model: TinyModel, model: str, kv_type: str) -> None:
    """But for the exact copies of keys that are quantised coarsely."""
    with Recorder(tiny_model(model), GROUPED, kv_type) as grouped, Recorder(tiny_model(model), PLAIN, kv_type) as plain:
        with_groups, without = kinds(grouped.decode(STEP)), kinds(plain.decode(STEP))
    assert not without - with_groups
    assert set(with_groups - without) == documented("micro-batch", kv_type)


@pytest.mark.parametrize("model", MODELS)
def test_an_attention_temperature_adds_the_documented_operations(tiny_model: TinyModel, model: str) -> None:
    """One in each layer that has no sliding window."""
    with Recorder(tiny_model(model), GROUPED) as recorder:
        without = kinds(recorder.decode(STEP))
        recorder.set_temperature(0.3)
        added = kinds(recorder.decode(STEP)) - without
    assert set(added) == documented("temperature", "f16")
    assert sum(added.values()) in (1, N_LAYER)


@pytest.mark.parametrize("cache", [*KV_TYPES, APART])
def test_a_step_runs_where_the_keys_are(tiny_model: TinyModel, cache: str) -> None:
    """On a GPU (SELFEXTEND_TEST_GPU_LAYERS): what the backend can't compute, the scheduler would have computed by the CPU."""
    step = step_of(tiny_model("gqa"), cache)
    keys = {node.buffer for node in step if node.type == cache.split()[0]}
    assert len(keys) == 1
    assert (keys == {"CPU"}) is not bool(GPU_LAYERS)
    assert {(node.operation, node.buffer) for node in step if node.buffer not in keys} == set()


def documented(when: str, cache: str) -> set[Kind]:
    """The rows of the table in docs/backends.md that hold for this KV cache type, or for APART."""
    kv_type = cache.split()[0]
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8").partition(f"<!-- operations of a {when}")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.partition("\n\n")[0].splitlines()[3:]]
    assert rows
    return {
        (operation, result.replace("type of K", kv_type), tuple(operands.replace("type of K", kv_type).split(", ")))
        for operation, result, operands, caches, _ in rows
        if caches == "all" or cache in caches.split(", ")
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


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """What the pin's backends say, by path; skips where the source distribution or a compiler is not at hand."""
    sys.path.insert(0, str(ROOT / "patches"))
    from backend.pin import read_pin
    from backend.sdist import local_sdist, members

    pin = read_pin(ROOT / "patches" / "pin")
    sdist = local_sdist(pin)
    if sdist is None:
        pytest.skip(f"{pin.sdist_name} is not on this machine")
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    return {path: data.decode() for path, data in members(sdist, pin) if supports_op.wanted(path) or path.endswith(METAL_KERNELS)}


METAL_KERNELS = tuple(f"ggml-metal/kernels/{name}.metal" for name in ("argsort", "pool", "quantize", "reduce", "rope", "softmax"))


@pytest.fixture(scope="module", params=supports_op.BACKENDS)
def supports(request: pytest.FixtureRequest, sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SupportsOp]:
    """A backend's name and its compiled word."""
    folder = tmp_path_factory.mktemp("supports_op")
    return request.param, SupportsOp(supports_op.BACKENDS[request.param], sources, library().ggml_base, folder)


@pytest.mark.process
@pytest.mark.parametrize("model", MODELS)
def test_backends_support_the_operations_of_a_step(tiny_model: TinyModel, supports: tuple[str, SupportsOp], model: str) -> None:
    """The tensors of a step as they are, types and layouts, shown to the `supports_op` of each backend."""
    name, can = supports
    asked: set[Kind] = set()
    refused: set[Kind] = set()

    def ask(node: Node) -> None:
        if node.operation in supports_op.OPERATIONS:
            kind = (node.operation, node.type, node.sources)
            (asked if can(node.address) else refused).add(kind)

    for kv_type in KV_TYPES:
        asked.clear()
        with Engine(
            tiny_model(model), type_k=kv_type, type_v=kv_type, flash_attn=True, n_ubatch=STEP, n_seq_max=2, on_node=ask
        ) as engine:
            engine.set_temperature(0.3)
            engine.decode(text(WINDOW + STEP))
            engine.set_group_attn(*GROUPED)
            engine.decode(text(1))  # there are no exact copies of what was read before: the step reads the keys themselves
            engine.clear()
            engine.decode(text(WINDOW))
            engine.decode(text(1), seq=1)
            engine.decode(text(STEP + 1))
        rows = {row for cache in (kv_type, f"{kv_type} apart") for row in documented("boundary step", cache)}
        rows |= documented("micro-batch", kv_type) | documented("temperature", kv_type)
        wanted = rows | {("GET_ROWS", "f32", (kv_type, "i32"))}
        assert wanted <= asked | refused
        assert {operation for operation, _, _ in refused} == ({"MUL_MAT"} if "without" in name else set()), kv_type


@pytest.mark.process
@pytest.mark.parametrize("model", ["gqa", "partial-rotary", "qkv-bias"])
def test_backends_support_the_operations_of_recall(tiny_model: TinyModel, supports: tuple[str, SupportsOp], model: str) -> None:
    """Choosing by means and query by query, in one stage and in two, for a micro-batch and while decoding. But for FLASH_ATTN_EXT, whose
    word depends on the device."""
    name, can = supports
    seen: set[str] = set()
    refused: set[Kind] = set()

    def ask(node: Node) -> None:
        if node.operation in supports_op.OPERATIONS:
            seen.add(node.operation)
            if not can(node.address):
                refused.add((node.operation, node.type, node.sources))

    for first in (0, 2 * STEP):
        with Engine(tiny_model(model), type_k="f16", type_v="f16", flash_attn=True, n_ubatch=STEP, on_node=ask) as engine:
            assert engine.set_recall(WINDOW, STEP, sinks=8, fetched=STEP, span=8, stretch=STEP // 4, each=8, first=first, keep=4) == 0
            engine.decode(text(8 * STEP))
            for _ in range(6):
                engine.decode(text(1))
    assert seen >= {"ROPE", "CONT", "MUL", "MUL_MAT", "SOFT_MAX", "ADD", "POOL_2D", "TOP_K", "ARGSORT", "CPY"}
    assert seen >= {"GET_ROWS", "SET_ROWS"}
    assert {operation for operation, _, _ in refused} <= ({"MUL_MAT", "SOFT_MAX"} if "without" in name else set()), refused


@pytest.mark.process
def test_backends_support_the_keys_of_mla(supports: tuple[str, SupportsOp]) -> None:
    """Design 3.4: the rotated dimensions are a part of each row, strided, and are put behind the others again."""
    with Tensors() as tensors:
        key = tensors.new("f32", 192, 1, 7)
        rotated = tensors.rope(tensors.slice(key, 128, 64), 64)
        whole = tensors.concat(tensors.slice(key, 0, 128), rotated)
        assert supports[1](rotated)
        assert supports[1](whole)


@pytest.mark.slow
def test_backends_can_say_no(supports: tuple[str, SupportsOp]) -> None:
    """A check that can fail: a type that no backend writes, and rows whose values lie apart, which Metal alone rotates."""
    name, can = supports
    with Tensors() as tensors:
        keys, rows = tensors.new("f32", 256, 7), tensors.new("i32", 7)
        assert can(tensors.set_rows(tensors.new("q8_0", 256, 16), keys, rows))
        assert not can(tensors.set_rows(tensors.new("q2_K", 256, 16), keys, rows))
        apart = tensors.swapped(tensors.new("f32", 2, 64, 7))
        assert can(tensors.rope(apart, 64)) is name.startswith("Metal")


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_metal_has_the_kernels(sources: dict[str, str], kv_type: str) -> None:
    """Its supports_op asks neither the type of the indices nor whether there is a kernel: it looks kernels up by these names."""
    kernels = "".join(text for path, text in sources.items() if path.endswith(METAL_KERNELS))
    names = [f"get_rows_{kv_type}", f"set_rows_f32_i32_{kv_type}", "set_rows_f32_i64_f16", "concat_f32"]
    names += [f"rope_{kind}_{type_}" for kind in ("norm", "neox", "multi") for type_ in ("f16", "f32")]
    names += ["cpy_f32_i32", "cpy_i32_f32", "cpy_f32_f16", "cpy_f16_f16"]
    names += ["argsort_f32_i32_desc", "pool_2d_max_f32", "pool_2d_avg_f32", "soft_max_f32"]
    declared = [(f'[[host_name("kernel_{name}")]]', f"kernel void kernel_{name}(") for name in names]
    missing = [words[0] for words in declared if not any(word in kernels for word in words)]
    assert not missing
