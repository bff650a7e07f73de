"""What a page tells of each node: a table in which nodes that are alike share a row. No HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...graph import costs
from ...graph.costs import stage_title
from ...graph.nodes import without_notes
from ...registry.kinds import kind_of
from ...registry.options import spell
from ...registry.state import item_bytes
from .captions import Captions
from .details import Details

if TYPE_CHECKING:
    from ...graph.graph import Graph

Row = dict[str, Any]

_ALWAYS = ("heads", "dim_head", "mult", "causal")  # worth telling even where they are the default
_TITLES = {
    "input": "Input",
    "output": "Output",
    "context": "Context",
    "condition": "Condition",
    "position": "Positions",
    "sum": "Sum",
}


class Table:
    """Rows for the nodes of graphs, ready for JSON.

    Attributes:
        nodes: each node's name and the number of its row.
        rows: options as (name, value, weight): 2 where the text sets it, 1 where it is worth telling, else 0;
            shapes as (name, shape); counts as text, because a script's numbers end at 2^53.
    """

    def __init__(self, seq_len: int, dtype: Any) -> None:
        self.seq_len, self.bytes = seq_len, item_bytes(dtype)
        self.nodes: list[tuple[str, int]] = []
        self.rows: list[Row] = []
        self._place: dict[str, int] = {}

    def add(self, graph: Graph, name: str, first: Mapping[str, str]) -> None:
        """All nodes of a graph; with a name they are called `name.node`. `first`: node → the first of its notes."""
        captions = Captions(graph)
        details = Details(graph, captions, self.seq_len)
        for node in graph.nx:
            row = _row(graph, captions, node) | self._costs(details.costs.get(node, costs.Cost()))
            if node in first:
                row["notes"] = [first[node], *row.get("notes", [])]
            if tie := graph.nx.nodes[node].get("tie"):
                row["tie"] = f"{name}.{tie}" if name else tie
            self.nodes.append((f"{name}.{node}" if name else node, self._index(row)))

    def _costs(self, cost: costs.Cost) -> Row:
        counts = {"parameters": cost.parameters, "flops": cost.flops, "cache": cost.cache_bytes(self.bytes)}
        if cost.idle:
            counts["active"] = cost.active
        return {name: str(count) for name, count in counts.items() if count}

    def _index(self, row: Row) -> int:
        index = self._place.setdefault(repr(row), len(self.rows))
        if index == len(self.rows):
            self.rows.append(row)
        return index


def _row(graph: Graph, captions: Captions, node: str) -> Row:
    attrs = graph.nx.nodes[node]
    if attrs["type"] == "block":
        return _block(graph, captions, node)
    if attrs["type"] == "read":
        said = [(name, spell(attrs[name]), 2) for name in ("init", "scale", "tie") if attrs.get(name) not in (None, 1)]
        return {"code": captions.name(node), "title": "Read", "notes": captions.notes(node), "options": said}
    own = {
        name: value
        for name, value in without_notes(attrs).items()
        if name not in ("type", "stage", "scheme", "encoder")
    }
    title = captions.position(node) if attrs["type"] == "position" else _TITLES[attrs["type"]]
    return {"title": title, "options": [(name, spell(value), 0) for name, value in own.items()]}


def _block(graph: Graph, captions: Captions, node: str) -> Row:
    attrs = graph.nx.nodes[node]
    kind = kind_of(attrs["kind"])
    title, *notes = captions.notes(node)
    shapes = kind.shapes(graph.completed(node))
    if attrs["shift"]:
        notes.append(f"tokens shifted by {attrs['shift']}")
    if attrs["scale"] != 1:
        notes.append(f"branch × {attrs['scale']:.3g}")
    return {
        "code": captions.name(node),
        "kind": attrs["kind"],
        "title": title[:1].upper() + title[1:],
        "stage": stage_title(graph, attrs["stage"]) if graph.stages != [None] else "",
        "notes": notes,
        "options": _options(attrs),
        "shapes": [(name, " × ".join(map(str, shape))) for name, shape in shapes.items()],
    }


def _options(attrs: dict[str, Any]) -> list[tuple[str, str, int]]:
    defaults = {option.name: option.default for option in kind_of(attrs["kind"]).all_options()}
    return [
        (name, spell(value), 2 if name in attrs["given"] else int(name in _ALWAYS or value != defaults.get(name)))
        for name, value in attrs["options"].items()
    ]
