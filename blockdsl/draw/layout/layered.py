"""The geometry of a graph that is no stack of blocks: nodes in layers, each below those it reads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx

from ...graph.nodes import carried
from ..parts import DrawnBlock
from .face import SOURCE, Faces
from .scene import RADIUS, Box, Edge, Point, Scene

if TYPE_CHECKING:
    from ...graph.graph import Graph

DOWN, ASIDE, WIRE = 38.0, 26.0, 16.0  # between layers, between nodes, for a line that passes a layer
ABREAST = 6.0  # between what one edge carries
_ROLES = {"stream": "rail", "base": "branch", "normed": "branch"}  # all others are their own
_SWEEPS = 4

Slot = str | tuple[str, str, int]  # a node, or an edge on its way through a layer


def layered(graph: Graph, faces: Faces) -> Scene:
    """The scene of any graph without a cycle."""
    return _Layers(graph, faces).scene()


class _Layers:
    def __init__(self, graph: Graph, faces: Faces) -> None:
        self.graph, self.faces = graph, faces
        faces.measure(DrawnBlock((node,)) for node in graph.nodes("block"))
        self.boxes = {node: self._box(node) for node in graph.nx}
        self.passes: dict[tuple[str, str], list[Slot]] = {}  # each edge → its places in the layers between

    def _box(self, node: str) -> Box:
        node_type = self.graph.node_type(node)
        if node_type == "block":
            return self.faces.box(DrawnBlock((node,)), 0, 0)
        if node_type == "sum":
            return self.faces.sum((node,), (RADIUS, RADIUS))
        if node_type == "read":
            return self.faces.lone_read(node)
        if node_type in ("input", "output"):
            draw = self.faces.input if node_type == "input" else self.faces.output
            return draw(0, 0, self.faces.width)
        box = self.faces.source(node, 0, 0)
        assert box.rect is not None
        return box.moved(box.rect.width, 0)

    def scene(self) -> Scene:
        layers = self._ordered(self._layers())
        places = self._placed(layers)
        scene = Scene("")
        for node, box in self.boxes.items():
            (x, y, _), (wide, high) = places[node], self._size(node)
            scene.boxes.append(box.moved(x - wide / 2, y - high / 2))
        drawn = {box.node: box for box in scene.boxes}
        for target in self.graph.nx:
            last = {source: (self.passes[source, target] or [source])[-1] for source in self.graph.nx.pred[target]}
            sources = sorted(last, key=lambda source, last=last: places[last[source]][0])  # type: ignore[misc]
            for i, source in enumerate(sources):
                way = [places[slot] for slot in self.passes[source, target]]
                head = _head(drawn[target], (i + 1) / (len(sources) + 1) - 0.5)
                # upright while it passes a layer, that of its ends too, so that it meets no other box
                foot = _foot(drawn[source])
                leave = foot[0], places[source][1] + places[source][2] / 2
                arrive = head[0], places[target][1] - places[target][2] / 2
                passing = ((x, y + side * high / 2) for x, y, high in way for side in (-1, 1))
                points = tuple(dict.fromkeys((foot, leave, *passing, arrive, head)))
                roles = dict.fromkeys(_ROLES.get(what, what) for what in carried(self.graph.nx.edges[source, target]))
                if "rail" in roles:
                    roles.pop("branch", None)
                for k, role in enumerate(roles):  # beside each other
                    scene.edges.append(Edge(role, source, target, points, curved=True).moved(ABREAST * k, 0))
        return scene

    def _layers(self) -> list[list[Slot]]:
        """Each node as far down as the longest way to it; context and positions right above their first reader."""
        graph = self.graph.nx
        order = [*nx.topological_sort(graph)]
        depth: dict[str, int] = {}
        for node in order:
            depth[node] = max((depth[source] + 1 for source in graph.pred[node]), default=0)
        for node in order:
            if graph.nodes[node]["type"] in ("context", "condition", "position") and graph.succ[node]:
                depth[node] = min(depth[reader] for reader in graph.succ[node]) - 1
        up = -min(depth.values())
        layers: list[list[Slot]] = [[] for _ in range(max(depth.values()) + up + 1)]
        for node in order:
            layers[depth[node] + up].append(node)
        for source, target in graph.edges:
            passed = range(depth[source] + up + 1, depth[target] + up)
            self.passes[source, target] = []
            for layer in passed:
                slot = (source, target, layer)
                self.passes[source, target].append(slot)
                layers[layer].append(slot)
        return layers

    def _ordered(self, layers: list[list[Slot]]) -> list[list[Slot]]:
        """Each layer so that few lines cross: by the mean place of the neighbours above, then of those below."""
        above = self._neighbours()
        below: dict[Slot, list[Slot]] = {}
        for slot, sources in above.items():
            for source in sources:
                below.setdefault(source, []).append(slot)
        for sweep in range(_SWEEPS):
            near, order = (above, layers) if sweep % 2 == 0 else (below, layers[::-1])
            place: dict[Slot, float] = {}
            for layer in order:
                known = {slot: [place[n] for n in near.get(slot, ()) if n in place] for slot in layer}
                now = {slot: i / len(layer) for i, slot in enumerate(layer)}
                layer.sort(key=lambda slot, k=known, w=now: sum(k[slot]) / len(k[slot]) if k[slot] else w[slot])  # type: ignore[misc]
                place |= {slot: (i + 0.5) / len(layer) for i, slot in enumerate(layer)}
        return layers

    def _neighbours(self) -> dict[Slot, list[Slot]]:
        """Those above each slot that a line comes from."""
        above: dict[Slot, list[Slot]] = {}
        for (source, target), slots in self.passes.items():
            way = [source, *slots, target]
            for before, slot in pairwise(way):
                above.setdefault(slot, []).append(before)
        return above

    def _placed(self, layers: list[list[Slot]]) -> dict[Slot, tuple[float, float, float]]:
        """The middle of each slot, and the height of its layer."""
        places: dict[Slot, tuple[float, float, float]] = {}
        y = 0.0
        for layer in layers:
            widths = [self._size(slot)[0] for slot in layer]
            high = max(self._size(slot)[1] for slot in layer)
            x = -(sum(widths) + ASIDE * (len(layer) - 1)) / 2
            for slot, wide in zip(layer, widths, strict=True):
                places[slot] = (x + wide / 2, y + high / 2, high)
                x += wide + ASIDE
            y += high + DOWN
        return places

    def _size(self, slot: Slot) -> tuple[float, float]:
        if isinstance(slot, tuple):
            return WIRE, SOURCE
        rect = self.boxes[slot].rect
        return (2 * RADIUS, 2 * RADIUS) if rect is None else (rect.width, rect.height)


def _foot(box: Box) -> Point:
    if box.rect is None:
        assert box.join is not None
        return box.join[0], box.join[1] + RADIUS
    return box.rect.x + box.rect.width / 2, box.rect.bottom


def _head(box: Box, share: float) -> Point:
    if box.rect is None:
        assert box.join is not None
        return box.join[0], box.join[1] - RADIUS
    return box.rect.x + box.rect.width * (0.5 + share), box.rect.y
