"""One rank's share of a model under tensor parallelism: which layers split, and the graph of what a rank holds.

What one rank costs follows from that graph as from any other: its parameters, FLOPs, cache and bytes are the graph's
own. Embedding, norms, the head and whatever else is around the layers are whole on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import networkx as nx

from ..errors import UserError
from ..graph.graph import Graph
from ..graph.nodes import carried
from ..registry.kinds import Shape, kind_of, kinds
from ..registry.options import whole
from ..registry.positions import SCHEMES
from ..registry.split import Cut, Split

G = TypeVar("G", bound=Graph)


def tensor_part(graph: G, ranks: int) -> G:
    """A copy in which every layer that splits is one rank's share of it; an encoder's are, too.

    Raises:
        UserError: a kind's `split` does not say what its `shapes` say.
    """
    out = graph.copy()
    if (encoder := graph.encoder) is not None:
        out.nx.nodes[out.nodes("context")[0]]["encoder"] = tensor_part(encoder, ranks).nx
    for node, split in tensor_splits(graph, ranks).items():
        if isinstance(split, Split):
            attrs = out.nx.nodes[node]
            (attrs["options"] if attrs["type"] == "block" else attrs).update(split.options)
            _check(graph, out, node, split, ranks)
    return out


def tensor_splits(graph: Graph, ranks: int) -> dict[str, Split | str]:
    """Each block and each position bias → its share, or a sentence on why it is whole on every rank.

    Blocks that read scores, keys or values of each other or one table, that are tied or that share a position bias
    split together or not at all. An encoder's are left out.
    """
    ranks = whole("ranks", ranks, 1)
    own = {node: _split(graph, node, ranks) for node in graph.nodes("block")}
    own |= {node: _position_split(graph, node, ranks) for node in _biases(graph)}
    own |= _unlike(own, graph.value_readers)
    together = nx.Graph()
    together.add_nodes_from(own)
    together.add_edges_from(_shared(graph))
    for group in nx.connected_components(together):
        why = next(((node, own[node]) for node in own if node in group and isinstance(own[node], str)), None)
        if why is not None:
            reason = f"it splits with {why[0]}, which does not: {why[1]}"
            own |= {node: reason for node in group if isinstance(own[node], Split)}
    return own


def table_cuts(graph: Graph, ranks: int) -> dict[int, Cut]:
    """The tables of `value_embed` of which each rank holds some features → which; others are whole on every rank."""
    readers = graph.value_readers
    splits = tensor_splits(graph, ranks) if readers else {}
    first = {number: splits[nodes[0]] for number, nodes in readers.items()}
    return {n: split.table for n, split in first.items() if isinstance(split, Split) and split.table is not None}


def whole_layers(splits: Mapping[str, Split | str]) -> str:
    """Why layers are whole on every rank, each reason with the first of them; empty where all split."""
    reasons: dict[str, list[str]] = {}
    for node, why in splits.items():
        if isinstance(why, str):
            reasons.setdefault(why, []).append(node)
    return "; ".join(
        nodes[0] + (f" and {len(nodes) - 1} more" if len(nodes) > 1 else "") + f" ({why})"
        for why, nodes in reasons.items()
    )


def node_cuts(graph: Graph, node: str, split: Split, ranks: int) -> dict[str, Cut]:
    """Each parameter of a layer or a position bias that splits → which part of it each rank holds."""
    return {name: split.of(name, ranks) for name in _shapes(graph, node)}


def _split(graph: Graph, node: str, ranks: int) -> Split | str:
    kind = kind_of(graph.block(node)["kind"])
    if kind.split is None:
        return f"{kind.title} does not say how it splits"
    return kind.split(graph.completed(node), ranks)


def _position_split(graph: Graph, node: str, ranks: int) -> Split | str:
    scheme = SCHEMES[graph.nx.nodes[node]["scheme"]]
    assert scheme.split is not None
    return scheme.split(scheme.complete(graph.nx.nodes[node]), ranks)


def _biases(graph: Graph) -> list[str]:
    """Positions whose parameters are by head."""
    schemes = {node: SCHEMES.get(graph.nx.nodes[node]["scheme"]) for node in graph.nodes("position")}
    return [node for node, scheme in schemes.items() if scheme is not None and scheme.split is not None]


def _unlike(splits: Mapping[str, Split | str], readers: Mapping[int, list[str]]) -> dict[str, str]:
    """Blocks that would cut a table otherwise than the first that reads it → this reason."""
    return {
        node: f"{nodes[0]} cuts the table of value_embed={number} otherwise"
        for number, nodes in readers.items()
        for node in nodes
        if isinstance(own := splits[node], Split)
        and isinstance(first := splits[nodes[0]], Split)
        and own.table != first.table
    }


def _shared(graph: Graph) -> Iterator[tuple[str, str]]:
    """Pairs of nodes that split together."""
    for readers in graph.value_readers.values():
        yield from ((readers[0], node) for node in readers[1:])
    given = {"scores", *(what for kind in kinds().values() for what in kind.gives)}
    biases = {*_biases(graph)}
    for source, target, attrs in graph.nx.edges(data=True):
        if given & {*carried(attrs)} or source in biases:
            yield source, target
    for owner, nodes in graph.tied().items():
        if graph.node_type(owner) == "block":
            yield from ((owner, node) for node in nodes[1:])


def _shapes(graph: Graph, node: str) -> Mapping[str, Shape]:
    attrs: dict[str, Any] = graph.nx.nodes[node]
    if attrs["type"] == "block":
        return kind_of(attrs["kind"]).shapes(graph.completed(node))
    scheme = SCHEMES[attrs["scheme"]]
    return scheme.shapes(scheme.complete(attrs))


def _check(graph: Graph, local: Graph, node: str, split: Split, ranks: int) -> None:
    """That a share's parameters are those that the cuts leave of the whole layer's."""
    wholes, shares = _shapes(graph, node), _shapes(local, node)
    for name, cut in node_cuts(graph, node, split, ranks).items():
        shape = cut.local_shape(tuple(wholes[name]), ranks)
        if shape is None:
            raise UserError(f"{node}: split cuts '{name}' of shape {tuple(wholes[name])} unevenly for {ranks} ranks")
        if shape != tuple(shares.get(name, ())):
            raise UserError(
                f"{node}: split leaves {shape} of '{name}' to each of {ranks} ranks, and with its options "
                f"{dict(split.options)} it has {shares.get(name)}"
            )
