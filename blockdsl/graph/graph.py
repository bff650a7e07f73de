"""The block graph: what a model is, as a networkx DiGraph that costs, drawings and lowering read.

Owns reading the graph. What its nodes and edges say is in `nodes`; what is made of a graph (costs, differences,
drawings) reads it from above, and `blockdsl.api.BlockGraph` has all of it as methods.

The graph is the program: change it with plain networkx calls and lower it, and the model is what it says, or
`lint` says why that cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Any, TypeVar

import networkx as nx

from ..errors import PatternError
from ..language.pattern import parse
from ..registry.content import Content, Values, content
from ..registry.kinds import OF_ALL_BLOCKS, Kind, kind_of
from ..registry.options import PLAIN, plain
from ..registry.state import State
from ..registry.tokens import pair
from . import written
from .nodes import BlockNode, carried, is_note

G = TypeVar("G", bound="Graph")
A = TypeVar("A")


class Graph:
    """A stack of blocks as a graph.

    Attributes:
        nx: the networkx.DiGraph; see `nodes` for its nodes and edges.
    """

    def __init__(self, graph: nx.DiGraph) -> None:
        self.nx = graph

    @property
    def dim(self) -> int:
        dim: int = plain(self.nx.graph["dim"])
        return dim

    @property
    def causal(self) -> bool:
        return self.nx.graph["causal"]

    @property
    def stages(self) -> list[str | None]:
        """The name of each stage; None where it has none."""
        return self.nx.graph["stages"]

    @property
    def pattern(self) -> str:
        """The text that was put down for the graph; `BlockGraph` has that of a graph that was edited since."""
        return self.nx.graph["pattern"]

    @property
    def start(self) -> str:
        """The input node."""
        return next(self._of_type("input"))

    @property
    def end(self) -> str:
        """The output node; it is near the end, where nothing was added since."""
        return next(self._of_type("output", reversed([*self.nx._node])))

    @property
    def encoder(self: G) -> G | None:
        """The graph of the stream whose output the context is; None: the context comes from outside, or there is none.

        It is the networkx graph in the context node's attribute `encoder`, which edits of either change.
        """
        found = next((self.nx.nodes[node].get("encoder") for node in self.nodes("context")), None)
        return None if found is None else type(self)(found)

    @property
    def tie_token_emb(self) -> bool:
        """Whether the encoder's embedding of tokens is this graph's too."""
        return any(self.nx.nodes[node].get("tie_token_emb", False) for node in self.nodes("context"))

    def streams(self: G) -> dict[str, G]:
        """The graph of each stream by name: "encoder" and "decoder", each alone; or of one stream, itself under ""."""
        encoder = self.encoder
        if encoder is None:
            return {"": self}
        decoder = self.copy()
        for node in decoder.nodes("context"):
            decoder.nx.nodes[node].clear()
            decoder.nx.nodes[node]["type"] = "context"
        edited = written.is_edited(self.nx)
        with suppress(PatternError):  # the text cannot be read any more, say because a kind was unregistered
            decoder.nx.graph["pattern"] = str(parse(decoder.nx.graph["pattern"]).decoder)
        if not edited:
            written.write(decoder.nx, decoder.nx.graph["pattern"])
        return {"encoder": encoder, "decoder": decoder}

    def nodes(self, node_type: str) -> list[str]:
        """The nodes of one type, in the order they were added."""
        return [node for node, attrs in self.nx._node.items() if attrs.get("type") == node_type]

    def distinct(self) -> list[tuple[BlockNode, int]]:
        """What blocks say of themselves, as the first says it that does, and how many do."""
        found: dict[Hashable, tuple[BlockNode, int]] = {}
        for node in self.nodes("block"):
            attrs = self.block(node)
            key = attrs["kind"], content(attrs["options"]), tuple(attrs["given"])
            first, count = found.get(key, (attrs, 0))
            found[key] = first, count + 1
        return [*found.values()]

    def _of_type(self, node_type: str, among: Iterable[str] | None = None) -> Iterator[str]:
        nodes = self.nx._node  # not through networkx's view, here and below: all that reads a graph asks this often
        return (node for node in (nodes if among is None else among) if nodes[node].get("type") == node_type)

    def node_type(self, node: str) -> str:
        """What a node is: "input", "context", "condition", "position", "block", "sum", "read" or "output"."""
        return self.nx._node[node]["type"]

    def block(self, node: str) -> BlockNode:
        """The attributes of a block: the dict that the graph holds, typed."""
        return self.nx._node[node]

    def sources(self, node: str, carries: str) -> list[str]:
        """The nodes whose edge to `node` carries this."""
        edges = self.nx._pred[node]
        return [source for source, attrs in edges.items() if carries in carried(attrs)]

    def labels(self, node: str) -> tuple[str, ...]:
        """The names that the text gives the stream after this node."""
        return tuple(self.nx._node[node].get("labels", ()))

    def unused(self) -> list[str]:
        """Blocks that the output does not depend on: reads by `soft` are in the stream's place, and leave it out."""
        kept = self.nx.copy()
        for node in self.nodes("read"):
            read = self.nx.nodes[node]
            if (read["join"], read["scale"]) == ("soft", 1):
                left = [s for s in self.sources(node, "stream") if s not in self.sources(node, "read")]
                kept.remove_edges_from([(source, node) for source in left])
        used = nx.ancestors(kept, self.end)
        return [node for node in self.nodes("block") if node not in used]

    def of_all_blocks(self, name: str) -> Any:
        """The value of one of `kinds.OF_ALL_BLOCKS`; `lint` sees to it that all blocks say the same."""
        options = (self.block(node)["options"] for node in self._of_type("block"))
        default = next(option.default for option in OF_ALL_BLOCKS if option.name == name)
        return next((plain(own[name]) for own in options), default)

    @property
    def residual_streams(self) -> int:
        """How many residual streams there are."""
        streams: int = self.of_all_blocks("num_residual_streams")
        return streams

    @property
    def condition(self) -> tuple[int, int]:
        """Features of the condition, and of what its readers get of it; 0: there is none."""
        nodes = self.nodes("condition")
        if not nodes:
            return 0, 0
        attrs = self.nx.nodes[nodes[0]]
        dim: int = plain(attrs["dim"])
        return dim, dim * (plain(attrs["expansion"]) or 1)

    @property
    def value_embeds(self) -> dict[int, int]:
        """The tables of value embeddings that blocks read, by number → features of their vectors."""
        first = {number: self.block(nodes[0]) for number, nodes in self.value_readers.items()}
        return {n: kind_of(attrs["kind"]).value_features(self.dim, attrs["options"]) for n, attrs in first.items()}

    @property
    def value_readers(self) -> dict[int, list[str]]:
        """The same tables, by number → the blocks that read them."""
        out: dict[int, list[str]] = {}
        for node in self.nodes("block"):
            if (number := plain(self.block(node)["options"].get("value_embed"))) is not None:
                out.setdefault(number, []).append(node)
        return dict(sorted(out.items()))

    def once(self, key: Hashable, work: Callable[[], A]) -> A:
        """What `work` gives; a graph that is only read does it once for each key."""
        return work()

    def order(self) -> list[str]:
        """All nodes, each after those it reads."""
        return list(nx.topological_sort(self.nx))

    def order_as_added(self) -> list[str]:
        """The same, and otherwise as they were added: branches one after the other, as a text has them."""
        place = {node: i for i, node in enumerate(self.nx)}
        return list(nx.lexicographical_topological_sort(self.nx, key=place.__getitem__))

    def tied(self) -> dict[str, list[str]]:
        """Blocks and reads with one set of parameters: the owner (the first in order) → all of them, owner included."""
        owners: dict[str, str] = {}
        out: dict[str, list[str]] = {}
        for node, attrs in self.nx.nodes(data=True):
            if attrs.get("type") not in ("block", "read"):
                continue
            tie = attrs.get("tie")
            owner = node if tie is None else owners.setdefault(tie, node)
            out.setdefault(owner, []).append(node)
        return out

    @property
    def emb_dim(self) -> int:
        """Features of the token embedding."""
        own = plain(self.nx.nodes[self.start]["emb_dim"])
        return self.dim if own is None else own

    @property
    def dim_context(self) -> int:
        """Features of the context, those of the stream unless blocks that read it say otherwise."""
        readers = (node for context in self.nodes("context") for node in self.nx.succ[context])
        own = (plain(self.block(node)["options"].get("dim_context")) for node in readers)
        return next((dim for dim in own if dim is not None), self.dim)

    @property
    def reads(self) -> str | None:
        """What the model around the stack reads: "tokens", "vectors" or "images"; None: there is none."""
        start, end = self.nx.nodes[self.start], self.nx.nodes[self.end]
        if start["num_tokens"] is not None:
            return "tokens"
        if start["image_size"] is not None:
            return "images"
        said = (start["max_seq_len"], start["dim_in"], end["dim_out"])
        return None if said == (None, None, None) else "vectors"

    @property
    def patches(self) -> int:
        """Of an image, in a model that reads images."""
        start = self.nx.nodes[self.start]
        (height, width), (high, wide) = pair(start["image_size"]), pair(start["patch_size"] or 1)
        return (height // high) * (width // wide)

    @property
    def places(self) -> int:
        """Rows of learned positions: those of an image's patches and its class token, or of tokens."""
        start = self.nx.nodes[self.start]
        if self.reads == "images":
            return self.patches + int(start["class_token"])
        return int(start["pos_offset"]) + int(start["max_seq_len"] or 0)

    def completed(self, node: str) -> Any:
        """A block's options with attribute access, those that follow from others among them: `Kind.completed`."""
        attrs = self.block(node)
        return kind_of(attrs["kind"]).completed(self.dim, attrs["options"], len(self.uses(node)))

    def uses(self, node: str) -> list[str]:
        """The blocks that share a block's parameters, where each has some of its own too; else the block alone."""
        attrs = self.block(node)
        if attrs["tie"] is None or not kind_of(attrs["kind"]).by_use(attrs["options"]):
            return [node]
        return [other for other in self.nodes("block") if self.block(other)["tie"] == attrs["tie"]]

    def state(self, node: str) -> tuple[Kind, Mapping[str, State] | None]:
        """A block's kind, and the pieces that it keeps between decoding steps; None: it cannot decode stepwise."""
        kind = kind_of(self.block(node)["kind"])
        return kind, kind.states(self.completed(node))

    def sees_later(self) -> str | None:
        """Why a token's value may depend on a later token, or None when it cannot."""
        if self.nx.nodes[self.start]["conv_stem"]:
            return "the input's conv_stem reads the frames around each"
        for node in self.nodes("block"):
            attrs = self.block(node)
            if attrs["options"].get("bidirectional"):
                return f"{node} ({kind_of(attrs['kind']).title}) is bidirectional"
            if attrs["options"].get("causal") is False:
                return f"{node} ({kind_of(attrs['kind']).title}) is not causal"
            if attrs["shift"] and not self.causal:
                return f"{node} shifts tokens from both sides"
            if attrs["options"].get("context") and not self.causal:
                return f"{node} ({kind_of(attrs['kind']).title}) attends to all tokens"
        return None

    def why_not_cached(self) -> str | None:
        """Why the stack cannot be decoded one token at a time, or None when it can.

        It can when no token's value depends on a later one, and every kind keeps what its next step needs.
        """
        for node in self.nodes("block"):
            kind, pieces = self.state(node)
            if pieces is None and not self.block(node)["options"].get("bidirectional"):
                return f"{node} ({kind.title}) keeps no state between steps"
        return self.sees_later()

    def why_not_segmented(self) -> str | None:
        """Why the stack cannot read a text one segment after another (Transformer-XL), or None when it can.

        It can when every kind goes on from what it kept of earlier segments: their tokens, which it is handed as its
        input `memory` or, where it attends to an earlier place, before its context, or a state of constant size.
        """
        for node in self.nodes("block"):
            kind, pieces = self.state(node)
            if not kind.segments:
                return f"{node} ({kind.title}) does not run in segments"
            if self.sources(node, "normed") and ("memory" in kind.inputs or self.block(node)["shift"]):
                return f"{node} ({kind.title}) reads what another block has normed, of this segment alone"
            grows = pieces is not None and any(piece.per == "token" for piece in pieces.values())
            own_context = any(self.node_type(source) != "context" for source in self.sources(node, "context"))
            if (pieces is None or grows) and "memory" not in kind.inputs and not own_context:
                return f"{node} ({kind.title}) keeps nothing of earlier segments"
        return None

    def copy(self: G) -> G:
        """An independent copy, which may be edited where this one is frozen, a view or a part of another graph.

        The order of nodes, and that in which each reads its sources, stays; numbers of other libraries become Python's.
        """
        return type(self)(_copied(self.nx))


def _copied(graph: nx.DiGraph) -> nx.DiGraph:
    out = nx.DiGraph(**_plain(graph.graph))
    out.add_nodes_from((node, _plain(attrs)) for node, attrs in graph.nodes(data=True))
    for target in graph:
        out.add_edges_from((source, target, _plain(attrs)) for source, attrs in graph.pred[target].items())
    return out


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in Python's own types, of the dicts and graphs inside too."""
    return {n: v if type(v) in PLAIN else _plain_value(n, v) for n, v in attrs.items()}


def _plain_value(name: str, value: Any) -> Any:
    if is_note(name):
        return deepcopy(value)
    if isinstance(value, nx.DiGraph):
        return _copied(value)
    if isinstance(value, dict):
        said = content(value)
        return Values(value) if type(said) is Content and said.plain else Values(_plain(value))
    return deepcopy(plain(value))
