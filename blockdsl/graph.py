"""The block graph: what a model is, as a networkx DiGraph that drawings, costs and lowering read.

Node kinds (attribute `kind`), and the other attributes each has:

    input     where the stream starts, and its token embedding: `tokens.INPUT_OPTIONS`; num_tokens is None without
    context   the sequence that cross-attention reads
    position  scheme: "absolute" or "sinusoidal", which are added to the embedded tokens, or one of `positions.SCHEMES`
              ("rotary", "t5", "dynamic", "alibi") with its attributes
    block     block: its kind in the registry; options: all of them; given: those its own text set;
              shift: token shift; scale: of the branch; tie: class of shared parameters or None; stage: index
    sum       where parallel branches meet; stage
    output    norm: "layernorm", "rmsnorm", "scalenorm" or None; logits_dim: how many logits, or None; tied: to the
              embedding

Edges say what they carry (attribute `carries`, a tuple or one name; a missing one means the stream). An edge that
is there already keeps what it carries when it is added again without saying.

    stream    the residual stream. A node reads the sum of what its stream edges bring
    base      of a sum: the stream its branches started from. The sum is base + what each branch added to it
    context   from the context to a block that attends to it
    position  from a position to a block, or from one that is added to the tokens to the input
    scores    attention scores of one block, added to those of a later one (residual attention)

Graph attributes: dim, causal, stages (names or None), pattern (the text it was made from; information only).

The graph is the program: change it with plain networkx calls and lower it, and the model is what it says, or
`lint` says why that cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from . import costs, tokens
from .errors import GraphError, UserError
from .kinds import kind_of

if TYPE_CHECKING:
    from .diff import GraphDiff
    from .draw.colors import Shade

EDGES = ("stream", "base", "context", "position", "scores")


class BlockGraph:
    """A stack of blocks as a graph.

    Attributes:
        nx: the networkx.DiGraph; see the module's text for its nodes and edges.
    """

    def __init__(self, graph: nx.DiGraph) -> None:
        self.nx = graph

    @property
    def dim(self) -> int:
        return self.nx.graph["dim"]

    @property
    def causal(self) -> bool:
        return self.nx.graph["causal"]

    @property
    def stages(self) -> list[str | None]:
        """The name of each stage; None where it has none."""
        return self.nx.graph["stages"]

    @property
    def pattern(self) -> str:
        """The canonical text the graph was made from; edits of the graph do not change it."""
        return self.nx.graph["pattern"]

    @property
    def start(self) -> str:
        """The input node."""
        return self.nodes("input")[0]

    @property
    def end(self) -> str:
        """The output node."""
        return self.nodes("output")[0]

    def nodes(self, kind: str) -> list[str]:
        """The nodes of one kind, in the order they were added."""
        return [node for node, attrs in self.nx.nodes(data=True) if attrs.get("kind") == kind]

    def sources(self, node: str, carries: str) -> list[str]:
        """The nodes whose edge to `node` carries this."""
        return [source for source, attrs in self.nx.pred[node].items() if carries in carried(attrs)]

    def order(self) -> list[str]:
        """All nodes, each behind those it reads."""
        return list(nx.topological_sort(self.nx))

    def tied(self) -> dict[str, list[str]]:
        """Blocks with one set of parameters: the owner (the first in order) → all of them, owner included."""
        owners: dict[str, str] = {}
        out: dict[str, list[str]] = {}
        for node in self.nodes("block"):
            tie = self.nx.nodes[node].get("tie")
            owner = node if tie is None else owners.setdefault(tie, node)
            out.setdefault(owner, []).append(node)
        return out

    def lint(self) -> BlockGraph:
        """Check that the graph can be lowered; returns it.

        Raises:
            GraphError: it cannot; the message lists every fault.
        """
        from .lint import faults

        if found := faults(self):
            raise GraphError("the graph cannot be lowered:\n" + "\n".join(f"  {fault}" for fault in found))
        return self

    @property
    def emb_dim(self) -> int:
        """Features of the token embedding."""
        own = self.nx.nodes[self.start]["emb_dim"]
        return self.dim if own is None else own

    def with_tokens(self, num_tokens: int, max_seq_len: int, **options: Any) -> BlockGraph:
        """A copy that embeds tokens and gives logits.

        Args:
            options: the others of `tokens.TOKEN_OPTIONS`. Absolute positions give way to rotary ones and T5's bias.

        Raises:
            TypeError: an unknown option; the message names the nearest.
            UserError: a value is out of range, or options clash.
            GraphError: the graph is at fault.
        """
        given = {"num_tokens": num_tokens, "max_seq_len": max_seq_len} | options
        settings = tokens.checked(given, "with_tokens")
        graph = self.without_tokens()
        if found := tokens.clash(settings, graph.dim, tokens.block_schemes(graph)):
            raise UserError(f"{found[0]} is set, but {found[1]}")
        tokens.write(graph, settings, graph.dim)
        return graph.lint()

    def without_tokens(self) -> BlockGraph:
        """A copy of the stack alone, from embedded sequence to normed output."""
        graph = self.copy()
        tokens.erase(graph)
        return graph

    def token_options(self) -> dict[str, Any]:
        """What `with_tokens` was given, as the graph says it now."""
        return tokens.read(self)

    # Costs -------------------------------------------------------------------------------------------------------

    def parameters(self) -> int:
        """How many parameters the lowered module has; tied ones count once."""
        return costs.parameters(self)

    def flops(self, seq_len: int, batch: int = 1, context_len: int | None = None) -> int:
        """Floating-point operations of one forward pass, two a multiply-add, as torch.utils.flop_counter counts.

        Args:
            seq_len: tokens a row.
            batch: rows.
            context_len: tokens of the context a row; seq_len when not given.
        """
        return costs.flops(self, seq_len, batch, context_len)

    def kv_cache_bytes(
        self, seq_len: int, batch: int = 1, dtype: str = "float32", context_len: int | None = None
    ) -> int:
        """Bytes of keys and values that decoding keeps for `seq_len` tokens a row; under max_attend_past, of a window.

        Args:
            dtype: of the cache, by torch's name ("bfloat16") or as a torch dtype.
        """
        return costs.kv_cache_bytes(self, seq_len, batch, dtype, context_len)

    def sees_later(self) -> str | None:
        """Why a token's value may depend on a later token, or None when it cannot."""
        for node in self.nodes("block"):
            attrs = self.nx.nodes[node]
            if attrs["options"].get("causal") is False:
                return f"{node} ({kind_of(attrs['block']).title}) is not causal"
            if attrs["shift"] and not self.causal:
                return f"{node} shifts tokens from both sides"
        return None

    def why_not_cached(self) -> str | None:
        """Why the stack cannot be decoded one token at a time, or None when it can.

        It can when no token's value depends on a later one, and every kind keeps what its next step needs.
        """
        for node in self.nodes("block"):
            kind = kind_of(self.nx.nodes[node]["block"])
            if kind.cached is None:
                return f"{node} ({kind.title}) keeps no state between steps"
        return self.sees_later()

    def diff(self, other: BlockGraph, seq_len: int = 1024) -> GraphDiff:
        """What differs from another graph; false when both are the same model.

        Args:
            seq_len: tokens a row that the costs before and after are given for.
        """
        from .diff import diff

        return diff(self, other, seq_len)

    # Text --------------------------------------------------------------------------------------------------------

    def to_text(self, ascii: bool = False, color: bool = False) -> str:
        """The graph drawn with characters: stages, branches, ties, and each repeat once.

        Args:
            color: colour blocks by their kind, with the escape codes of a terminal.
        """
        from .draw.text import draw

        return draw(self, ascii=ascii, color=color)

    def to_dot(self, fold: bool = False) -> str:
        """The graph in Graphviz's language, for `dot -Tsvg` and the like: stages as clusters, edges by what they carry.

        Args:
            fold: draw each repeat once.
        """
        from .draw.dot import draw

        return draw(self, fold)

    def to_mermaid(self, fold: bool = True) -> str:
        """The graph as a Mermaid flowchart, for Markdown that renders such.

        Args:
            fold: draw each repeat once; Mermaid refuses large charts.
        """
        from .draw.mermaid import draw

        return draw(self, fold)

    def to_svg(
        self,
        path: str | PathLike[str] | None = None,
        *,
        unfold: bool = False,
        detail: str = "block",
        color: str | Shade = "kind",
        seq_len: int = 1024,
    ) -> str:
        """The graph as an SVG picture, in which each repeat is drawn once.

        Args:
            path: a file to write it to.
            unfold: draw every block.
            detail: "block", or "op" for blocks opened to their operations.
            color: what a block's colour says: "kind", "params", "flops", "stage" or "tied"; or a `blockdsl.draw.Shade`
                of values from elsewhere, and every block is drawn.
            seq_len: tokens a row, of the FLOPs.

        Raises:
            UserError: an option has a value that it cannot have.
        """
        from .draw.picture import picture
        from .draw.svg import svg

        text = svg(picture(self, unfold=unfold, detail=detail, color=color, seq_len=seq_len))
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def to_png(self, path: str | PathLike[str] | None = None, *, scale: float = 2.0, **options: Any) -> bytes:
        """The SVG picture as PNG, light; `options` are those of `to_svg`.

        Args:
            scale: pixels of the image for a pixel of the picture.

        Raises:
            UserError: resvg-py is not installed, or an option has a value that it cannot have.
        """
        from .draw.png import png

        image = png(self.to_svg(**options), scale)
        if path is not None:
            Path(path).write_bytes(image)
        return image

    def to_html(
        self,
        path: str | PathLike[str] | None = None,
        *,
        unfold: bool = False,
        detail: str = "block",
        color: str | Shade = "kind",
        seq_len: int = 1024,
        dtype: Any = "float32",
    ) -> str:
        """The graph as one HTML page: the picture with search, the pattern's text, and each block's details.

        It asks for no other file and for no network.

        Args:
            path: a file to write it to.
            unfold: open it with every block drawn; the page folds and unfolds.
            detail, color: as in `to_svg`.
            seq_len: tokens a row, of the FLOPs and of the cache.
            dtype: of the cache, as in `kv_cache_bytes`.

        Raises:
            UserError: an option has a value that it cannot have.
        """
        from .draw import page

        return page({"": self}, path, unfold=unfold, detail=detail, color=color, seq_len=seq_len, dtype=dtype)

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"BlockGraph({self.pattern!r}, dim={self.dim}, blocks={len(self.nodes('block'))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockGraph) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    # JSON --------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The whole graph; `BlockGraph.from_json` reads it back."""
        return json.dumps(self._plain(), indent=1)

    @staticmethod
    def from_json(text: str) -> BlockGraph:
        """The graph that `to_json` wrote.

        Raises:
            GraphError: the text is not such a graph, or the graph is at fault.
        """
        try:
            plain = json.loads(text)
            graph = nx.DiGraph()
            graph.graph.update(plain["graph"])
            for node in plain["nodes"]:
                for options in (node[key] for key in ("options", "given") if key in node):
                    options |= {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
                graph.add_node(node.pop("id"), **node)
            for edge in plain["edges"]:
                graph.add_edge(edge["from"], edge["to"], carries=tuple(edge["carries"]))
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise GraphError(f"this is no block graph in JSON: {type(error).__name__}: {error}") from None
        try:
            return BlockGraph(graph).lint()
        except GraphError as error:
            if "has no attribute" not in str(error):
                raise
            hint = "an older version may have written it: compile its pattern again"
            raise GraphError(f"{error}\n  {hint}") from None

    def _plain(self) -> dict[str, Any]:
        return {
            "graph": dict(self.nx.graph),
            "nodes": [{"id": node, **attrs} for node, attrs in self.nx.nodes(data=True)],
            # by target: the order in which a node reads its sources is that of its branches and of their sum
            "edges": [
                {"from": source, "to": target, "carries": list(carried(attrs))}
                for target in self.nx
                for source, attrs in self.nx.pred[target].items()
            ],
        }

    def copy(self) -> BlockGraph:
        """An independent copy."""
        return BlockGraph(deepcopy(self.nx))


def carried(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """What an edge carries; one added without saying is the stream."""
    carries = attrs.get("carries", ("stream",))
    return (carries,) if isinstance(carries, str) else tuple(carries)
