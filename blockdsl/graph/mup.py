"""How parameters and scales of a graph follow its width: muP (Yang et al., arXiv:2203.03466).

A graph is compared with one of the same pattern at another width, the base, for which a learning rate was found. A
parameter's role follows from which axes of its shape grow; a block's shapes are what its kind declares, so a user's own
kind has roles too. The roles are table 3 of the paper, in which no output has a multiplier; logits of a tied embedding,
whose one matrix is input and output, have that of table 8.

Leaves weights and optimisers to `xt_blocks.mup`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from ..errors import UserError
from ..registry.kinds import Shape, kind_of
from ..registry.options import plain
from .graph import Graph

G = TypeVar("G", bound=Graph)


class Scaling(NamedTuple):
    """How a parameter differs from the base's.

    Attributes:
        role: "hidden", a matrix from a width to a width; "output", from a width to a fixed number, such as logits or a
            router; "vector", of one width: input weights, embeddings, biases, gains; or "fixed", of none.
        width_multiplier: the growth of its fan-in; of a vector, of its features.
    """

    role: str
    width_multiplier: float

    @property
    def init(self) -> float:
        """Standard deviation of the initial values, as a multiple of the base's."""
        return {"hidden": self.width_multiplier**-0.5, "output": 1 / self.width_multiplier}.get(self.role, 1.0)

    @property
    def adam(self) -> float:
        """Learning rate for Adam and its like, as a multiple of the base's."""
        return 1 / self.width_multiplier if self.role in ("hidden", "output") else 1.0

    @property
    def sgd(self) -> float:
        """Learning rate for SGD, as a multiple of the base's."""
        return {"output": 1 / self.width_multiplier, "vector": self.width_multiplier}.get(self.role, 1.0)


def scaling_of(shape: Shape, base: Shape, layer: bool) -> Scaling:
    """Of a parameter with these shapes.

    Args:
        layer: it is a layer's weight (..., out, in); in others with one axis that grows, that is the features.
    """
    growth = [size / of_base for size, of_base in zip(shape, base, strict=True)]
    grown = [each for each in growth if each != 1]
    if len(grown) > 1:
        return Scaling("hidden", grown[-1])
    if layer and len(shape) > 1 and growth[-1] != 1:
        return Scaling("output", growth[-1])
    return Scaling("vector", grown[0]) if grown else Scaling("fixed", 1.0)


def roles(graph: Graph, base: Graph) -> dict[str, Scaling]:
    """Of what each block's kind declares, as `a0.to_out.weight`; tied blocks once.

    Raises:
        UserError: the base is another pattern.
    """
    out = {}
    for node, of_base in _matched(graph, base):
        if node not in graph.tied():
            continue
        kind = kind_of(graph.block(node)["kind"])
        here, there = (kind.shapes(g.completed(n)) for g, n in ((graph, node), of_base))
        for name, shape in here.items():
            out[f"{node}.{name}"] = scaling_of(shape, there[name], name.endswith("weight"))
    return out


def scaled(graph: G, base: G) -> G:
    """A copy that is the base at its own width, and elsewhere has scores times 1/dim_head, not its root, and tied
    logits times 1/emb_dim.

    Raises:
        UserError: the base is another pattern.
    """
    out = graph.copy()
    _scale(out, base)
    if out.encoder and base.encoder:
        _scale(out.encoder, base.encoder)
    return out


def _scale(graph: Graph, base: Graph) -> None:
    for node, (_, of_base) in _matched(graph, base):
        options, theirs = graph.block(node)["options"], base.block(of_base)["options"]
        if "qk_scale" not in options or options.get("qk_norm"):
            continue
        kind = kind_of(graph.block(node)["kind"])
        width, narrow = (kind.completed(g.dim, o).dim_head for g, o in ((graph, options), (base, theirs)))
        scale = plain(theirs["qk_scale"])
        if width != narrow or scale is not None:
            options["qk_scale"] = (narrow**-0.5 if scale is None else scale) * narrow / width
    end, of_end = graph.nx.nodes[graph.end], base.nx.nodes[base.end]
    if end["tied"] and graph.emb_dim != base.emb_dim:
        scale = plain(of_end["logits_scale"])
        end["logits_scale"] = (base.emb_dim**-0.5 if scale is None else scale) * base.emb_dim / graph.emb_dim


def _matched(graph: Graph, base: Graph) -> Iterator[tuple[str, tuple[Graph, str]]]:
    """Each block, and the base and its block there."""
    if not isinstance(base, Graph):
        raise TypeError(f"base must be a graph, as compile(pattern, dim=64) makes, not {type(base).__name__}")
    if _wired_as(graph) != _wired_as(base):
        raise UserError("the base is another pattern, not this one at another width")
    here, there = graph.nodes("block"), base.nodes("block")
    return ((node, (base, of_base)) for node, of_base in zip(here, there, strict=True))


def _wired_as(graph: Graph) -> tuple[list[str], list[str], bool]:
    kinds = [graph.block(node)["kind"] for node in graph.nodes("block")]
    return kinds, [graph.nx.nodes[node]["join"] for node in graph.nodes("read")], graph.encoder is not None
