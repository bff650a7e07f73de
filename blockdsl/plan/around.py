"""What the model around a stack saves for the backward pass: embedding, positions and condition, pooling and head.

Owns counting, in numbers of one row; what blocks save is `memory`'s. It follows `graph.costs`, part by part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..graph.costs import learned_tokens
from ..graph.tokens import input_scheme
from ..registry.activations import SAVED_BY_ACTIVATIONS
from ..registry.injection import injection_saved
from ..registry.kinds import Sizes, kind_of
from ..registry.norms import embedding_norm, final_norm, pool_norm
from ..registry.pools import pool_attention, pool_of, vectors_of
from ..registry.positions import SCHEMES
from ..registry.tokens import pair

if TYPE_CHECKING:
    from ..graph.graph import Graph


def entering_saved(graph: Graph, tokens: int) -> int:
    """What makes the stream of so many tokens, learned ones not counted, and what it injects into branches."""
    start, dim, emb_dim = graph.nx.nodes[graph.start], graph.dim, graph.emb_dim
    each = 0
    if graph.reads == "images":
        pixels = math.prod(pair(start["patch_size"] or 1)) * start["channels"]
        each = pixels + (pixels + dim + 4) * start["patch_norm"]  # as the linear layer and two norms read them
    elif graph.reads == "vectors":
        each = 5 * emb_dim * start["conv_stem"]  # twice as many places of the first convolution, before and after GELU
    elif graph.reads == "tokens":
        scheme = input_scheme(graph)  # positions are alike in all rows; they are counted in each
        each = (emb_dim + 2) * start["l2norm_embed"] * (1 + (scheme == "absolute")) + emb_dim * (scheme == "sinusoidal")
    each += (emb_dim + embedding_norm(graph.nx.nodes[graph.end]).saved(emb_dim)) * start["post_emb_norm"]
    each += emb_dim * (start["emb_dropout"] > 0) + emb_dim * (emb_dim != dim)
    if graph.of_all_blocks("reinject_input"):
        each += injection_saved(dim, graph.of_all_blocks("learned_reinject_input_gate"))
    return int(tokens * each)


def leaving_saved(graph: Graph, tokens: int) -> int:
    """What the output's softcap and norm save of a stream of so many tokens, which the norm reads."""
    end, dim = graph.nx.nodes[graph.end], graph.dim
    norm = final_norm(end)
    each = dim * (end["softcap"] is not None) + (0 if norm is None else dim + norm.saved(dim))
    return int(tokens * each)


def head_saved(graph: Graph, tokens: int, logits: bool) -> int:
    """What pooling and the head save of so many normed tokens.

    Args:
        logits: the loss holds all logits, and not by parts, as `xt_blocks` computes it where there are many.
    """
    end: Mapping[str, Any] = graph.nx.nodes[graph.end]
    dim, (read, out) = graph.dim, _read_by_head(graph, tokens)
    out += 2 * dim * end["pooler"]  # of one vector
    if end["logits_dim"] is None:
        return int(out + read * dim * any(end[name] is not None for name in ("num_classes", "dim_out")))
    width = graph.emb_dim if end["tied"] else dim
    if end["logits_transform"] is not None:
        out += read * (
            dim + width * (SAVED_BY_ACTIVATIONS[end["logits_transform"]] + 1) + embedding_norm(end).saved(width)
        )
    return int(out + read * width + logits * read * end["logits_dim"] * (1 + (end["logits_softcap"] is not None)))


def _read_by_head(graph: Graph, tokens: int) -> tuple[int, int]:
    """Of how many tokens there are vectors that what follows the stack reads, and what pooling saves beside them."""
    end, dim = graph.nx.nodes[graph.end], graph.dim
    pool = pool_of(end) if graph.reads == "images" else end["pool"]
    if pool in (None, "first", "last", "cls", "end"):  # a vector of some tokens keeps those of all
        return tokens, 0
    if pool != "attention":
        return 1 + (pool == "first_mean"), 0
    queries, saved = vectors_of(end), 0.0
    for kind, options in pool_attention(end, dim).items():
        own = kind_of(kind).complete(dim, options, "pool=attention")
        formula = kind_of(kind).saved
        saved += formula(own, Sizes(1, queries, tokens), ()) if formula else 0
        saved += queries * (dim + pool_norm(end).saved(dim)) if kind == "f" else tokens * dim
    return queries, round(saved)


def beside_saved(graph: Graph, nodes: Mapping[str, None] | tuple[str, ...], tokens: int) -> int:
    """What positions and the condition among these nodes save."""
    out = 0
    for node in nodes:
        attrs = graph.nx.nodes[node]
        if attrs["type"] == "condition":
            out += 2 * graph.condition[1] * (attrs["expansion"] is not None)
        elif (scheme := SCHEMES.get(attrs["scheme"])) is not None:
            out += scheme.saved(scheme.complete(attrs), Sizes(1, tokens + learned_tokens(graph), 0))
    return out
