"""The operations by which recall chooses on a CPU, computed as one, against float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from support.cpu_ops import CpuOps, Packed, Planes
from support.driver import GPU_LAYERS

pytestmark = [pytest.mark.native, pytest.mark.skipif(bool(GPU_LAYERS), reason="kernels of the CPU")]

ROUNDING = 5e-6  # of shares of scores up to 12, relative to the largest; measured 1e-7 to 2.1e-6. ggml's product rounds looks to 16 bits

Slice = Callable[[int, int, int], int]
Add = Callable[[int, int], int]


def halves(x: int, n: int, planes: Slice, added: Add) -> int:
    """The sum of all planes, as recall's graph writes it."""
    rest = 0
    while n > 1:
        half = n // 2
        if n % 2:
            last = planes(x, 2 * half, 1)
            rest = added(rest, last) if rest else last
        x, n = added(planes(x, 0, half), planes(x, half, half)), half
    return added(x, rest) if rest else x


def first_twice(x: int, n: int, planes: Slice, added: Add) -> int:
    return added(halves(x, n, planes, added), planes(x, 0, 1))


def without_last(x: int, n: int, planes: Slice, added: Add) -> int:
    return halves(planes(x, 0, n - 1), n - 1, planes, added)


@dataclass(frozen=True)
class Case:
    heads: int = 9
    key_heads: int = 3
    looks: int = 32
    keys: int = 640
    n: int = 64
    side: int = 32
    kind: str = "f16"
    masked: bool = True
    threads: int = 2
    parts: int = 1


CASES = {
    "SmolLM2": Case(),
    "gathered keys": Case(kind="f32", masked=False),
    "q8_0-cache": Case(kind="q8_0"),
    "q4_0-cache": Case(kind="q4_0", keys=96),
    "means of spans": Case(side=1, keys=333),
    "steps that choose for themselves": Case(parts=8),
    "steps of one look each": Case(parts=32, side=1),
    "fewer keys than a tile": Case(keys=32),
    "a last tile that is not whole": Case(keys=672),
    "stretches longer than a tile": Case(side=128),
    "heads of an odd length": Case(n=40),
    "long heads": Case(n=256, heads=2, key_heads=1),
    "a power of two": Case(heads=8, key_heads=2, looks=5),
    "many heads": Case(heads=40, key_heads=1, looks=3),
    "one head": Case(heads=1, key_heads=1),
    "one look of each of many heads": Case(heads=32, key_heads=2, looks=1),
    "one thread": Case(threads=1),
    "more threads than tiles": Case(threads=5, keys=128),
}


def inputs(case: Case) -> tuple[np.ndarray, Packed, np.ndarray | None]:
    rng = np.random.default_rng(7)
    looks = rng.normal(size=(case.heads, case.looks, case.n)).astype(np.float32)
    k = Packed.of(3 * rng.normal(size=(case.key_heads, case.keys, case.n)), case.kind)
    far = np.zeros(case.keys)
    far[: case.keys // 10] = far[-case.keys // 4 :] = -np.inf
    return looks, k, np.tile(far, (case.looks, 1)) if case.masked else None


def expected(case: Case, looks: np.ndarray, k: Packed, mask: np.ndarray | None, counts: np.ndarray) -> np.ndarray:
    """`counts`: how often each head's plane is added."""
    keys = np.repeat(k.values, case.heads // case.key_heads, axis=0)
    scores = np.einsum("hqd,hkd->hqk", looks.astype(np.float64), keys) / np.sqrt(case.n)
    scores = scores if mask is None else scores + mask
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares = np.einsum("h,hqk->qk", counts, shares / shares.sum(axis=2, keepdims=True))
    return np.asarray(shares.reshape(case.parts, -1, case.keys).max(axis=1).reshape(case.parts, -1, case.side).max(axis=2))


def computed(case: Case, sums: Planes) -> tuple[np.ndarray, np.ndarray, bool]:
    """What was found, what was expected of all planes, and whether it was computed as one."""
    looks, k, mask = inputs(case)
    with CpuOps(case.threads) as ops:
        found = ops.shares(looks, k, mask, 1 / np.sqrt(case.n), case.side, sums, case.parts)
        apart = looks.nbytes + 4 * (case.keys + 16) * case.threads  # more than looks as f16, or a row of a thread
        as_one = ops.scratch > apart
    return found, expected(case, looks, k, mask, np.ones(case.heads)), as_one


@pytest.mark.parametrize("name", CASES)
def test_shares(name: str) -> None:
    found, wanted, as_one = computed(CASES[name], halves)
    assert as_one
    assert np.abs(found - wanted).max() <= ROUNDING * wanted.max()


def test_the_same_on_any_number_of_threads() -> None:
    found = [computed(Case(threads=threads), halves)[0] for threads in (1, 2, 5)]
    assert (found[1] == found[0]).all()
    assert (found[2] == found[0]).all()


@pytest.mark.parametrize(
    ("case", "sums", "counts"),
    [
        (Case(), first_twice, [2, *[1] * 8]),
        (Case(), without_last, [*[1] * 8, 0]),
        (Case(looks=1, heads=3), halves, [1] * 3),
    ],
)
def test_what_is_another_thing_is_left_to_ggml(case: Case, sums: Planes, counts: list[int]) -> None:
    """Other sums, and fewer rows than repay it."""
    looks, k, mask = inputs(case)
    found, _, as_one = computed(case, sums)
    assert not as_one
    wanted = expected(case, looks, k, mask, np.array(counts, float))
    assert np.abs(found - wanted).max() <= 1e-2 * wanted.max()
