"""Parts of a stack that have their places, and what is still to be joined to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .lanes import LEFT, Port
from .scene import RADIUS, Edge, Point, Scene


@dataclass
class ColumnPart:
    """Parts that are placed.

    Attributes:
        y: where they end.
        node, rail: the rail continues after this node, from this y.
        left, right: how far they extend from the rail.
        start: the y where the rail began.
        x: of the rail.
        lead: the way that the stream takes to it from another column, where nothing in it is reached by it.
    """

    y: float
    node: str
    rail: float
    start: float
    left: float = 0.0
    right: float = RADIUS
    scene: Scene = field(default_factory=lambda: Scene(""))
    ports: list[Port] = field(default_factory=list)
    x: float = 0.0
    lead: tuple[Point, ...] = ()

    def next(self) -> ColumnPart:
        """An empty one that goes on where this ends."""
        return ColumnPart(self.y, self.node, self.rail, self.start)

    def take(self, other: ColumnPart) -> None:
        """Put what another has into this one, which then ends where the other does."""
        self.scene.add(other.scene)
        self.ports += other.ports
        self.y, self.node, self.rail = other.y, other.node, other.rail
        self.left, self.right = max(self.left, other.left), max(self.right, other.right)

    def moved(self, dx: float, dy: float) -> ColumnPart:
        """The same elsewhere. Of one that was moved, nothing further can be placed in it."""
        scene = Scene("")
        scene.add(self.scene, dx, dy)
        y, rail, start = self.y + dy, self.rail + dy, self.start + dy
        ports = [port.moved(dx, dy) for port in self.ports]
        return ColumnPart(y, self.node, rail, start, self.left, self.right, scene, ports, self.x + dx)

    def step(self, node: str, top: float, bottom: float) -> None:
        """Lead the rail to a node on it, and on from there."""
        self.scene.edges.append(Edge("rail", self.node, node, ((0.0, self.rail), (0.0, top)), arrow=False))
        self.node, self.rail = node, bottom
        self.y = max(self.y, self.rail)

    def extent(self, at: int) -> float:
        """How far it extends to a side."""
        return self.left if at == LEFT else self.right

    def widen(self, at: int, extent: float) -> None:
        if at == LEFT:
            self.left = max(self.left, extent)
        else:
            self.right = max(self.right, extent)
