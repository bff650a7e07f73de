"""From graphs to a scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..kinds import kinds
from ..options import spell
from ..positions import SCHEMES
from ..tokens import INPUT_OPTIONS, INPUT_SCHEMES
from .column import GAP, LANE, Column, Piece
from .details import Details
from .face import STUB, Faces
from .labels import Labels
from .scene import RADIUS, Box, Edge, Rect, Scene, text_width
from .widths import cut, wrapped

if TYPE_CHECKING:
    from ..graph import BlockGraph

SIDE = 18.0  # from the column to what stands beside it


def picture(
    graph: BlockGraph, *, unfold: bool = False, detail: str = "block", color: str = "kind", seq_len: int = 1024
) -> Scene:
    """The scene of one graph."""
    return _Picture(graph, unfold, detail, color, seq_len).scene()


class _Picture:
    def __init__(self, graph: BlockGraph, unfold: bool, detail: str, color: str, seq_len: int) -> None:
        self.graph, self.unfold = graph, unfold
        self.labels = Labels(graph)
        self.details = Details(graph, self.labels, seq_len)
        names = ["a", "c", "f", *(name for name in kinds() if name not in "acf")]
        self.faces = Faces(
            graph, self.details, lambda node: f"hue-{names.index(graph.nx.nodes[node]['block']) % 8}", detail
        )

    def scene(self) -> Scene:
        scene = Scene(self.details.title())
        items = self.labels.items
        assert items is not None
        column = Column(self.graph, self.faces, self.unfold)
        top = self._top()
        piece = column.stack(items, top)
        self._ends(piece, scene)
        scene.add(piece.scene)
        self._sources(piece, scene)
        return scene

    def _top(self) -> float:
        """Where the stack starts; the input is above it."""
        return 0.0

    def _ends(self, piece: Piece, scene: Scene) -> None:
        graph = self.graph
        left, right = max(piece.left, STUB + self.faces.width), max(piece.right, 12.0)
        right = 14.0
        start = self._input_lines(left + right)
        position = graph.sources(graph.start, "position")
        box = self.faces.end(graph.start, start, -left, 0, left + right)
        assert box.rect is not None
        above = 26 + GAP if position else 0
        box = box.moved(0, -above - box.rect.height)
        assert box.rect is not None
        if position:
            title = f"{graph.nx.nodes[position[0]]['scheme']} positions"
            source = self.faces.source(position[0], title, 0, -26)
            assert source.rect is not None
            source = source.moved(-STUB - source.rect.width, 0)
            scene.boxes.append(source)
            middle = (0.0, -13.0)
            scene.edges += [
                Edge("rail", graph.start, graph.start, ((0.0, box.rect.bottom), (0.0, middle[1] - RADIUS)), arrow=False),
                Edge("position", position[0], graph.start, ((-STUB, -13.0), (-RADIUS, -13.0))),
            ]
            from dataclasses import replace

            box = replace(box, join=middle)
            piece.scene.edges = [
                replace(e, points=((0.0, -13 + RADIUS), *e.points[1:])) if e.points[0] == (0.0, 0.0) else e
                for e in piece.scene.edges
            ]
        scene.boxes.append(box)
        lines = self._output_lines(left + right)
        y = piece.y + GAP + 4
        out = self.faces.end(graph.end, lines, -left, y, left + right)
        scene.boxes.append(out)
        scene.edges.append(Edge("rail", piece.node, graph.end, ((0.0, piece.rail), (0.0, y))))

    def _input_lines(self, wide: float) -> list[str]:
        attrs = self.graph.nx.nodes[self.graph.start]
        notes = [f"dim {self.graph.dim}", "causal" if self.graph.causal else ""]
        if tokens := attrs["num_tokens"]:
            notes += [f"{tokens:,} tokens", f"up to {attrs['max_seq_len']:,} a row"]
            others = [option for option in INPUT_OPTIONS if option.name not in ("num_tokens", "max_seq_len")]
            set_ = {option.name: attrs[option.name] for option in others if attrs[option.name] != option.default}
            notes += [name if value is True else f"{name}={spell(value)}" for name, value in set_.items()]
        title = "Token embedding" if tokens else "Input"
        return [title, *wrapped([note for note in notes if note], 10.5, wide - 16, " · ")]

    def _output_lines(self, wide: float) -> list[str]:
        attrs = self.graph.nx.nodes[self.graph.end]
        norm = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "scalenorm": "ScaleNorm", None: ""}[attrs["norm"]]
        logits = "" if attrs["logits_dim"] is None else f"{attrs['logits_dim']:,} logits"
        notes = [norm, logits, "tied to the embedding" if attrs["tied"] else ""]
        return ["Output", *wrapped([note for note in notes if note], 10.5, wide - 16, " · ")]

    def _sources(self, piece: Piece, scene: Scene) -> None:
        """Boxes of the context and the shared positions, and the lanes from them."""
        lanes: dict[str, float] = {}
        x = -max(piece.left, STUB + self.faces.width) - SIDE
        top = scene.boxes[-2].rect.y if len(scene.boxes) > 1 and scene.boxes[-2].rect else 0.0
        for port in piece.ports:
            node = port.wire.source
            if node not in lanes:
                attrs = self.graph.nx.nodes[node]
                title = "context" if attrs["kind"] == "context" else self.labels.position(node)
                box = self.faces.source(node, title, 0, top)
                assert box.rect is not None
                box = box.moved(x - box.rect.width, 0)
                assert box.rect is not None
                scene.boxes.append(box)
                lanes[node] = box.rect.x + box.rect.width / 2
                x = box.rect.x - GAP
        for port in piece.ports:
            lane = lanes[port.wire.source]
            points = ((lane, top + 26), (lane, port.y), *reversed(port.points))
            scene.edges.append(Edge(port.wire.role, port.wire.source, port.wire.target, points))
