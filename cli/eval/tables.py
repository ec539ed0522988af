"""Results as tables and small charts in a terminal, on stdout.

Knows rich and summaries. It knows no models. rich is imported when something is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from selfextend_local.evaluation.summary import Group

_SHADES = " ░▒▓█"
_BARS = "▁▂▃▄▅▆▇█"


def print_results(found: Sequence[Group]) -> None:
    """One table of methods x lengths for each model and cache type, then depths or positions where the task has them."""
    from rich.console import Console

    from selfextend_local.evaluation.tasks import TASKS

    out = Console(highlight=False, markup=False, color_system=None, width=None if sys.stdout.isatty() else 160)
    for key in dict.fromkeys((g.name, g.model, g.kv_type) for g in found):
        held = [g for g in found if (g.name, g.model, g.kv_type) == key]
        part = f", {held[0].part}" if held[0].part else ""
        out.print(f"{TASKS[held[0].task].title}{part}, {held[0].model}, {held[0].kv_type} KV cache (95 % interval)", soft_wrap=True)
        out.print(_table(held))
        _print_details(out, held)
    for whole in dict.fromkeys((g.task, g.model, g.kv_type) for g in found):
        _print_effective(out, [g for g in found if (g.task, g.model, g.kv_type) == whole])


def _print_effective(out: Any, held: Sequence[Group]) -> None:
    """Up to which length each method keeps its score, if several lengths were measured."""
    from rich.table import Table

    from selfextend_local.evaluation.effective import BASE, KEPT, effective, measured

    if not measured(held[0].task) or len({g.length for g in held}) < 2:
        return
    made = effective(held)
    methods = list(dict.fromkeys(row.method for row in made.rows))
    table = Table()
    table.add_column("effective length")
    for method in methods:
        table.add_column(method, justify="right")
    for part in dict.fromkeys(row.part for row in made.rows):
        by = {row.method: row for row in made.rows if row.part == part}
        cells = [_length(by[method].length, by[method].beyond) if method in by else "-" for method in methods]
        table.add_row(part or held[0].task, *cells)
    out.print(f"The longest length at which {100 * KEPT:.0f} % of the score at the shortest one is kept", soft_wrap=True)
    out.print(table)
    if made.left_out:
        named = ", ".join(f"{part or held[0].task} ({100 * base:.0f} %)" for part, base in made.left_out.items())
        out.print(f"Below {100 * BASE:.0f} % at the shortest length, so not in the mean: {named}", soft_wrap=True)


def _length(length: int | None, beyond: bool) -> str:
    return "none" if length is None else f"{'≥ ' if beyond else ''}{length:,}"


def _table(held: Sequence[Group]) -> Table:
    from rich.table import Table

    lengths = sorted({g.length for g in held})
    table = Table()
    table.add_column("method")
    for length in lengths:
        table.add_column(f"{length:,}", justify="right")
    for method in dict.fromkeys(g.method for g in held):
        at = {g.length: g for g in held if g.method == method}
        table.add_row(method, *(_cell(at.get(length)) for length in lengths))
    return table


def _cell(group: Group | None) -> str:
    from selfextend_local.evaluation.tasks import TASKS

    if group is None:
        return "-"
    e = group.estimate
    share = group.task not in ("ppl", "copy")
    value = f"{100 * e.mean:.0f} %" if share else f"{e.mean:.3f}"
    bounds = f"{100 * e.low:.0f}-{100 * e.high:.0f}" if share else f"{e.low:.3f}-{e.high:.3f}"
    grouped = f"\n{group.setting}" if group.ga else ""
    second = "" if group.also is None else f"\n{group.also:.3f} {TASKS[group.task].also}"
    return f"{value} ({bounds}){second}{grouped}"


def _print_details(out: Any, held: Sequence[Group]) -> None:
    from selfextend_local.evaluation.summary import by_label
    from selfextend_local.evaluation.tasks import TASKS

    kind = TASKS[held[0].task]
    if held[0].task == "ppl":
        top = max(max(row["result"]["blocks"]) for g in held for row in g.rows)
        low = min(min(row["result"]["blocks"]) for g in held for row in g.rows)
        out.print(f"Nats per token by position, {low:.2f} ▁ to {top:.2f} █")
        for g in held:
            out.print(f"  {g.method:<24} {g.length:>9,}  {bars(g.rows[0]['result']['blocks'], low, top)}")
    elif kind.across and len({row["config"][kind.across] for g in held for row in g.rows}) > 1:
        values = {(g.method, g.length): by_label(g.rows, kind.across, kind.metric) for g in held}
        top = max(1.0, max(max(v.values()) for v in values.values()))
        out.print(f"{kind.title} by {kind.across}: beginning to end of the text; 0 to {top:.3g}")
        for (method, length), by_depth in values.items():
            out.print(f"  {method:<24} {length:>9,}  |{shades(by_depth, top)}|")


def bars(values: Sequence[float], low: float, top: float) -> str:
    """One character a value, the higher the larger."""
    span = max(1e-9, top - low)
    return "".join(_BARS[min(7, int(8 * (value - low) / span))] for value in values)


def shades(values: Mapping[Any, float], top: float) -> str:
    """Two characters a value: blank for 0 or less, full for `top`."""
    return "".join(2 * _SHADES[max(0, min(4, round(4 * value / top)))] for value in values.values())


def print_tried(tried: Sequence[Mapping[str, Any]]) -> None:
    """What a tuning tried, one line each: what it said, its likelihood, and its price."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("setting", "keys", "facts", "asked", "nats", "ms a token", "s a question", "KV cache"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for one in tried:
        note = " (chosen)" if one["chosen"] else "" if one["can_be_kept"] else " (to compare)"
        table.add_row(
            one["setting"] + note,
            *(f"{100 * one[part]:.0f} %" if part in one else "-" for part in ("keys", "facts")),
            f"{one['asked']:,}",
            "-" if one["nats"] is None else f"{one['nats']:.3f}",
            f"{one['ms_a_token']:.2f}",
            f"{one['seconds_a_question']:.2f}",
            "-" if one["memory"] is None else f"{one['memory'] / (1 << 20):,.0f} MiB",
        )
    Console(highlight=False, markup=False, color_system=None, width=None if sys.stdout.isatty() else 120).print(table)
