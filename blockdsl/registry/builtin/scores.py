"""What attention does to scores and weights, as options: what clashes, and what it costs.

How each is computed is in `xt_blocks.kernels.scores`, a file each. Position biases are in `..positions`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Shape
from ..options import Option
from .switch import switch

SCORE_OPTIONS = (
    switch(
        "talking_heads",
        "heads exchange scores and weights (arXiv:2003.02436)",
        scores="xt_blocks.kernels.scores.talking_heads:TalkingHeads",
    ),
    Option(
        "softcap",
        float,
        None,
        "scores bounded by c, as c·tanh(score / c) (Gemma 2, arXiv:2408.00118); none: unbounded",
        setting="attn_softcap",
        above=0,
        optional=True,
        scores="xt_blocks.kernels.scores.softcap:softcap",
    ),
    Option(
        "sparse_topk",
        int,
        None,
        "only so many of each query's largest scores count (arXiv:1912.11637); none: all",
        setting="attn_sparse_topk",
        least=1,
        optional=True,
        scores="xt_blocks.kernels.scores.sparse_topk:sparse_topk",
    ),
    switch(
        "sparse_topk_straight_through",
        "scores beyond sparse_topk have the gradient that they would have in the softmax of all (arXiv:2505.22074)",
    ),
    switch(
        "sink",
        "a learned logit of each head takes a share of its softmax (gpt-oss, arXiv:2508.10925)",
        scores="xt_blocks.kernels.scores.sink:Sink",
    ),
    switch(
        "add_zero_kv",
        "a key and a value of zeros, which all queries see: a head can attend to nothing "
        "(the zero sink of arXiv:2309.17453)",
        scores="xt_blocks.kernels.scores.zero_kv:zero_kv",
    ),
    switch(
        "sigmoid",
        "each weight is the sigmoid of its score, in place of the softmax (arXiv:2409.04431)",
        scores="xt_blocks.kernels.scores.sigmoid:sigmoid",
    ),
    switch(
        "cog_signed",
        "weights are the softmax of the scores' sizes, with their signs (Cog attention, arXiv:2411.07176)",
        scores="xt_blocks.kernels.scores.cog:cog",
    ),
)


def score_check(o: Any) -> str | None:
    """Why these options do not go together; None: they do."""
    if o.sparse_topk_straight_through and o.sparse_topk is None:
        return "sparse_topk_straight_through is set, but it needs sparse_topk"
    softmaxes = ("sparse_topk_straight_through", "sink", "add_zero_kv", "sigmoid", "cog_signed")
    if len(weigh := [name for name in softmaxes if getattr(o, name)]) > 1:
        return f"{' and '.join(weigh)} are set; one of them takes the softmax's place"
    if o.cog_signed and o.sparse_topk is not None:
        return "cog_signed and sparse_topk are set, but the largest scores are not those of the largest weights"
    for name, why in ("talking_heads", "weights that heads exchange"), ("cog_signed", "its weights"):
        if o.laser and getattr(o, name):
            return f"laser and {name} are set, but {why} may be negative, without a logarithm"
    return None


def score_shapes(o: Any) -> dict[str, Shape]:
    """Their parameters."""
    shapes: dict[str, Shape] = {}
    if o.talking_heads:
        shapes |= {f"talking_heads.{place}.weight": (o.heads, o.heads) for place in ("before", "after")}
    if o.sink:
        shapes["sink.logits"] = (o.heads,)
    return shapes


def score_products(o: Any) -> int:
    """Multiplications for a query and a key, in all heads."""
    return 2 * o.heads**2 if o.talking_heads else 0


FUSED_HEADS = (16, 32, 64, 128)
"""Features of a head, of keys and values alike, for which GPUs have kernels that change scores and hold none."""
FUSED_FEWEST = 512
"""Fewest queries that are worth the compilation of such a kernel."""


def holds_scores(o: Any, queries: int, inputs: Collection[str]) -> bool:
    """Whether training on a GPU holds all scores, as no fused kernel there has these options. CPUs hold fewer."""
    if not o.flash or o.dropout > 0 or "scores" in inputs:
        return True
    if o.sparse_topk is not None or o.sigmoid or o.cog_signed or o.talking_heads:
        return True
    fused = o.dim_head == o.value_dim_head and o.dim_head in FUSED_HEADS and not o.l2_distance
    return bool((o.softcap is not None or o.sink or o.add_zero_kv) and not (fused and queries >= FUSED_FEWEST))


def scores_saved(o: Any, keys: int) -> float:
    """Numbers saved of a query and a head where scores are held: the weights, and what modifiers read of scores."""
    modified = (o.softcap is not None) + 2 * (o.dropout > 0) + 3 * bool(o.talking_heads)
    modified += (o.sparse_topk is not None) + 2 * o.sparse_topk_straight_through + 3.25 * o.cog_signed
    chosen = 0 if o.sparse_topk is None else 2 * min(o.sparse_topk, keys)  # which, as int64
    return float((keys + o.num_mem_kv) * (1 + modified) + chosen)


def score_words(o: Any) -> list[str]:
    """What a drawing says beside the softmax."""
    return [
        *([f"top {o.sparse_topk}"] if o.sparse_topk is not None else []),
        *(["straight through"] if o.sparse_topk_straight_through else []),
        *(["signed"] if o.cog_signed else []),
        *(["sink"] if o.sink else []),
        *(["zero key"] if o.add_zero_kv else []),
        *(["forget gate"] if getattr(o, "forget_gate", False) else []),
        *([f"softcap {o.softcap:g}"] if o.softcap is not None else []),
    ]
