"""Cross-attention `c`: keys and values are those of a context, projected once and kept while decoding."""

from __future__ import annotations

from typing import Any

from ..kinds import Kind
from ..options import Option
from .attention import (
    attention_check,
    attention_derived,
    attention_flops,
    attention_options,
    attention_shapes,
    attention_state,
    attention_steps,
    kv_features,
    projection_shapes,
    qkv_step,
)


def _check(o: Any) -> str | None:
    if o.context and o.tokens_dropout:
        return (
            f"tokens_dropout={o.tokens_dropout} hides tokens of another sequence, and context reads those of this one"
        )
    return attention_check(o)


CROSS_ATTENTION = Kind(
    name="c",
    title="cross-attention",
    prefix="attn",
    options=attention_options(
        "cross_residual_attn",
        "previous cross-attention",
        Option(
            "tokens_dropout",
            float,
            0.0,
            "share of the context's tokens that are hidden from each row in training (arXiv:2202.07765)",
            setting="cross_attn_tokens_dropout",
            least=0,
            below=1,
            area="regularisers",
        ),
        Option(
            "context",
            bool,
            False,
            "a label: the stream there is attended to, token by token as self-attention does, and no other sequence",
            reads="context",
        ),
    ),
    inputs=("attend", "context", "scores", "cache"),
    shapes=lambda o: (
        projection_shapes("to_q", o, queries=True, keys=False)
        | projection_shapes("to_kv", o, queries=False, keys=True)
        | attention_shapes(o)
    ),
    flops=lambda o, sizes: attention_flops(o, sizes.batch, sizes.seq, sizes.seq if o.context else sizes.context),
    state=lambda o: attention_state(o, "token" if o.context else "context"),
    module="xt_blocks.blocks.attention:CrossAttention",
    check=_check,
    derive=attention_derived,
    steps=lambda o: attention_steps(
        o,
        (qkv_step(o, "q", o.heads * o.dim_head), ""),
        (qkv_step(o, "k, v", kv_features(o)), "context"),
    ),
    gives=("scores",),
    also=("cross", "cross_attention", "crossattention", "xattn", "ca"),
    area="attention",
    builtin=True,
)
