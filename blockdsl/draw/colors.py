"""What the colour of a block says, and the legend for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..graph.costs import stage_title
from .captions import Captions
from .choices import COLORS, check_choice
from .details import Details
from .hues import place
from .palette import HEATS, HUES
from .shade import Shade
from .told import STATUSES

if TYPE_CHECKING:
    from ..graph.graph import Graph


@dataclass(frozen=True)
class Colors:
    """A class for each block's colour, and what the classes mean.

    Attributes:
        of: node → class.
        legend: class, meaning; empty where the boxes say it themselves.
    """

    of: Callable[[Any], str]
    legend: tuple[tuple[str, str], ...] = ()


def colors(graph: Graph, details: Details, by: str | Shade) -> Colors:
    """The colours by one of COLORS, or by a Shade.

    Raises:
        UserError: it is none of them.
    """
    if isinstance(by, Shade):
        return _shade(by)
    check_choice("color", by, COLORS)
    return {"kind": _kind, "params": _params, "flops": _flops, "stage": _stage, "tied": _tied}[by](graph, details)


def _hue(index: int) -> str:
    return f"hue-{index % len(HUES)}"


def _kind(graph: Graph, details: Details) -> Colors:
    return Colors(lambda node: _hue(place(graph.block(node)["kind"])))


BY_COST = ("params", "flops")


def _params(graph: Graph, details: Details) -> Colors:
    return _heat(_costs(details, "params"), "parameters")


def _flops(graph: Graph, details: Details) -> Colors:
    return _heat(_costs(details, "flops"), f"FLOPs at {details.seq_len:,} tokens")


def _costs(details: Details, by: str) -> dict[str, int]:
    what = {"params": "parameters", "flops": "flops"}[by]
    return {node: getattr(details.costs[node], what) for node in details.graph.nodes("block")}


def heats(graphs: Mapping[str, Graph], by: str, seq_len: int) -> dict[str, Colors]:
    """The colours of several graphs by a cost, on one scale for all."""
    details = {name: Details(graph, Captions(graph), seq_len) for name, graph in graphs.items()}
    values = {(name, node): cost for name, own in details.items() for node, cost in _costs(own, by).items()}
    lengths = " and ".join(f"{length:,}" for length in sorted({own.seq_len for own in details.values()}))
    heat = _heat(values, "parameters" if by == "params" else f"FLOPs at {lengths} tokens")
    return {name: Colors(lambda node, name=name: heat.of((name, node)), heat.legend) for name in graphs}  # type: ignore[misc]


def _shade(shade: Shade) -> Colors:
    numbers = {node: value for node, value in shade.values.items() if not isinstance(value, str)}
    if numbers or not shade.values:
        heat = _heat(numbers, shade.meaning)
        return Colors(lambda node: heat.of(node) if node in numbers else "grey-0", heat.legend)
    for value in shade.values.values():
        check_choice("a status", str(value), (*STATUSES,))
    legend = tuple((look, status) for status, look in STATUSES.items() if status in shade.values.values())
    return Colors(lambda node: STATUSES[str(shade.values.get(node, "same"))], legend)


def _heat(values: Mapping[Any, float], unit: str) -> Colors:
    """From the least to the most; one colour for each value, or for each fifth of the way where there are more."""
    distinct = sorted({*values.values()})
    if not distinct:
        return Colors(lambda node: "grey-0")
    last = len(HEATS) - 1
    if len(distinct) <= len(HEATS):
        levels = {value: last * i // max(1, len(distinct) - 1) for i, value in enumerate(distinct)}
        legend = [(f"heat-{level}", f"{short(value)} {unit}") for value, level in levels.items()]
        return Colors(lambda node: f"heat-{levels[values[node]]}", tuple(legend))
    least, most = distinct[0], distinct[-1]
    step = (most - least) / len(HEATS)
    levels = {value: min(last, int((value - least) / step)) for value in distinct}
    ranges: dict[int, list[float]] = {}
    for value, level in levels.items():
        ranges.setdefault(level, []).append(value)
    legend = [(f"heat-{level}", f"{_range(inside)} {unit}") for level, inside in ranges.items()]
    return Colors(lambda node: f"heat-{levels[values[node]]}", tuple(legend))


def _range(values: list[float]) -> str:
    least, most = short(values[0]), short(values[-1])
    return least if least == most else f"{least} to {most}"


def short(value: float) -> str:
    """A number with three figures: 1.05 M."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**power:  # 999,885,952 is 1 G
            return f"{value / 10**power:.3g} {letter}"
    return f"{value:.3g}"


def _stage(graph: Graph, details: Details) -> Colors:
    legend = tuple((_hue(i), f"stage {stage_title(graph, i)}") for i in range(len(graph.stages)))
    return Colors(lambda node: _hue(graph.nx.nodes[node]["stage"]), legend)


def _tied(graph: Graph, details: Details) -> Colors:
    classes = [nodes for nodes in graph.tied().values() if len(nodes) > 1 and graph.node_type(nodes[0]) == "block"]
    of = {node: _hue(i) for i, nodes in enumerate(classes) for node in nodes}
    names = [f"@{graph.nx.nodes[nodes[0]]['tie']}, {len(nodes)} blocks" for nodes in classes]
    legend = [(_hue(i), name) for i, name in enumerate(names)]
    if any(node not in of for node in graph.nodes("block")):
        legend.append(("grey-0", "parameters of its own"))
    return Colors(lambda node: of.get(node, "grey-0"), tuple(legend))
