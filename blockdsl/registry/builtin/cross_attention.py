"""Cross-attention `c`: keys and values are those of a context, projected once and kept while decoding."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..kinds import Kind, Sizes
from ..options import Option, Value
from ..split import Cut, Split
from .attention_saved import attention_saved
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
    kv_features,
    projection_cuts,
    projection_shapes,
    qkv_step,
    value_sizes,
)


def _check(o: Any) -> str | None:
    if o.context and o.tokens_dropout:
        return (
            f"tokens_dropout={o.tokens_dropout} hides tokens of another sequence, and context reads those of this one"
        )
    if o.context and o.dim_context not in (None, o.dim):
        return f"dim_context={o.dim_context} is of another sequence, and context reads the stream of this one"
    return attention_check(o)


def _derived(o: Any) -> dict[str, Value]:
    return attention_derived(o) | {"dim_context": o.dim if o.dim_context is None else o.dim_context}


def _saved(o: Any, sizes: Sizes, inputs: Collection[str]) -> float:
    context = sizes.seq if o.context else sizes.context
    return sizes.batch * (sizes.seq * o.dim_in + attention_saved(o, sizes.seq, context, inputs, joint=False))


def _split(o: Any, ranks: int) -> Split | str:
    def made(shared: int) -> dict[str, Cut]:
        queries = projection_cuts("to_q", o, shared, queries=True, keys=False)
        return queries | projection_cuts("to_kv", o, shared, queries=False, keys=True)

    return attention_split(o, ranks, made)


CROSS_ATTENTION = Kind(
    name="c",
    title="cross-attention",
    prefix="attn",
    options=attention_options(
        "cross_residual_attn",
        "previous cross-attention",
        Option(
            "dim_context",
            int,
            None,
            "features of the context; none: those of the stream",
            setting="cross_attn_dim_context",
            least=1,
            optional=True,
        ),
        Option(
            "rotary",
            bool,
            False,
            "rotary positions of queries and of the context's keys (arXiv:2104.09864)",
            setting="cross_attn_rotary",
            area="positions",
        ),
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
        Option(
            "values",
            bool,
            False,
            "a label after a cross-attention: half of its values and half of this block's are attended to "
            "(arXiv:2410.17897)",
            reads="values",
        ),
    ),
    inputs=("attend", "context", "rotary", "context_rotary", "scores", "cache"),
    shapes=lambda o: (
        projection_shapes("to_q", o, queries=True, keys=False)
        | projection_shapes("to_kv", o, queries=False, keys=True, dim=o.dim_context)
        | attention_shapes(o)
    ),
    flops=lambda o, sizes: attention_flops(
        o, sizes.batch, sizes.seq, sizes.seq if o.context else sizes.context, o.dim_context
    ),
    saved=_saved,
    state=lambda o: attention_state(o, "token" if o.context else "context"),
    module="xt_blocks.blocks.attention:CrossAttention",
    check=_check,
    derive=_derived,
    split=_split,
    steps=lambda o: attention_steps(
        o,
        (qkv_step(o, "q", o.heads * o.dim_head), ""),
        *([(f"dropout {o.tokens_dropout:g} of the context", "")] if o.tokens_dropout else []),
        (qkv_step(o, "k, v", kv_features(o), o.dim_context), "context"),
        *([("half of v", "values")] if o.values else []),
    ),
    summary=attention_summary,
    gives=("scores", "values"),
    given_sizes=lambda o: {"values": value_sizes(o, "this sequence's" if o.context else "the context's")},
    also=("cross", "cross_attention", "crossattention", "xattn", "ca"),
    area="attention",
    words=ATTENTION_WORDS
    | {
        "dim_context": "context of {} features",
        "rotary": "rotary cross-attention",
        "tokens_dropout": "context token dropout {}",
        "residual_attn": "RealFormer residual cross-attention",
    },
    builtin=True,
)
