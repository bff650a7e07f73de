"""What attention saves for the backward pass: queries, keys, values, their weighted sum, and scores in hand.

Numbers of one row. What is computed of the projections, as rotated queries, stands beside them or, where nothing else
is read of them, in their place.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from ..lora import lora_saved
from .gates import gate_saved
from .latent import latent_saved
from .multihead import kv_features
from .scores import holds_scores, scores_saved


class _Made(NamedTuple):
    """Saved of queries, keys or values on the way from the projection to the attention.

    Attributes:
        numbers: of new tensors.
        raw: what the projection made is saved, too.
    """

    numbers: float
    raw: bool


def attention_saved(o: Any, queries: int, keys: int, inputs: Collection[str], joint: bool = True) -> float:
    """Numbers saved of a row, for so many queries and tokens whose keys and values are read.

    Args:
        inputs: those that a block has, and what it gives to others.
        joint: one linear layer makes queries, keys and values.
    """
    explicit = holds_scores(o, queries, inputs)
    scores = queries * o.heads * scores_saved(o, keys) if explicit else queries * o.heads  # a number of each query
    out = scores + queries * (_sum_saved(o, inputs, explicit) + gate_saved(o))
    if getattr(o, "kv_rank", None) is not None:
        return out + queries * latent_saved(o)
    q, own = _queries(o, queries, inputs, explicit), not getattr(o, "kv", False)
    k, v = (made(o, keys, inputs, explicit, own) for made in (_keys, _values))
    raw_q, raw_kv = q.raw, own and (k.raw or v.raw)
    if joint:
        raw_q = raw_kv = raw_q or raw_kv
    out += q.numbers + k.numbers + v.numbers
    out += queries * lora_saved(o, (1, own, own and not o.shared_kv)) if joint else 0
    return out + queries * o.heads * o.dim_head * raw_q + keys * kv_features(o) * raw_kv


def _queries(o: Any, queries: int, inputs: Collection[str], explicit: bool) -> _Made:
    normed = bool(o.qk_norm or o.qk_rmsnorm or o.qk_layernorm)
    placed = normed or "rotary" in inputs
    numbers = _norm_saved(o, o.heads) if normed else 0
    if placed or explicit or _further(o):
        numbers += o.heads * (o.dim_head + _further(o))
    if o.l2_distance and placed:  # their squares
        numbers += o.heads * o.dim_head
    return _Made(queries * numbers, normed or not (placed or explicit or _further(o)) or (o.l2_distance and not placed))


def _keys(o: Any, keys: int, inputs: Collection[str], explicit: bool, own: bool) -> _Made:
    normed = own and bool(o.qk_norm or o.qk_rmsnorm or o.qk_layernorm or o.k_rmsnorm)
    placed = own and bool(normed or "rotary" in inputs or o.num_mem_kv)
    spread = _spread(o, explicit)
    all_keys = keys + o.num_mem_kv
    numbers = keys * _norm_saved(o, o.kv_heads, k_alone=bool(o.k_rmsnorm)) if normed else 0
    if spread or (own and (placed or explicit or _further(o))):
        numbers += all_keys * (o.heads if spread else o.kv_heads) * (o.dim_head + _further(o))
    if o.l2_distance and placed:
        numbers += all_keys * o.kv_heads * o.dim_head
    changed = placed or explicit or spread or _further(o)
    return _Made(numbers, normed or not changed or (o.l2_distance and not placed))


def _values(o: Any, keys: int, inputs: Collection[str], explicit: bool, own: bool) -> _Made:
    spread, all_keys = _spread(o, explicit), keys + o.num_mem_kv
    joined = getattr(o, "values", False) or getattr(o, "value_embed", None) is not None
    mix = getattr(o, "value_mix", "half")
    placed = own and bool(o.value_rmsnorm or joined or o.num_mem_kv)
    features, numbers = o.kv_heads * o.value_dim_head, 0
    if o.value_rmsnorm and own:
        numbers += keys * (features + o.kv_heads)
    if joined and mix == "learned":  # the difference of both, and shares
        numbers += keys * (features + o.kv_heads)
    if o.laser:  # the bounded values, and their exponentials, which may be repeated
        numbers += all_keys * features * (1 + spread)
    if spread or (own and (placed or explicit)) or o.laser:
        numbers += all_keys * (o.heads if spread else o.kv_heads) * o.value_dim_head
    changed = placed or explicit or spread or o.laser
    return _Made(numbers, (own and bool(o.value_rmsnorm)) or not changed or (joined and mix == "gains"))


def _further(o: Any) -> int:
    """Features of queries and keys that stand for distances and forget gates."""
    return 2 * o.l2_distance + (1 + o.heads // o.kv_heads) * getattr(o, "forget_gate", False)


def _spread(o: Any, explicit: bool) -> bool:
    """Whether keys and values are repeated for the heads that share them; those of one head are read as they are."""
    return 1 < o.kv_heads < o.heads and not explicit


def _norm_saved(o: Any, heads: int, k_alone: bool = False) -> int:
    """Of a token's queries or keys, beside them and what is made of them: statistics, and what a gain multiplies."""
    if o.qk_norm:
        return int(2 * o.qk_norm_groups * heads + heads * o.dim_head * o.qk_norm_dim_scale)
    which = "each" if k_alone else o.qk_rmsnorm or o.qk_layernorm
    statistics = (2 if o.qk_layernorm else 1) * (1 if which == "all" else heads)
    return int(statistics + heads * o.dim_head * (which == "each"))


def _sum_saved(o: Any, inputs: Collection[str], explicit: bool) -> int:
    """Of a query: the weighted sums of all heads, and what is made of them up to the last linear layer, which reads
    them head beside head: where they lie in memory head after head, they are copied."""
    features, by_head = o.heads * o.value_dim_head, 0
    by_gain = o.qk_rmsnorm in ("head", "each") or o.qk_layernorm or getattr(o, "kv_rank", None) is not None
    apart = explicit or "rotary" in inputs or by_gain or _further(o)
    held, tensors = not explicit, int(not explicit)
    if not explicit and (o.sink or o.add_zero_kv):  # times a share of each query
        held, by_head = False, o.heads
    if o.laser:  # what the logarithm reads
        held, tensors = False, tensors + 1
    if o.tensor_product:
        spread = o.heads if o.kv_heads > 1 else 1
        by_head += spread * o.value_dim_head
        tensors, held = tensors + (not held), False
    if o.head_scale:
        tensors, held = tensors + (not held), False
    tensors += not held or bool(apart)
    gates = 2 * o.heads * getattr(o, "forget_gate", False)  # their logits, and what logsigmoid keeps of them
    return int(tensors * features + by_head + 2 * o.dim * o.on_attn + gates)
