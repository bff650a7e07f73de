"""Context parallelism: whether the tokens of a row can be shared by ranks, which gather keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph.costs import learned_tokens
from ..graph.state import kept, why_by_length
from ..registry.kinds import kind_of

if TYPE_CHECKING:
    from ..graph.graph import Graph


def why_whole_rows(graph: Graph) -> str | None:
    """Why ranks cannot each have some of a row's tokens, or None when they can.

    They can where each block reads its token alone, or what it keeps of the tokens before, as in decoding: these are
    the tokens of the ranks before. Any other state along the row would make each rank wait for the one before it.
    """
    if graph.encoder is not None:
        return "an encoder with its decoder"
    if reason := graph.why_not_cached():
        return reason
    if learned_tokens(graph):
        return "learned tokens are in front of each row"
    for node, own in kept(graph).items():
        if any(piece.per == "row" and not piece.tail for piece in own.pieces.values()):
            title = kind_of(graph.block(node)["kind"]).title
            return f"{node} ({title}) carries a state along each row, for which ranks would wait one after another"
    return why_by_length(graph)
