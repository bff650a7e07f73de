"""What the colour of a block says, and the legend for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UserError
from ...graph.costs import stage_title
from ...measurement import Measurement, billions
from ...registry.kinds import kinds
from ..choices import COLORS, check_choice
from ..words.captions import Captions
from ..words.details import Details
from ..words.told import Told
from .heat import GREY, Heat, check_nodes
from .hues import place
from .palette import HUES

if TYPE_CHECKING:
    from ...graph.graph import Graph


@dataclass(frozen=True)
class Colors:
    """A class for each block's colour, and what the classes mean.

    Attributes:
        of: the nodes that a box stands for → class.
        legend: class, meaning; empty where the boxes say it themselves.
        heat: the measurement whose numbers are on the boxes, if there is one.
    """

    of: Callable[[Sequence[str]], str]
    legend: tuple[tuple[str, str], ...] = ()
    heat: Heat | None = None


COSTS = {"params": "parameters", "flops": "flops"}
"""The colours that are costs → the attribute of a `Cost`."""


def colors(
    graphs: Mapping[str, Graph],
    by: str = "kind",
    overlay: Measurement | None = None,
    seq_len: int = 1024,
) -> dict[str, Colors]:
    """The colours of the graphs of a picture, each by its name; one alone may be called "".

    Args:
        by: one of COLORS.
        overlay: a measurement in its place.
        seq_len: of the FLOPs.

    Raises:
        UserError: it is none of them, both are given, or the overlay is of other graphs.
    """
    check_choice("color", by, COLORS)
    if overlay is not None:
        if by != "kind":
            raise UserError(f"give overlay or color={by!r}; a block has one colour")
        if not isinstance(overlay, Measurement):
            raise UserError(
                f"overlay must be a blockdsl.Measurement, as found['time'] is, not {type(overlay).__name__}"
            )
        check_nodes(overlay, (_prefix(name) + node for name, graph in graphs.items() for node in graph.nx))
        return _heats(graphs, overlay)
    if by in COSTS:
        return _heats(graphs, _costs(graphs, by, seq_len))
    return {name: {"kind": _kind, "stage": _stage, "tied": _tied}[by](graph) for name, graph in graphs.items()}


def _prefix(name: str) -> str:
    """Of a graph's nodes in a picture of several."""
    return f"{name}." if name else ""


def _heats(graphs: Mapping[str, Graph], measurement: Measurement) -> dict[str, Colors]:
    heats = {name: Heat(measurement, _prefix(name)) for name in graphs}
    return {name: Colors(heat.look, (), heat) for name, heat in heats.items()}


def _costs(graphs: Mapping[str, Graph], by: str, seq_len: int) -> Measurement:
    details = {name: Details(graph, Captions(graph), seq_len) for name, graph in graphs.items()}
    values = {
        _prefix(name) + node: getattr(own.costs[node], COSTS[by])
        for name, own in details.items()
        for node in own.graph.nodes("block")
    }
    if by == "params":
        return _Parameters("parameters", "", values)
    lengths = " and ".join(f"{length:,}" for length in sorted({own.seq_len for own in details.values()}))
    return Measurement("FLOPs", "", values, f"at {lengths} tokens")


class _Parameters(Measurement):
    def figures(self, value: float) -> str:
        return billions(value)


def _hue(index: int) -> str:
    return f"hue-{index % len(HUES)}"


def _kind(graph: Graph) -> Colors:
    hues = {kind: _hue(place(kind)) for kind in kinds()}
    return Colors(lambda nodes: hues[graph.block(nodes[0])["kind"]])


def became(told: Told) -> Colors:
    """The colours of what became of nodes; the signs on their boxes explain them."""
    return Colors(lambda nodes: told.hue(nodes[0]))


def _stage(graph: Graph) -> Colors:
    legend = tuple((_hue(i), f"stage {stage_title(graph, i)}") for i in range(len(graph.stages)))
    return Colors(lambda nodes: _hue(graph.nx.nodes[nodes[0]]["stage"]), legend)


def _tied(graph: Graph) -> Colors:
    classes = [nodes for nodes in graph.tied().values() if len(nodes) > 1 and graph.node_type(nodes[0]) == "block"]
    of = {node: _hue(i) for i, nodes in enumerate(classes) for node in nodes}
    names = [f"@{graph.nx.nodes[nodes[0]]['tie']}, {len(nodes)} blocks" for nodes in classes]
    legend = [(_hue(i), name) for i, name in enumerate(names)]
    if any(node not in of for node in graph.nodes("block")):
        legend.append((GREY, "parameters of its own"))
    return Colors(lambda nodes: of.get(nodes[0], GREY), tuple(legend))
