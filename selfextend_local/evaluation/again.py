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
    """What asks the rows of one task, part and cache type again, but for the flags of a method: one for each seed and data set."""
    held: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        config = row["config"]
        held.setdefault((config.get("seed", 0), config.get("data", "").split(" ")[0]), []).append(config)
    return [_command(held[key]) for key in sorted(held)]


def _command(configs: Sequence[dict[str, Any]]) -> str:
    first = configs[0]
    flags = ["--model", first["file"], *_flags_of_task(first["task"], configs), "--kv-type", first["kv_type"]]
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
    if task == "passkey":
        there = set(values("depth"))
        whole = [n for n in range(1, len(there) + 1) if there.issuperset(round(depth, 4) for depth in spread(n))]
        yield from ("--depths", str(max(whole, default=len(there))))
    if len(repeats := values("repeat")) > 1:
        yield from ("--repeats", str(len(repeats)))
    if samples := values("sample"):
        yield from ("--samples", str(samples[-1] + 1))
    if facts := values("facts"):
        yield from ("--facts", str(facts[-1]))
    if seeds := [seed for seed in values("seed") if seed != _SEEDS.get(task, _SEED)]:
        yield from ("--seed", str(seeds[0]))
