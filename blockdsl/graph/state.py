"""What decoding keeps for each block of a graph.

Owns the rules, for the bytes that a graph counts and for the cache that a lowered stack allocates: what a kind
declares, the tail of a token shift, and how far back a window is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..registry.content import by_content
from ..registry.kinds import kind_of
from ..registry.positions import SCHEMES
from ..registry.rotary import BY_LENGTH
from ..registry.state import State, item_bytes
from ..registry.tokens import INPUT_SCHEMES

if TYPE_CHECKING:
    from ..registry.kinds import Kind, Sizes
    from .graph import Graph

SLACK = 64
"""Tokens there is capacity for beside a window: it is moved to the front of its buffer once in so many."""

COPIES = 2
"""Of a piece per row: as it was before the running step and as it is after it, so that a step can be run again."""


@dataclass(frozen=True)
class Kept:
    """The state of one block.

    Attributes:
        pieces: what its kind declares, by name.
        window: how many tokens before a step's own its pieces per token keep; None: all.
        shift: the tail of its token shift, which is no matter of its kind; None: it shifts nothing.
    """

    pieces: Mapping[str, State] = field(default_factory=dict)
    window: int | None = None
    shift: State | None = None

    @property
    def needed(self) -> int | None:
        """How many tokens before a step's own it needs, beside its pieces per row; None: all."""
        return self.window if any(piece.per == "token" for piece in self.pieces.values()) else 0

    def cached(self, sizes: Sizes) -> tuple[int, int, int]:
        """Of a cache of these sizes: numbers of the model's dtype, bytes of pieces with their own, and float32s."""
        rows = {
            "row": COPIES * sizes.batch,
            "token": sizes.batch * capacity(self.window, sizes.seq),
            "context": sizes.batch * sizes.context,
        }
        pieces = [*self.pieces.values(), *([] if self.shift is None else [self.shift])]
        sized = [(piece.dtype, rows[piece.per] * piece.numbers) for piece in pieces]
        numbers = sum(count for dtype, count in sized if dtype is None)
        own = sum(count * item_bytes(dtype) for dtype, count in sized if dtype not in (None, "float32"))
        return numbers, own, sum(count for dtype, count in sized if dtype == "float32")


def kept(graph: Graph) -> dict[str, Kept]:
    """Block → what decoding keeps for it; blocks without any state are left out."""
    declared, dim, causal = {}, graph.dim, graph.causal
    for node in graph.nodes("block"):
        attrs = graph.block(node)
        uses = 1 if attrs["tie"] is None else len(graph.uses(node))
        declared[node] = _declared(kind_of(attrs["kind"]), attrs["options"], dim, uses)
    out, windows = {}, _windows(graph, declared)
    for node, own in declared.items():
        tail = graph.block(node)["shift"]
        pieces = {name: piece for name, piece in own.items() if not piece.of} if own else {}
        shift = State((tail, graph.completed(node).dim_in)) if tail and causal else None
        if pieces or shift is not None:
            out[node] = Kept(pieces, windows.get(node), shift)
    return out


@by_content
def _declared(kind: Kind, options: Mapping[str, Any], dim: int, uses: int) -> Mapping[str, State]:
    return kind.states(kind.completed(dim, options, uses)) or {}


def widest_window(states: Iterable[Kept]) -> int | None:
    """How many tokens before a step's own any of these blocks needs; None: all."""
    most = 0
    for own in states:
        if own.needed is None:
            return None
        most = max(most, own.needed)
    return most


def why_not_rolling(graph: Graph) -> str | None:
    """Why a cache of constant size cannot hold a text of any length, or None when it can.

    It can when each block keeps a window or a state per row (a rolling cache; Mistral 7B, arXiv:2310.06825), and
    positions, if there are any, say only how far apart tokens are.
    """
    if reason := graph.why_not_cached():
        return reason
    for node, own in kept(graph).items():
        if own.needed is None:
            return f"{node} ({kind_of(graph.block(node)['kind']).title}) attends to all earlier tokens"
    for node in graph.nodes("position"):
        attrs = graph.nx.nodes[node]
        if attrs["scheme"] in INPUT_SCHEMES:
            return f"{node}: positions are added to the tokens, as many as max_seq_len"
        if attrs["scheme"] == "rotary" and SCHEMES["rotary"].complete(attrs).scaling in BY_LENGTH:
            return f"{node}: its frequencies change with the length of the text"
        for reader in graph.nx.successors(node):
            if attrs["scheme"] == "rotary" and graph.block(reader)["options"].get("num_mem_kv"):
                return f"{reader}: rotary positions count from its memory key-values, at the start of the text"
            if attrs["scheme"] == "rotary" and graph.sources(reader, "context"):
                return f"{reader}: rotary positions of text and context count from their starts"
    return None


def restarts(graph: Graph, node: str) -> bool:
    """Whether a block carries something along the tokens by itself: neither by attention nor token by token."""
    kind, pieces = graph.state(node)
    alone = pieces is not None and all(piece.per == "context" for piece in pieces.values())
    return "attend" not in kind.inputs and not alone


def why_no_documents(graph: Graph) -> str | None:
    """Why several documents cannot be in one row, each read as if it were alone, or None when they can.

    They can where every block attends under the masks of the stack, is computed token by token, or is told which
    tokens of a row are real and nothing else of them: then it is given each document as a row of its own.
    """
    for node in graph.nodes("block"):
        kind = kind_of(graph.block(node)["kind"])
        if restarts(graph, node) and not {"mask"} <= {*kind.inputs} <= {"mask", "cache"}:
            return f"{node} ({kind.title}) is not told where each document begins"
    return why_by_length(graph)


def why_by_length(graph: Graph) -> str | None:
    """What depends on the length of the whole text, or None if nothing does."""
    for node in graph.nodes("position"):
        attrs = graph.nx.nodes[node]
        if attrs["scheme"] == "rotary" and SCHEMES["rotary"].complete(attrs).scaling in BY_LENGTH:
            return f"{node}: its frequencies change with the length of the text"
    return None


def capacity(window: int | None, tokens: int) -> int:
    """Tokens that a block with this window has capacity for, to decode so many."""
    return tokens if window is None else min(tokens, window + SLACK)


def _windows(graph: Graph, declared: Mapping[str, Mapping[str, State]]) -> dict[str, int]:
    """Block → how many tokens before a step's own its cache keeps; a block that keeps all is left out.

    Blocks that hand scores on to each other keep alike, as much as the one that sees farthest: their scores are added.
    So does a block keep what those need that read its pieces.
    """
    if all(
        piece.window is None for own in {id(own): own for own in declared.values()}.values() for piece in own.values()
    ):
        return {}
    chains = {node: [node] for node in declared}
    for node in [*chains]:
        shared = {piece.of for piece in declared[node].values()} - {""}
        for source in (source for carries in ("scores", *sorted(shared)) for source in graph.sources(node, carries)):
            fewer, more = sorted((chains[node], chains[source]), key=len)
            if fewer is not more:
                more += fewer
                chains |= dict.fromkeys(fewer, more)
    out: dict[str, int] = {}
    for chain in {id(chain): chain for chain in chains.values()}.values():
        pieces = [piece for node in chain for piece in declared[node].values()]
        per_token = [piece for piece in pieces if piece.per == "token"]
        known = [piece.window for piece in per_token if piece.window is not None]
        if known and len(known) == len(per_token):
            out |= dict.fromkeys(chain, max(known))
    return out
