"""Results as pictures, with matplotlib (extra `plot`), which is imported when something is drawn.

Knows summaries. It knows no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfextend_local.errors import SelfExtendError
from selfextend_local.evaluation.tasks.perplexity import block_positions

from .effective import MEAN, effective
from .summary import Group, by_label
from .tasks import TASKS

SUFFIXES = (".png", ".svg", ".pdf")
_COLOURS = {
    "plain": "#888888",
    "selfextend": "#0868ac",
    "recall": "#e6550d",
    "yarn": "#756bb1",
    "ntk": "#1b9e77",
    "linear": "#e7298a",
    "upstream": "#31a354",
}
_DASHES = ("-", "--", ":", "-.")


class PlotError(SelfExtendError):
    """A picture can't be drawn: matplotlib is missing, or the file's name ends in something else."""


def check_plot(path: Path) -> None:
    """Before the work begins: can this picture be drawn? Raises PlotError."""
    if path.suffix.lower() not in SUFFIXES:
        raise PlotError(f"{path} doesn't end in {', '.join(SUFFIXES)}. Name the picture so.")
    if find_spec("matplotlib") is None:
        raise PlotError("Pictures need matplotlib: pip install 'selfextend-local[plot]' (or leave --plot out).")


def draw(found: Sequence[Group], path: Path) -> None:
    """Heatmaps of pass keys and needles, curves of everything else. Raises PlotError."""
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not found:
        raise PlotError("There are no results to draw.")
    kind = TASKS[found[0].task]
    if found[0].task == "ppl":
        figure = _curves_by_position(Figure(figsize=(8, 4.5), layout="constrained"), found)
    elif any(group.part for group in found):
        figure = _means_by_length(Figure(figsize=(8, 4.5), layout="constrained"), found)
    elif kind.across and kind.metric in ("exact", "score", "said"):
        figure = _heatmaps(Figure(layout="constrained"), found)
    else:
        figure = _curves_by_length(Figure(figsize=(8, 4.5), layout="constrained"), found)
    try:
        # The same results give the same bytes.
        with rc_context({"svg.hashsalt": "selfextend"}):
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise PlotError(f"{path} can't be written ({error.strerror}). Name another file with --plot.") from error


def _style(method: str, index: int) -> dict[str, Any]:
    return {"color": _COLOURS.get(method.split()[0].rstrip(","), "#000000"), "linestyle": _DASHES[index % len(_DASHES)]}


def _name(group: Group, several: bool) -> str:
    return f"{group.method}, {group.kv_type}" if several else group.method


def _curves_by_position(figure: Any, found: Sequence[Group]) -> Any:
    axes = figure.add_subplot()
    longest: dict[tuple[str, str], Group] = {}
    for group in found:
        key = (group.method, group.kv_type)
        if key not in longest or longest[key].length < group.length:
            longest[key] = group
    several = len({g.kv_type for g in found}) > 1
    for index, group in enumerate(longest.values()):
        row = group.rows[0]["result"]
        style = _style(group.method, _earlier(longest.values(), group, index))
        axes.plot(block_positions(row), row["blocks"], label=f"{_name(group, several)}: {row['nll']:.3f}", **style)
    axes.axvline(found[0].rows[0]["config"]["trained"], color="#bbbbbb", linewidth=1)
    axes.set(xlabel="position in the text, tokens", ylabel="nats per token", title=found[0].model)
    axes.legend(frameon=False)
    return figure


def _earlier(groups: Any, group: Group, index: int) -> int:
    """How many curves of the same method come before, so that each gets dashes of its own."""
    return sum(g.method.split()[0] == group.method.split()[0] for g in list(groups)[:index])


def _curves_by_length(figure: Any, found: Sequence[Group]) -> Any:
    axes = figure.add_subplot()
    keys = list(dict.fromkeys((g.method, g.kv_type) for g in found))
    several = len({g.kv_type for g in found}) > 1
    firsts = [next(g for g in found if (g.method, g.kv_type) == key) for key in keys]
    for index, (key, first) in enumerate(zip(keys, firsts, strict=True)):
        held = sorted((g for g in found if (g.method, g.kv_type) == key), key=lambda g: g.length)
        x = [g.length for g in held]
        style = _style(first.method, _earlier(firsts, first, index))
        axes.plot(x, [g.estimate.mean for g in held], marker="o", label=_name(first, several), **style)
        axes.fill_between(
            x, [g.estimate.low for g in held], [g.estimate.high for g in held], alpha=0.15, color=style["color"], linewidth=0
        )
    kind = TASKS[found[0].task]
    axes.set_xscale("log", base=2)
    lengths = sorted({g.length for g in found})
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set(xlabel="tokens", ylabel=kind.title, title=found[0].model)
    axes.legend(frameon=False)
    return figure


def _means_by_length(figure: Any, found: Sequence[Group]) -> Any:
    """The mean over the parts of a task; a dot marks the effective length. One part has no mean: its own scores."""
    axes = figure.add_subplot()
    for kv_type in dict.fromkeys(g.kv_type for g in found):
        rows = effective([g for g in found if g.kv_type == kv_type]).rows
        means = [row for row in rows if row.part == MEAN] or [row for row in rows if row.part == rows[0].part]
        for index, row in enumerate(means):
            x = list(row.scores)
            colour = _style(row.method, index)["color"]
            axes.plot(x, [e.mean for e in row.scores.values()], color=colour, linestyle=_DASHES[index % len(_DASHES)], label=row.method)
            axes.fill_between(
                x, [e.low for e in row.scores.values()], [e.high for e in row.scores.values()], alpha=0.15, color=colour, linewidth=0
            )
            if row.length is not None:
                axes.plot([row.length], [row.scores[row.length].mean], marker="o", color=colour)
    lengths = sorted({g.length for g in found})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    title = f"{found[0].model}; dots: the effective length"
    axes.set(xlabel="tokens", ylabel=f"{TASKS[found[0].task].title}, mean of the tasks", title=title)
    axes.legend(frameon=False)
    return figure


def _heatmaps(figure: Any, found: Sequence[Group]) -> Any:
    import numpy as np

    kind = TASKS[found[0].task]
    panels = list(dict.fromkeys((g.method, g.kv_type) for g in found))
    figure.set_size_inches(max(4.0, 2.6 * len(panels)), 4)
    lengths = sorted({g.length for g in found})
    depths = sorted({row["config"][kind.across] for g in found for row in g.rows})
    image = None
    for number, panel in enumerate(panels):
        grid = np.full((len(depths), len(lengths)), np.nan)
        for g in found:
            if (g.method, g.kv_type) == panel:
                for depth, value in by_label(g.rows, kind.across, kind.metric).items():
                    grid[depths.index(depth), lengths.index(g.length)] = value
        axes = figure.add_subplot(1, len(panels), number + 1)
        image = axes.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=60)
        names = [d if isinstance(d, str) else f"{100 * d:.0f} %" for d in depths]
        axes.set_yticks(range(len(depths)), names if number == 0 else [""] * len(depths))
        axes.set_title("\n".join(panel) if len({g.kv_type for g in found}) > 1 else panel[0], fontsize=9)
    figure.supxlabel("tokens")
    figure.supylabel(kind.across)
    figure.suptitle(f"{kind.title}, {found[0].model}")
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    return figure
