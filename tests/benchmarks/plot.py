"""The results as a picture: how many times as fast ours is, in each case and against each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cases import DEFAULT, FUSED, HUGGING_FACE, PLAIN, WITHOUT
from .measure import Spread
from .report import GROUPS
from .result import Result

# Who is drawn; what else is compared is in the table.
COLOURS = {
    FUSED: "#0072b2",
    DEFAULT: "#d55e00",
    HUGGING_FACE: "#009e73",
    PLAIN: "#cc79a7",
    WITHOUT: "#7f7f7f",
}
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)


def plot(results: Sequence[Result], path: Path) -> None:
    """Write the picture, an SVG or what the name's ending says; the same results give the same bytes."""
    groups = {title: [r for r in results if r.case.startswith(f"{group}/")] for group, title in GROUPS.items()}
    shown = {title: kept for title, own in groups.items() if (kept := [result for result in own if drawn(result)])}
    lines = [len(own) for own in shown.values()] or [1]
    with matplotlib.rc_context({"svg.hashsalt": "xt-blocks", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 1.5 + 0.28 * sum(lines) + 0.5 * len(lines)), layout="constrained")
        panels = figure.subplots(len(lines), sharex=True, squeeze=False, height_ratios=[n + 1 for n in lines])[:, 0]
        for panel, (title, own) in zip(panels, shown.items(), strict=False):
            draw(panel, title, own)
        axis(panels[-1])
        handles: dict[str, Any] = {}
        for panel in panels:
            drawings, names = panel.get_legend_handles_labels()
            handles |= dict(zip(names, drawings, strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def drawn(result: Result) -> dict[str, Spread]:
    """How many times as fast ours is as each of those who are drawn."""
    return {row.contestant: ratio for row in result.rows if (ratio := result.faster(row)) and row.contestant in COLOURS}


def draw(panel: Axes, title: str, results: Sequence[Result]) -> None:
    """A line a case, a point a contestant, the quartiles to both sides of it."""
    for name, colour in COLOURS.items():
        points = {place: found[name] for place, result in enumerate(results) if name in (found := drawn(result))}
        if points:
            low = [ratio.median - ratio.low for ratio in points.values()]
            high = [ratio.high - ratio.median for ratio in points.values()]
            medians = [ratio.median for ratio in points.values()]
            panel.errorbar(
                medians, [*points], xerr=[low, high], fmt="o", markersize=4, alpha=0.8, color=colour, label=name
            )
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_yticks(range(len(results)), [result.case.split("/", 1)[1] for result in results])
    panel.set_ylim(len(results) - 0.5, -0.5)
    panel.grid(axis="x", color="#dddddd")
    panel.set_axisbelow(True)
    panel.set_title(title, loc="left", fontsize=10)


def axis(panel: Axes) -> None:
    """The scale, which all panels share."""
    panel.set_xscale("log", base=2)
    low, high = panel.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("ours is so many times as fast")
