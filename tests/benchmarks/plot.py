"""The results as a picture: how many times as fast ours is, in each case and against each contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .report import GROUPS
from .result import Result

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16)


def plot(results: Sequence[Result], path: Path) -> None:
    """Write the picture, an SVG or what the name's ending says; the same results give the same bytes."""
    groups = {title: [r for r in results if r.case.startswith(f"{group}/")] for group, title in GROUPS.items()}
    shown = {
        title: kept for title, own in groups.items() if (kept := [result for result in own if len(result.rows) > 1])
    }
    sizes = [len(own) for own in shown.values()]
    names = dict.fromkeys(row.contestant for own in shown.values() for result in own for row in result.rows[1:])
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    with matplotlib.rc_context({"svg.hashsalt": "xt-blocks", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 1.5 + 0.28 * sum(sizes) + 0.7 * len(sizes)), layout="constrained")
        panels = figure.subplots(max(1, len(sizes)), squeeze=False, height_ratios=[n + 1 for n in sizes] or [1])
        for panel, (title, own) in zip(panels[:, 0], shown.items(), strict=False):
            draw(panel, title, own, colours)
        handles = {
            label: handle
            for panel in panels[:, 0]
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def draw(panel: matplotlib.axes.Axes, title: str, results: Sequence[Result], colours: dict[str, str]) -> None:
    """A line a case, a point a contestant, the quartiles to both sides of it."""
    for name, colour in colours.items():
        points = [
            (place, found)
            for place, result in enumerate(results)
            for row in result.rows[1:]
            if row.contestant == name and (found := result.faster(row)) is not None
        ]
        if points:
            medians = [found.median for _, found in points]
            sides = [
                [found.median - found.low for _, found in points],
                [found.high - found.median for _, found in points],
            ]
            panel.errorbar(
                medians, [place for place, _ in points], xerr=sides, fmt="o", markersize=4, color=colour, label=name
            )
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log", base=2)
    low, high = panel.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_yticks(range(len(results)), [result.case.split("/", 1)[1] for result in results])
    panel.set_ylim(len(results) - 0.5, -0.5)
    panel.grid(axis="x", color="#dddddd")
    panel.set_axisbelow(True)
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel("times as fast as")
