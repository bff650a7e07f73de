"""What a picture says of each node beside its name: the lines of a tooltip, the operations inside a block."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...graph import costs
from ...graph.costs import Cost
from ...graph.nodes import without_notes
from ...registry.content import by_content
from ...registry.kinds import Kind, kind_of
from ...registry.options import spell
from ...registry.positions import SCHEMES
from ...registry.tokens import INPUT_SCHEMES
from .captions import Captions

if TYPE_CHECKING:
    from ...graph.graph import Graph


class Details:
    """Of one graph, at so many tokens a row."""

    def __init__(self, graph: Graph, captions: Captions, seq_len: int) -> None:
        self.graph, self.captions, self.seq_len = graph, captions, costs.row_length(graph, seq_len)
        self._of_block: dict[tuple[str, ...], str] = {}

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Of each node; a tied block's parameters are those it shares."""
        found = dict(costs.node_costs(self.graph, costs.sizes(self.seq_len, 1)))
        for owner, nodes in self.graph.tied().items():
            for node in nodes[1:]:
                found[node] = found[node]._replace(parameters=found[owner].parameters, idle=found[owner].idle)
        return found

    @cached_property
    def total(self) -> Cost:
        """Of the whole graph."""
        return costs.total(self.graph, costs.sizes(self.seq_len, 1))

    def of_block(self, nodes: tuple[str, ...]) -> str:
        """The tooltip of a block and of those that are drawn with it."""
        if nodes not in self._of_block:  # a block is placed by itself, and again in its column
            self._of_block[nodes] = self._block(nodes)
        return self._of_block[nodes]

    def _block(self, nodes: tuple[str, ...]) -> str:
        node = nodes[0]
        attrs = self.graph.nx.nodes[node]
        kind = kind_of(attrs["kind"])
        options = _options(kind, attrs["options"], tuple(attrs["given"]))
        lines = [
            f"{_named(nodes)}: {self.captions.name(node)} · {' · '.join(self.captions.notes(node))}",
            f"options: {options}" if options else "",
            f"token shift by {attrs['shift']}" if attrs["shift"] else "",
            f"branch × {attrs['scale']:g}" if attrs["scale"] != 1 else "",
            f"one set of parameters with all @{attrs['tie']}" if attrs["tie"] else "",
            *_shapes(kind, attrs["options"], self.graph.dim, len(self.graph.uses(node))),
            *self._cost(node, len(nodes)),
        ]
        return "\n".join(line for line in lines if line)

    def of_read(self, nodes: tuple[str, ...]) -> str:
        """The tooltip of a read and of those that are drawn with it."""
        words = self.captions.names.read_words(nodes[0])
        attrs = self.graph.nx.nodes[nodes[0]]
        lines = [
            f"{_named(nodes)}: {self.captions.name(nodes[0])}",
            words,
            f"at first {attrs['init']:g}" if attrs["init"] is not None else "",
            f"× {attrs['scale']:g}" if attrs["scale"] != 1 else "",
            f"one set of parameters with all @{attrs['tie']}" if attrs["tie"] else "",
            *self._cost(nodes[0], len(nodes)),
        ]
        return "\n".join(line for line in lines if line)

    def of_position(self, node: str) -> str:
        attrs = self.graph.nx.nodes[node]
        scheme = SCHEMES.get(attrs["scheme"])
        usual = {} if scheme is None else {option.name: option.default for option in scheme.attributes}
        own = {
            name: value
            for name, value in without_notes(attrs).items()
            if name not in ("type", "scheme") and (name not in usual or value != usual[name])
        }
        title = INPUT_SCHEMES[attrs["scheme"]] if scheme is None else scheme.title
        lines = [f"{node}: {title}", ", ".join(f"{name}={spell(value)}" for name, value in own.items())]
        return "\n".join(line for line in [*lines, *self._cost(node, 1)] if line)

    def of_condition(self, node: str) -> str:
        attrs = self.graph.nx.nodes[node]
        mlp = "" if attrs["expansion"] is None else f", made {self.graph.condition[1]:,} by a linear layer and SiLU"
        read = f"{node}: {attrs['dim']:,} features that norms and layer scales read{mlp}"
        return "\n".join([read, *self._cost(node, 1)])

    def of_end(self, node: str, lines: list[str]) -> str:
        """The tooltip of the input or the output."""
        return "\n".join([f"{node}: {' · '.join(lines)}", *self._cost(node, 1)])

    def _cost(self, node: str, times: int) -> list[str]:
        cost = self.costs.get(node, Cost())
        each = " each" if times > 1 else ""
        return [
            f"{cost.parameters:,} parameters{each}" + (f", {cost.active:,} active" if cost.idle else ""),
            f"{cost.flops:,} FLOPs{each} at {self.seq_len:,} tokens" if cost.flops else "",
        ]


@by_content
def _options(kind: Kind, options: Mapping[str, Any], given: tuple[str, ...]) -> str:
    """The options off their defaults, those that a text sets, and those that are worth telling at any rate."""
    defaults = {option.name: option.default for option in kind.all_options()}
    always = {"heads", "dim_head", "mult", "causal", *given}
    told = (name for name, value in options.items() if name in always or value != defaults.get(name))
    return ", ".join(f"{name}={spell(options[name])}" for name in told)


@by_content
def _shapes(kind: Kind, options: Mapping[str, Any], dim: int, uses: int) -> tuple[str, ...]:
    shapes = kind.shapes(kind.completed(dim, options, uses))
    return tuple(f"{name}: {' × '.join(map(str, shape))}" for name, shape in shapes.items())


def _named(nodes: tuple[str, ...]) -> str:
    if len(nodes) <= 4:
        return ", ".join(nodes)
    return f"{nodes[0]}, {nodes[1]}, … {nodes[-1]} ({len(nodes):,} blocks)"
