"""Self-attention `a`: what it has beside what is cross-attention's too (`multihead`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ..kinds import CONCAT, Kind, Shape, Sizes
from ..lora import lora_products, lora_rank, lora_shapes, lora_step
from ..options import Option, Value
from ..split import Cut, Split, shared_by
from ..state import State
from .attention_saved import attention_saved
from .latent import (
    LATENT_OPTIONS,
    latent_check,
    latent_cuts,
    latent_products,
    latent_shapes,
    latent_state,
    latent_steps,
    shared_key_dim,
)
from .multihead import (
    ATTENTION_WORDS,
    attention_check,
    attention_derived,
    attention_flops,
    attention_options,
    attention_shapes,
    attention_split,
    attention_state,
    attention_steps,
    attention_summary,
    dim_head,
    kv_features,
    projection_cuts,
    projection_shapes,
    qkv_step,
    value_sizes,
)
from .switch import switch

# Options that forget_gate has no place beside → why.
_NO_GATES = {
    "kv_rank": "a cache keeps latents, which all heads share",
    "kv": "the keys of another block have no gates",
    "l2_distance": "a distance would count the gates' features",
    "softcap": "gates would be capped too",
    "talking_heads": "heads would exchange their gates",
    "residual_attn": "a later block would forget twice",
}


# Options that value_embed has no place beside → why.
_NO_EMBED = {
    "kv": "the values of another block are as they are",
    "values": "a block mixes its values with those of one other place",
    "kv_rank": "values are made of latents",
}


def _self_attention_check(o: Any) -> str | None:
    if o.causal and o.max_attend_future is not None:
        return f"max_attend_future={o.max_attend_future} is set, but a causal block attends to no later token"
    if o.dim_head is None and o.dim % o.heads:
        return attention_check(o)
    if o.forget_gate and (clash := next((name for name in _NO_GATES if getattr(o, name)), None)):
        return f"forget_gate is set beside {clash}, but {_NO_GATES[clash]}"
    if o.forget_gate and not o.causal:
        return "forget_gate is set, but it needs causal: a token forgets those before it"
    if o.lora_rank is not None and o.kv_rank is not None:
        return f"lora_rank={o.lora_rank} is set beside kv_rank={o.kv_rank}, but latents are a low-rank form already"
    if o.kv and o.values:
        return "kv and values are set, but kv takes the values of its label too"
    if o.value_embed is not None and (beside := next((name for name in _NO_EMBED if getattr(o, name)), None)):
        return f"value_embed={o.value_embed} is set beside {beside}, but {_NO_EMBED[beside]}"
    if o.value_mix != "half" and not o.values and o.value_embed is None:
        return f"value_mix={o.value_mix} is set, but it needs values or value_embed"
    return attention_check(o) or latent_check(o, dim_head(o))


def _self_attention_derived(o: Any) -> dict[str, Value]:
    return attention_derived(o) | {
        "shared_key_dim": None if o.kv_rank is None else shared_key_dim(o, dim_head(o)),
    }


def _self_attention_shapes(o: Any) -> dict[str, Shape]:
    made = projection_shapes("to_qkv", o, queries=True, keys=not o.kv) if o.kv_rank is None else latent_shapes(o)
    if o.forget_gate:
        made |= {"forget_gate.weight": (o.heads, o.dim_in), "forget_gate.bias": (o.heads,)}
    if o.value_mix == "learned":
        made |= {"to_value_mix.weight": (o.kv_heads, o.dim_in), "to_value_mix.bias": (o.kv_heads,)}
    if o.value_mix == "gains":
        made |= {"value_gains": (2,)}
    return made | lora_shapes(o, _made_by_token(o)) | attention_shapes(o)


def _made_by_token(o: Any) -> tuple[int, int, int]:
    """Features of queries, keys and values that one linear layer makes."""
    keys, values = (0, 0) if o.kv else (o.kv_heads * o.dim_head, 0 if o.shared_kv else o.kv_heads * o.value_dim_head)
    return o.heads * o.dim_head, keys, values


def _self_attention_split(o: Any, ranks: int) -> Split | str:
    def made(shared: int) -> dict[str, Cut]:
        cuts = latent_cuts(o, ranks) if o.kv_rank else projection_cuts("to_qkv", o, shared, queries=True, keys=not o.kv)
        parts = tuple(size for size in _made_by_token(o) if size)
        cuts["lora.up_weight"] = Cut(1, parts, (1, shared, shared)[: len(parts)])
        cuts |= dict.fromkeys(("forget_gate.weight", "forget_gate.bias"), Cut())
        return cuts | dict.fromkeys(("to_value_mix.weight", "to_value_mix.bias"), Cut(shared=(shared,)))

    split, shared = attention_split(o, ranks, made), shared_by(o.kv_heads, ranks)
    if o.value_embed is None or isinstance(split, str) or shared is None:
        return split
    return replace(split, table=Cut(1, shared=(shared,)))


def _self_attention_flops(o: Any, batch: int, seq: int) -> int:
    flops = attention_flops(o, batch, seq, seq)
    if o.forget_gate:  # further features: one of the query, and one for each query head that reads a key
        flops += 2 * batch * seq * o.heads * (o.dim_in + (seq + o.num_mem_kv) * (1 + o.heads // o.kv_heads))
    if o.value_mix == "learned":
        flops += 2 * batch * seq * o.dim_in * o.kv_heads
    flops += 2 * batch * seq * lora_products(o, _made_by_token(o)) if o.lora_rank else 0
    if o.kv_rank is None:
        return flops
    full = o.dim_in * (o.heads * o.dim_head + kv_features(o))
    return flops + 2 * batch * seq * (latent_products(o) - full)


def _self_attention_saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    return sizes.batch * (sizes.seq * o.dim_in + attention_saved(o, sizes.seq, sizes.seq, inputs))


def _self_attention_steps(o: Any) -> list[tuple[str, str]]:
    if o.kv_rank is None:
        made = qkv_step(o, "q" if o.kv else "q, k, v", o.heads * o.dim_head + kv_features(o))
        shares = {
            "half": "half of v",
            "learned": f"a share of v for each of {o.kv_heads} heads",
            "gains": "v times a gain",
        }
        mix = [(shares[o.value_mix], "values")] if o.values else []
        if o.value_embed is not None:
            mix = [(f"{shares[o.value_mix]} + value embedding {o.value_embed}", "")]
        return attention_steps(o, (made, ""), *lora_step(o), *mix)
    return attention_steps(o, *latent_steps(o))


def _self_attention_state(o: Any) -> dict[str, State]:
    if o.kv_rank is not None:
        return latent_state(o)
    gates = {"gates": State((o.heads,), "token", o.max_attend_past, "float32")} if o.forget_gate else {}
    return attention_state(o, "token", o.max_attend_past, "kv" if o.kv else "") | gates


def _given_sizes(o: Any) -> dict[str, dict[str, Value]] | str:
    if o.kv_rank is not None:
        return "its keys and values are made of latents"
    values = value_sizes(o, "this sequence's")
    keys: dict[str, Value] = {"features of a key": o.dim_head, "memory key-values": o.num_mem_kv}
    return {"kv": values | keys, "values": values}


SELF_ATTENTION = Kind(
    name="a",
    title="self-attention",
    prefix="attn",
    summary=lambda o: attention_summary(o) + ([] if o.kv_rank is None else [f"latents of {o.kv_rank:,}"]),
    shown=("kv_rank",),
    options=attention_options(
        "residual_attn",
        "previous self-attention",
        Option("causal", bool, False, "each token attends to itself and those before it", setting="causal"),
        Option(
            "max_attend_past",
            int,
            None,
            "how many tokens back a token attends; none: all",
            setting="attn_max_attend_past",
            least=0,
            optional=True,
        ),
        Option(
            "max_attend_future",
            int,
            None,
            "how many tokens ahead a token attends in a block that is not causal (ModernBERT, arXiv:2412.13663); "
            "none: all",
            setting="attn_max_attend_future",
            least=0,
            optional=True,
        ),
        switch(
            "forget_gate",
            "scores fall by a learned gate of each token in between: forgetting attention (FoX, arXiv:2503.02130)",
        ),
        *LATENT_OPTIONS,
        lora_rank("attn", "queries, keys and values"),
        Option(
            CONCAT,
            bool,
            False,
            "a label: the block reads the stream and beside it what it was there, concatenated before the norm (Zamba, "
            "arXiv:2405.16712)",
            reads=CONCAT,
        ),
        Option(
            "kv",
            bool,
            False,
            "a label after a self-attention, whose keys and values this block attends to; it has none of its own "
            "(YOCO, arXiv:2405.05254)",
            reads="kv",
        ),
        Option(
            "values",
            bool,
            False,
            "a label after a self-attention: a mean of its values and this block's is attended to (ResFormer, "
            "arXiv:2410.17897)",
            reads="values",
        ),
        Option(
            "value_mix",
            str,
            "half",
            "how its values join others: half of each; learned shares, as a linear layer makes them of each "
            "token by head; or gains, one learned number for each of both, at first a half",
            choices=("half", "learned", "gains"),
        ),
        Option(
            "value_embed",
            int,
            None,
            "a table of token embeddings that join its values, by number: blocks with one number share it "
            "(value embeddings of modded-nanogpt, after arXiv:2410.17897); none: no table",
            setting="attn_value_embed",
            least=0,
            optional=True,
        ),
    ),
    inputs=("attend", "rotary", "bias", "scores", "memory", "cache", "value_embed"),
    shapes=_self_attention_shapes,
    flops=lambda o, sizes: _self_attention_flops(o, sizes.batch, sizes.seq),
    saved=_self_attention_saved,
    state=_self_attention_state,
    gives=("scores", "kv", "values"),
    given_sizes=_given_sizes,
    module="xt_blocks.blocks.attention:Attention",
    check=_self_attention_check,
    derive=_self_attention_derived,
    split=_self_attention_split,
    steps=_self_attention_steps,
    also=("attn", "attention", "self_attention", "selfattention", "sa", "mha"),
    area="attention",
    words=ATTENTION_WORDS
    | {
        "forget_gate": "forgetting attention",
        "q_rank": "query latents of {}",
        "shared_key_dim": "{} rotary features of one shared key",
        "lora_rank": "LoRA of rank {} of q, k, v",
        "value_mix": {"learned": "learned mix of values", "gains": "gains of both values"},
        "value_embed": "value embedding {}",
    },
    builtin=True,
)
