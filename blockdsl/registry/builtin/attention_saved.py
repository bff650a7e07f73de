"""What attention saves for the backward pass: queries, keys, values, their weighted sum, and scores in hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .gates import gate_saved
from .latent import latent_saved
from .multihead import kv_features


def attention_saved(o: Any, queries: float, keys: float, inputs: Collection[str], joint: bool = True) -> float:
    """Numbers saved of queries, keys, values and their weighted sum, for so many tokens of each, without the scores.

    What is computed of the projections, as rotated queries, stands beside them or, where nothing else is read of them,
    in their place; keys and values are repeated for the heads that share them.

    Args:
        joint: one linear layer makes queries, keys and values.
    """
    latent, normed = getattr(o, "kv_rank", None) is not None, bool(o.qk_norm or o.qk_rmsnorm or o.qk_layernorm)
    changed, explicit = normed or "rotary" in inputs, holds_scores(o)
    repeated = o.heads != o.kv_heads and not explicit
    new_q, new_k, new_v = (each or explicit for each in (changed or latent, changed or repeated, repeated))
    out = queries * o.heads * (o.value_dim_head * (2 if new_q and not explicit else 1) + (not explicit))
    out += queries * gate_saved(o) + (queries * o.heads + keys * o.kv_heads) * normed
    if latent:
        return queries * latent_saved(o) + out
    heads = o.heads if repeated else o.kv_heads
    own_keys = not getattr(o, "kv", False)
    made = queries * o.heads * o.dim_head * new_q
    made += keys * heads * (o.dim_head * new_k + o.value_dim_head * new_v) * (own_keys or repeated)
    kept_q, kept_kv = normed or not new_q, own_keys and (normed or not (new_k and new_v))
    if joint:
        kept_q = kept_kv = kept_q or kept_kv
    return out + made + queries * o.heads * o.dim_head * kept_q + keys * kv_features(o) * kept_kv


def holds_scores(o: Any) -> bool:
    """Whether all scores are in hand: no kernel that leaves them out drops weights or mixes heads."""
    return not o.flash or o.dropout > 0 or bool(o.talking_heads)


def scores_saved(o: Any, batch: int, queries: int, keys: int) -> float:
    """Of scores, which kernels that hold them save: the weights, and what modifiers read."""
    modified = (o.softcap is not None) + 2 * (o.dropout > 0) + 3 * bool(o.talking_heads)
    return batch * o.heads * queries * (keys + o.num_mem_kv) * (1 + modified) if holds_scores(o) else 0
