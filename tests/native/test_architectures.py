"""Every architecture of the pinned source: group attention is right on a tiny model of it, or refused, as docs/backends.md says."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.architecture_check import Outcome, outcomes
from support.architectures import VARIANTS, variant_of
from support.driver import MissingSymbol, library

pytestmark = [pytest.mark.native, pytest.mark.process]

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"<!-- architectures;.*?-->\n\|.*?\n\|.*?\n((?:\|.*\n)+)")
STATUS = {0: "OK", -2: "MEMORY", -3: "NO_ROPE", -4: "ROPE_KIND", -7: "ARCH"}
WORKERS = 2


def documented() -> Iterator[tuple[str, str, str]]:
    """(name, outcome, status) of each row's names."""
    found = TABLE.search((ROOT / "docs" / "backends.md").read_text(encoding="utf-8"))
    assert found
    for row in found[1].splitlines():
        outcome, status, _, names = (cell.strip() for cell in row.strip("|").split("|"))
        for name in names.split(", "):
            yield name, outcome, status


ROWS = list(documented())
NAMES = [name for name, _, _ in ROWS]


@pytest.fixture(scope="session")
def found() -> dict[str, Outcome]:
    """What all of them do, in child processes."""
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = pool.map(lambda part: list(outcomes(part)), [NAMES[worker::WORKERS] for worker in range(WORKERS)])
    return {outcome.name: outcome for part in parts for outcome in part}


@pytest.mark.parametrize(("name", "outcome", "status"), ROWS, ids=NAMES)
def test_is_as_documented(found: dict[str, Outcome], name: str, outcome: str, status: str) -> None:
    got = found[name]
    if outcome == "unknown":
        assert got.verdict in ("no model", "blind", "aborted"), f"{got}: known now, so docs/backends.md can say what it does"
    else:
        assert (got.verdict, STATUS[got.status]) == (outcome, status), str(got)


def test_each_name_stands_once() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert {name for name in NAMES if name in VARIANTS} == set(VARIANTS)


def test_all_architectures_are_listed() -> None:
    sys.path.insert(0, str(ROOT / "patches"))
    from backend.pin import read_pin
    from backend.sdist import local_sdist, members

    pin = read_pin(ROOT / "patches" / "pin")
    sdist = local_sdist(pin)
    if sdist is None:
        pytest.skip(f"{pin.sdist_name} is not on this machine")
    source = next(data.decode() for path, data in members(sdist, pin) if path.endswith("src/llama-arch.cpp"))
    table = re.search(r"LLM_ARCH_NAMES = \{(.*?)\};", source, re.DOTALL)
    assert table
    known = set(re.findall(r'"([^"()]+)"', table[1]))
    assert {name for name in NAMES if name not in VARIANTS} == known


def test_the_library_s_own_table_says_the_same() -> None:
    """Where it says nothing, llama_set_group_attn tests the model itself."""
    try:
        verdict = library().function("llama_group_attn_arch", ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)
    except MissingSymbol:
        pytest.skip("no table in this library yet")
    says = {0: "unknown", 1: "right", -1: "refused"}
    wanted = {"right": {"right"}, "refused": {"refused"}, "unknown": {"unknown"}}
    for name, outcome, status in ROWS:
        if name in VARIANTS or (outcome == "refused" and status != "ARCH"):
            continue  # refused by what the file says of the model, not by its name
        assert says[verdict(variant_of(name).arch.encode(), None)] in wanted[outcome], name
