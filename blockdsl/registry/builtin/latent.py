"""Latent attention (MLA, DeepSeek-V2, arXiv:2405.04434) as options of self-attention: what clashes, what it costs.

A token's keys and values are made of one latent vector, beside a key that all heads share and that alone is rotated. A
cache keeps these two; queries may be made of a latent vector, too. `xt_blocks.blocks.latent` computes it.
"""

from __future__ import annotations

from typing import Any

from ..options import Option
from ..rotary import half
from ..split import Cut
from ..state import State
from .words import biased

EPS = 1e-6
"""What the norms of latents add to the mean square, in every model there is."""

LATENT_OPTIONS = (
    Option(
        "kv_rank",
        int,
        None,
        "features of a latent vector that a token's keys and values are made of, and that a cache keeps in their place "
        "(MLA, arXiv:2405.04434); none: keys and values are of the token itself",
        setting="attn_kv_rank",
        least=1,
        optional=True,
    ),
    Option(
        "q_rank",
        int,
        None,
        "features of a latent vector that queries are made of, with kv_rank; none: they are of the token itself",
        setting="attn_q_rank",
        least=1,
        optional=True,
    ),
    Option(
        "shared_key_dim",
        int,
        None,
        "how many of dim_head features have a key that all heads share, the only one that is rotated, with kv_rank; "
        "none: half the head",
        setting="attn_shared_key_dim",
        least=0,
        optional=True,
    ),
)

# Options that latent attention has no place for → why.
_REFUSED = {
    "one_kv_head": "all heads read the same latents already",
    "shared_kv": "values are made of latents beside the keys",
    "num_mem_kv": "memory key-values have no latents",
    "qk_norm": "latents are normed instead, and a cache keeps no keys to norm",
    "qk_rmsnorm": "latents are normed instead, and a cache keeps no keys to norm",
    "k_rmsnorm": "latents are normed instead, and a cache keeps no keys to norm",
    "qk_layernorm": "latents are normed instead, and a cache keeps no keys to norm",
    "kv": "keys and values are made of latents, which are a block's own",
    "values": "values are made of latents, and a cache keeps none to mix",
    "value_rmsnorm": "latents are normed instead, and a cache keeps no values to norm",
    "l2_distance": "a cache keeps no keys to measure a distance to",
    "laser": "values are made of weighted sums of latents",
}


def latent_check(o: Any, dim_head: int) -> str | None:
    if o.kv_rank is None:
        lone = next((name for name in ("q_rank", "shared_key_dim") if getattr(o, name) is not None), None)
        return None if lone is None else f"{lone}={getattr(o, lone)} is set, but it needs kv_rank"
    for name, why in _REFUSED.items():
        if getattr(o, name):
            return f"{name} is set beside kv_rank={o.kv_rank}, but {why}"
    if o.kv_heads not in (None, o.heads):
        return f"kv_heads={o.kv_heads} is set beside kv_rank={o.kv_rank}, but {_REFUSED['one_kv_head']}"
    if not o.k_bias:
        return f"k_bias is false beside kv_rank={o.kv_rank}, but keys and values are made of latents together"
    if shared_key_dim(o, dim_head) >= dim_head:
        return f"shared_key_dim={shared_key_dim(o, dim_head)} leaves none of dim_head={dim_head} to the latents"
    return None


def shared_key_dim(o: Any, dim_head: int) -> int:
    """With kv_rank: an even half of the head unless it is said."""
    return half(dim_head) if o.shared_key_dim is None else int(o.shared_key_dim)


def made_of_token(o: Any) -> tuple[int, int, int]:
    """Features that one linear layer makes of a token: queries or their latents, latents of keys and values, a key."""
    return o.q_rank or o.heads * o.dim_head, o.kv_rank, o.shared_key_dim


def made_of_latents(o: Any) -> int:
    """Features of keys and values that are made of latents, of all heads."""
    return int(o.heads * (o.dim_head - o.shared_key_dim + o.value_dim_head))


def latent_shapes(o: Any) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"to_qkv.weight": (sum(made_of_token(o)), o.dim_in)}
    if o.qkv_bias:
        shapes["to_qkv.bias"] = (sum(made_of_token(o)),)
    if o.q_rank:
        shapes |= {"latent.q_norm.weight": (o.q_rank,), "latent.to_q.weight": (o.heads * o.dim_head, o.q_rank)}
    return shapes | {"latent.kv_norm.weight": (o.kv_rank,), "latent.to_kv.weight": (made_of_latents(o), o.kv_rank)}


def latent_cuts(o: Any, ranks: int) -> dict[str, Cut]:
    """Of what makes queries, keys and values by head; latents and the shared key are whole on every rank."""
    made = Cut(0, made_of_token(o), (ranks if o.q_rank else 1, ranks, ranks))
    return {"to_qkv.weight": made, "to_qkv.bias": made, "latent.to_q.weight": Cut(), "latent.to_kv.weight": Cut()}


def latent_products(o: Any) -> int:
    """Multiply-adds that make a token's queries, keys and values."""
    queries = o.q_rank * o.heads * o.dim_head if o.q_rank else 0
    return int(sum(made_of_token(o)) * o.dim_in + queries + o.kv_rank * made_of_latents(o))


def latent_saved(o: Any) -> int:
    """Numbers of a token that are saved of what makes queries, keys and values: each product's input and result."""
    return int(sum(made_of_token(o)) + o.kv_rank + (o.q_rank or 0) + made_of_latents(o) + 2 * o.heads * o.dim_head)


def latent_state(o: Any) -> dict[str, State]:
    """A token's latent vector and the key that heads share, one after the other."""
    return {"latents": State((o.kv_rank + o.shared_key_dim,), "token", o.max_attend_past)}


def latent_steps(o: Any) -> list[tuple[str, str]]:
    queries, *rest = made_of_token(o)
    made = f"latents {queries:,} + {rest[0]:,}" if o.q_rank else f"q {queries:,}, latents {rest[0]:,}"
    made += f", key {rest[1]:,}" if rest[1] else ""
    steps = [(f"{o.dim_in:,} → {made}{biased(o.qkv_bias)}", ""), ("RMSNorm of latents", "")]
    steps += [(f"q {o.q_rank:,} → {o.heads * o.dim_head:,}", "")] if o.q_rank else []
    return [*steps, (f"k, v {o.kv_rank:,} → {made_of_latents(o):,}", "")]
