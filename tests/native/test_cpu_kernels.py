"""The two kernels of our own for a CPU, against float64: attention, and products of weights with many tokens."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import pytest
from support.cpu_ops import CpuOps, Packed, lacks_products_of_bytes, why_none
from support.driver import GPU_LAYERS, Engine
from support.tiny_models import N_VOCAB, TinyModel

pytestmark = [pytest.mark.native, pytest.mark.skipif(bool(GPU_LAYERS), reason="kernels of the CPU")]

EIGHT_BITS = 1e-2  # of activations, in a product of some hundred values; measured 2e-3 to 5e-3, as ggml's own
SIXTEEN_BITS = 1e-4  # of many queries, where keys and values are bytes; measured 2e-5 to 6e-5
MANY = 32  # queries that go the way of a prompt
ROUNDING = 2e-6  # of float32 sums of some hundred values, relative to the largest; measured 2e-7 to 9e-7


@dataclass(frozen=True)
class Case:
    """Shapes of an attention, and what is odd about it."""

    heads: int = 4
    key_heads: int = 2
    queries: int = 40
    keys: int = 200
    n_k: int = 64
    n_v: int = 64
    kind: str = "f16"
    mask: str = "causal"
    softcap: float = 0.0
    sinks: bool = False
    threads: int = 2


CASES = {
    "one-query": Case(queries=1, keys=1000),
    "one query that sees nothing": Case(queries=1, mask="blind"),
    "one query and few keys": Case(queries=1, keys=3),
    "one query of many heads": Case(heads=40, key_heads=1, queries=1, keys=600),
    "few queries": Case(queries=31, keys=1000),
    "few queries in a sliding window": Case(queries=9, keys=1000, mask="window"),
    "few queries of many heads": Case(heads=72, key_heads=1, queries=5, keys=300),
    "few queries of odd lengths": Case(n_k=96, n_v=40, queries=7, keys=300),
    "one query of a long head": Case(n_k=256, n_v=256, queries=1, keys=300),
    "few queries that see nothing": Case(queries=9, mask="blind", keys=600),
    "few queries, sinks, that see nothing": Case(queries=4, mask="blind", sinks=True),
    "few queries on several threads": Case(queries=9, keys=1500, threads=5),
    "few queries, soft cap and sinks": Case(queries=3, keys=500, softcap=5.0, sinks=True),
    "many queries": Case(queries=32),
    "a micro-batch": Case(queries=512, keys=640),
    "more heads than a block holds": Case(heads=40, key_heads=1, queries=130),
    "as many key heads as heads": Case(heads=3, key_heads=3, queries=65, keys=65),
    "long heads": Case(n_k=256, n_v=256),
    "heads of odd lengths": Case(n_k=96, n_v=40),
    "fewer keys than a tile": Case(keys=40),
    "no mask": Case(mask="none", keys=130),
    "a sliding window": Case(mask="window", queries=150, keys=300),
    "queries that see nothing": Case(mask="blind"),
    "several threads": Case(queries=300, threads=5),
    "one thread": Case(threads=1),
    "soft cap": Case(softcap=5.0),
    "sinks": Case(sinks=True),
    "sinks and queries that see nothing": Case(sinks=True, mask="blind"),
    "q8_0-cache, a micro-batch": Case(kind="q8_0", queries=512, keys=640),
    "q8_0-cache, long heads, soft cap": Case(kind="q8_0", n_k=256, n_v=128, softcap=5.0, queries=70, keys=130),
    "q8_0-cache, a sliding window": Case(kind="q8_0", mask="window", queries=150, keys=300, n_k=96, n_v=96),
    **{f"{kind}-cache": Case(kind=kind) for kind in ("f32", "q8_0", "q4_0", "q5_1")},
    **{f"{kind}-cache, few queries": Case(kind=kind, queries=2) for kind in ("f32", "q8_0", "q4_0", "q5_1")},
    **{f"{kind}-cache, some more queries": Case(kind=kind, queries=20) for kind in ("f32", "q8_0", "q4_0", "q5_1")},
}


def mask_of(case: Case) -> np.ndarray:
    """[queries, keys] of 0 and -inf; the queries are the last of the keys' positions."""
    distance = np.arange(case.queries)[:, None] + (case.keys - case.queries) - np.arange(case.keys)
    seen = distance >= 0
    if case.mask == "window":
        seen &= distance < 70
    if case.mask == "blind":
        seen[::3] = False
    return np.where(seen, 0.0, -np.inf)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray, scale: float, softcap: float, sinks: np.ndarray | None
) -> np.ndarray:
    share = len(q) // len(k)
    scores = np.einsum("hqd,hkd->hqk", q, np.repeat(k, share, axis=0)) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = scores + mask
    if sinks is not None:
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))], axis=2)
    top = scores.max(axis=2, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1e-300)
    return np.einsum("hqk,hkd->qhd", weights[..., : k.shape[1]], np.repeat(v, share, axis=0))


@pytest.mark.parametrize("name", CASES)
def test_attention(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(3)
    q = rng.normal(size=(case.heads, case.queries, case.n_k)).astype(np.float32)
    k = Packed.of(rng.normal(size=(case.key_heads, case.keys, case.n_k)), case.kind)
    v = Packed.of(rng.normal(size=(case.key_heads, case.keys, case.n_v)), case.kind)
    mask = None if case.mask == "none" else mask_of(case)
    sinks = rng.normal(size=case.heads).astype(np.float32) if case.sinks else None
    scale = 1.5 / np.sqrt(case.n_k)

    with CpuOps(case.threads) as ops:
        found = ops.attention(q, k, v, mask, scale, softcap=case.softcap, sinks=sinks)
    expected = attention(q.astype(np.float64), k.values, v.values, np.zeros(1) if mask is None else mask, scale, case.softcap, sinks)
    bound = SIXTEEN_BITS if case.kind == "q8_0" and case.queries >= MANY else ROUNDING
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("f16", 64), ("f16", 40), ("q8_0", 64), ("q5_1", 96)])
def test_few_queries_have_the_bits_of_one(kind: str, head: int) -> None:
    """Whatever is beside them: as many as are unpacked on the way, as go through a tile, and so many that no sums are kept."""
    rng = np.random.default_rng(6)
    q = rng.normal(size=(32, 31, head)).astype(np.float32)
    k, v = (Packed.of(rng.normal(size=(9000, head)), kind) for _ in range(2))
    k, v = (Packed(one.kind, np.stack([one.data] * 8)) for one in (k, v))
    mask = np.where(rng.random((31, 9000)) < 0.5, 0.0, -np.inf)
    mask[::2, 4000:7000] = mask[5, :] = -np.inf

    def result(queries: list[int]) -> np.ndarray:
        with CpuOps() as ops:
            return ops.attention(q[:, queries], k, v, mask[queries], 0.2)

    together = result(list(range(31)))
    for queries in ([0], [5], [30], [1, 2], [7, 3, 8, 11], list(range(12, 25))):
        assert (result(queries) == together[queries]).all()


@pytest.mark.slow
def test_scratch_for_few_queries_is_bounded() -> None:
    """Of the sums of all chunks of 31 queries, 128 heads and 40,000 keys there would be 165 MB."""
    k, v = (Packed.of(np.zeros((1, 40_000, 64)), "q4_0") for _ in range(2))
    with CpuOps(n_threads=1) as ops:
        ops.attention(np.zeros((128, 31, 64), np.float32), k, v, None, 1.0)
        assert 0 < ops.scratch < 12 << 20


@pytest.mark.parametrize("queries", [1, 5, 100])
def test_attention_is_the_same_on_any_number_of_threads(queries: int) -> None:
    rng = np.random.default_rng(3)
    q = rng.normal(size=(4, queries, 64)).astype(np.float32)
    k, v = (Packed.of(rng.normal(size=(2, 700, 64)), "f16") for _ in range(2))
    found = []
    for threads in (1, 2, 5):
        with CpuOps(threads) as ops:
            found.append(ops.attention(q, k, v, None, 0.2))
    assert (found[1] == found[0]).all()
    assert (found[2] == found[0]).all()


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_how_many_queries_come_together_changes_no_bit(tiny_model: TinyModel, kv_type: str) -> None:
    text = [int(token) for token in np.random.default_rng(1).integers(3, N_VOCAB, 120)]
    logits = []
    for batches in ([120], [32, 88], [40, 40, 40]):
        with Engine(tiny_model("gqa"), type_k=kv_type, type_v=kv_type, flash_attn=True) as engine:
            logits.append(engine.decode(text, batches=batches))
    assert (logits[1] == logits[0]).all()
    assert (logits[2] == logits[0]).all()


def weights_of(kind: str, outputs: int, inputs: int, rng: np.random.Generator) -> Packed:
    if not kind.endswith("K"):
        return Packed.of(rng.normal(size=(outputs, inputs)) + 0.3, kind)
    type_ = gguf.GGMLQuantizationType[kind.upper()]  # for these gguf has no quantisation, but any bytes are values
    size, n_bytes = gguf.GGML_QUANT_SIZES[type_]
    blocks = rng.integers(0, 256, (outputs * inputs // size, n_bytes), dtype=np.uint8)
    scales = slice(-2, None) if kind == "q6_K" else slice(0, 4)
    blocks[:, scales] = rng.uniform(0.001, 0.002, (len(blocks), 1 if kind == "q6_K" else 2)).astype(np.float16).view(np.uint8)
    return Packed(type_, blocks.reshape(outputs, -1))


def rounded(x: np.ndarray) -> np.ndarray:
    """Eight bits a value, one scale for 32 of them."""
    blocks = x.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    return np.asarray((np.rint(blocks * (np.float32(1) / scale)).astype(np.float64) * scale).reshape(x.shape))


def ours_alone() -> None:
    """What comes next ggml's own kernels don't promise: they round otherwise."""
    if reason := lacks_products_of_bytes():
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("machine", "compiled", "file", "knows_avx2", "skipped"),
    [
        ("x86_64", True, "libggml-cpu.so", True, False),
        ("x86_64", True, "libggml-cpu-zen4.so", True, False),
        ("x86_64", False, "libggml-cpu-sse42.so", True, True),
        ("x86_64", False, "libggml-cpu-sse42.so", False, True),
        ("x86_64", False, "libggml-cpu.so", False, True),
        ("x86_64", False, "libggml-cpu.so", True, False),
        ("x86_64", False, "libggml-cpu-haswell.so", True, False),
        ("amd64", False, "ggml-cpu-zen4.dll", True, False),
        ("aarch64", False, "libggml-cpu.so", True, True),
    ],
)
def test_a_library_that_lost_its_products_is_not_passed_over(
    machine: str, compiled: bool, file: str, knows_avx2: bool, skipped: bool
) -> None:
    assert bool(why_none(machine, compiled, file, knows_avx2)) is skipped


FEW_BITS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_K", "q5_K", "q6_K")


@pytest.mark.parametrize("kind", FEW_BITS)
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(32, 256, 32), (63, 768, 50), (512, 1536, 96), (700, 2304, 33)])
@pytest.mark.parametrize("threads", [1, 3])
def test_product_of_weights_and_many_tokens(kind: str, tokens: int, inputs: int, outputs: int, threads: int) -> None:
    rng = np.random.default_rng(4)
    weights = weights_of(kind, outputs, inputs, rng)
    x = rng.normal(size=(tokens, inputs)).astype(np.float32)
    with CpuOps(threads) as ops:
        found = ops.product(weights, x)
    largest = np.abs(found).max()
    assert np.abs(found - x.astype(np.float64) @ weights.values.T).max() <= EIGHT_BITS * largest
    ours_alone()
    assert np.abs(found - rounded(x) @ weights.values.T).max() <= ROUNDING * largest


@pytest.mark.parametrize("kind", FEW_BITS)
def test_products_of_extreme_bytes(kind: str) -> None:
    """Sums of the largest weights and the largest activations have room."""
    rng = np.random.default_rng(4)
    weights = weights_of(kind, 16, 512, rng)
    if kind.endswith("K"):
        bytes_ = slice(0, 192) if kind == "q6_K" else slice(4, None)  # scales with a sign come after them
        weights.data.reshape(-1, gguf.GGML_QUANT_SIZES[weights.kind][1])[:, bytes_] = 255
    else:
        weights = Packed.of(np.tile([-1.0, 1.0, 1.0, 1.0], (16, 128)), kind)
    x = np.where(weights.values[:1] > 0, 1.0, -1.0).repeat(40, axis=0).astype(np.float32)
    with CpuOps() as ops:
        found = ops.product(weights, x)
    assert np.abs(found - x.astype(np.float64) @ weights.values.T).max() <= EIGHT_BITS * np.abs(found).max()
    ours_alone()
    assert np.abs(found - rounded(x) @ weights.values.T).max() <= ROUNDING * np.abs(found).max()


@pytest.mark.parametrize("kind", FEW_BITS)
def test_a_product_has_the_bits_of_its_token(kind: str) -> None:
    rng = np.random.default_rng(4)
    weights = weights_of(kind, 70, 512, rng)
    x = rng.normal(size=(77, 512)).astype(np.float32)
    results = []
    for threads, tokens in ((1, slice(0, 77)), (3, slice(0, 77)), (2, slice(43, 77)), (2, slice(10, 45))):
        with CpuOps(threads) as ops:
            results.append((tokens, ops.product(weights, x[tokens])))
    for tokens, result in results:
        assert (result == results[0][1][tokens]).all()


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32, 64, 256])
def test_hadamard_s_matrix(n: int) -> None:
    """By which quantised caches turn keys and values: sums and differences of pairs, in ggml's order, so that its bits stay."""
    x = np.random.default_rng(4).normal(size=(7, n)).astype(np.float32)
    expected = x * (np.float32(1) / np.sqrt(np.float32(n)))
    length = 1
    while length < n:
        pairs = expected.reshape(len(x), -1, 2, length)
        expected = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2).reshape(x.shape)
        length *= 2
    with CpuOps() as ops:
        assert (ops.turned(x) == expected).all()


@pytest.mark.parametrize("hidden", [1e-3, 1.0, 1e3])
def test_hidden_keys_change_no_bit(hidden: float) -> None:
    """Weights are rounded by what a query sees, not by what lies beside it."""
    rng = np.random.default_rng(3)
    q = rng.normal(size=(4, 40, 64)).astype(np.float32)
    x, y = rng.normal(size=(2, 2, 100, 64))
    mask = mask_of(Case(queries=40, keys=70))
    mask = np.concatenate([mask, np.full((40, 30), -np.inf)], axis=1)

    def result() -> np.ndarray:
        with CpuOps() as ops:
            return ops.attention(q, Packed.of(x, "q8_0"), Packed.of(y, "q8_0"), mask, 0.2)

    first = result()
    x[:, 70:] *= hidden
    y[:, 70:] *= hidden
    assert (result() == first).all()


def test_products_of_few_tokens_are_ggml_s() -> None:
    """It rounds activations to eight bits."""
    rng = np.random.default_rng(4)
    weights = Packed.of(rng.normal(size=(64, 256)), "q4_1")
    x = rng.normal(size=(31, 256)).astype(np.float32)
    with CpuOps() as ops:
        difference = np.abs(ops.product(weights, x) - x.astype(np.float64) @ weights.values.T).max()
    assert difference > 1e-3
