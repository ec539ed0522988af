"""The command that asks stored rows again: `selfextend eval` with the flags that their configurations name.

Knows rows and the names of flags. It knows no terminal and no model.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from .results import Row
from .tasks.haystack import spread

_MOST_PLACES = 65
_TUNED, _QUIET = ", tuned", ", not announced"
_RECALL = re.compile(r"recall(?: of (?P<recall>[\d,]+))?(?: w=(?P<w>\d+))?(?: c=(?P<c>[\d.]+))?$")
_GROUPS = re.compile(
    r"(?P<name>selfextend|upstream)(?: (?P<mode>progressive|two-level))? (?P<n>auto|n=\d+)(?: w=(?P<w>\d+))?(?: c=(?P<c>[\d.]+))?$"
)
_SEEDS = {"passkey": 0, "facts": 0, "planted": 0}
_SEED = 42
"""The default seed of the other tasks."""


def flags_of(method: str) -> str:
    """The flags that ask one row of a table, such as "selfextend progressive n=16 w=1024" or "yarn, not announced"."""
    flags = " --no-introduction" if method.endswith(_QUIET) else ""
    method = method.removesuffix(_QUIET).removesuffix(_TUNED)
    if made := _RECALL.match(method):
        given = ["--methods selfextend --ga-mode recall"]
        given += [f"--ga-recall {made['recall'].replace(',', '')}"] if made["recall"] else []
    elif made := _GROUPS.match(method):
        given = [f"--methods {made['name']}"]
        given += [f"--ga-mode {made['mode']}"] if made["mode"] else []
        given += [f"--ga-n {made['n'][2:]}"] if made["n"] != "auto" else []
    else:
        return f"--methods {method}{flags}"
    given += [f"--ga-w {made['w']}"] if made["w"] else []
    given += [f"--ga-temperature {made['c']}"] if made["c"] else []
    return " ".join(given) + flags


def commands_of(rows: Sequence[Row]) -> list[str]:
    """What asks the rows of one task, part and cache type again, but for the flags of a method: one for each seed, data set, and
    number of places for a pass key."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        config = row["config"]
        cells.setdefault(repr([config.get(name) for name in ("method", "ga", "length", "seed")]), []).append(config)
    held: dict[tuple[int, str, int], list[dict[str, Any]]] = {}
    for cell in cells.values():
        places = _places({config["depth"] for config in cell}) if cell[0]["task"] == "passkey" else {}
        for config in cell:
            key = (config.get("seed", 0), config.get("data", "").split(" ")[0], places.get(config.get("depth", 0.0), 0))
            held.setdefault(key, []).append(config)
    return [_command(held[key], key[-1]) for key in sorted(held)]


def _places(depths: set[float]) -> dict[float, int]:
    """By place of a pass key: of how many evenly spread it is one. The first and the last once stood at the very ends."""
    found: dict[float, int] = {}
    while left := depths - set(found):
        whole = [n for n in range(1, len(left) + 1) if left.issuperset(_spread(n))]
        some = next((n for n in range(1, _MOST_PLACES) if left.issubset(_spread(n)) or left.issubset(_to_the_ends(n))), len(left))
        found |= dict.fromkeys(_spread(max(whole)), max(whole)) if whole else dict.fromkeys(left, some)
    return found


def _spread(count: int) -> set[float]:
    return {round(depth, 4) for depth in spread(count)}


def _to_the_ends(count: int) -> set[float]:
    return {round(i / max(1, count - 1), 4) for i in range(count)}


def _command(configs: Sequence[dict[str, Any]], places: int) -> str:
    first = configs[0]
    at = ["--depths", str(places)] if places else []
    flags = ["--model", first["file"], *_flags_of_task(first["task"], configs), *at, "--kv-type", first["kv_type"]]
    lengths = ",".join(map(str, sorted({config["length"] for config in configs})))
    return shlex.join(["selfextend", "eval", first["task"], *flags, "--lengths", lengths])


def _flags_of_task(task: str, configs: Sequence[dict[str, Any]]) -> Iterator[str]:
    def values(name: str) -> list[Any]:
        return sorted({config[name] for config in configs if config.get(name) is not None})

    if text := values("text"):
        yield from ("--text", text[-1])
    if data := values("data"):
        yield from ("--data", data[-1].split(" ")[0])
    if part := values("part"):
        yield from ("--tasks", part[0])
    if task == "copy":
        yield from ("--depths", str(len(values("depth"))))
    if len(repeats := values("repeat")) > 1:
        yield from ("--repeats", str(len(repeats)))
    if samples := values("sample"):
        yield from ("--samples", str(samples[-1] + 1))
    if facts := values("facts"):
        yield from ("--facts", str(facts[-1]))
    if seeds := [seed for seed in values("seed") if seed != _SEEDS.get(task, _SEED)]:
        yield from ("--seed", str(seeds[0]))
