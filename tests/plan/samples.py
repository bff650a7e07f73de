"""A small model for each option of the tables, which a test measures; a new option has one by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from blockdsl import kinds
from blockdsl.reference import needs, telling
from blockdsl.registry.activations import ACTIVATIONS
from blockdsl.registry.kinds import BLOCK_OPTIONS
from blockdsl.registry.options import Option, Value, spell
from blockdsl.registry.rotary import NEEDED_BY_SCALING
from blockdsl.registry.settings import table
from blockdsl.registry.tokens import MODELS

from ..built_in import BUILT_IN, SMALL

TOKENS = 128
MANY_TOKENS = 512
"""From which on kernels that change scores hold none, if they can."""
SIZES: dict[str, Any] = {"dim": 32, "heads": 4, "attn_dim_head": 16, "causal": True}
OVER_TOKENS: dict[str, Any] = {"num_tokens": 50, "max_seq_len": TOKENS}
OVER_VECTORS: dict[str, Any] = {"dim_in": 7, "max_seq_len": TOKENS}
OVER_IMAGES: dict[str, Any] = {"image_size": (32, 64), "patch_size": 4, "causal": False}

# Values that fit these sizes and say something there, where the example of the reference does not.
VALUES: dict[str, tuple[Value, ...]] = {
    "dim": (48,),
    "heads": (2,),
    "dim_head": (8, None),
    "kv_heads": (2, 1),
    "value_dim_head": (24, 6),
    "kv_rank": (12,),
    "q_rank": (20,),
    "shared_key_dim": (2, 0),
    "inner": (72,),
    "mult": (2,),
    "emb_dim": (16,),
    "num_tokens": (60,),
    "max_seq_len": (256,),
    "dim_context": (48,),
    "num_mem_kv": (16,),
    "num_memory_tokens": (16,),
    "num_register_tokens": (16,),
    "num_cls_tokens": (16,),
    "num_pooled_tokens": (16,),
    "max_mem_len": (64,),
    "sparse_topk": (8,),
    "alibi_num_heads": (2,),
    "rotary_emb_dim": (4,),
    "num_residual_streams": (2, 4),
    "max_attend_past": (16,),
    "max_attend_future": (16,),
    "shift_tokens": (1, 2),
    "dim_condition": (24,),
    "image_size": ((64, 64),),
    "patch_size": (8,),
    "value_embed": (0,),
    "experts": (6,),
    "top": (1, 3),
    "expand": (1,),
    "in_scales": ((1, 2, 1, 0.5, 1),),
    "chunk": (16,),
    "lower_bound": (0.2,),
    "dt_rank": (4,),
    "layer_dropout": (0.5,),
    "state": (6,),
    "context": (True,),
    "group_best": (1,),
}

# Setting → others that it goes with, where those of the reference do not fit these models.
WITH: dict[str, dict[str, Value]] = {
    "attn_max_attend_future": {"causal": False},
    "bidirectional": {"causal": False},
    "attn_value_embed": OVER_TOKENS,
    "moe_groups": {"moe_experts": 4},
    "moe_top_groups": {"moe_experts": 4, "moe_groups": 2, "moe_top": 1},
    "moe_group_best": {"moe_experts": 4, "moe_groups": 2, "moe_top": 1},
    "moe_mult": {"moe_inner": None},
    "attn_q_rank": {"attn_kv_rank": 12},
    "attn_shared_key_dim": {"attn_kv_rank": 12},
    "pool": {"causal": False},
    "num_cls_tokens": {"causal": False},
    "hyper_conn_mix": {"num_residual_streams": 2},
    "hyper_conn_sinkhorn_iters": {"num_residual_streams": 2},
    "attn_low_rank_silu_gates": {"attn_gate_values": True, "attn_gate_values_rank": 16},
}

# Setting → the pattern that shows it, where it is not of blocks of one kind.
TEXTS = {
    "context": "(a c f)*2",
    "shared_norm": "(a & f)*2",
    "bidirectional": "(conv f)*2",
    "residual_attn": "(a f)*3",
    "cross_residual_attn": "(c f)*3",
}


class Sample(NamedTuple):
    """A pattern with settings; `option` is what it shows, as a test names it, in rows of so many tokens."""

    option: str
    text: str
    settings: dict[str, Any]
    tokens: int = TOKENS


def every_option() -> Iterator[Sample]:
    """Of every setting, and of every option that blocks alone have."""
    own = {option.setting for name in BUILT_IN for option in kinds()[name].all_options()}
    of_others = {option.setting for kind in kinds().values() for option in kind.all_options()} - own  # of tests' kinds
    for name, option in table().items():
        if name not in of_others:
            yield from (_of_setting(name, option, value) for value in _values(option))
    for kind in BUILT_IN:
        for option in kinds()[kind].written_options():
            if option.setting is None:
                yield from _of_block(kind, option)


def _values(option: Option) -> tuple[Value, ...]:
    """All names that it may have; other than its default."""
    if option.name in VALUES:
        return tuple(value for value in VALUES[option.name] if value != option.default and option.fault(value) is None)
    choices: tuple[Value, ...] = option.choices or ((True, False) if option.type is bool else (telling(option),))
    if option.choices == (*ACTIVATIONS,) and option.setting != "ff_activation":
        choices = choices[-2:]  # one setting shows all of them
    return tuple(value for value in choices if value != option.default)


def _of_setting(name: str, option: Option, value: Value) -> Sample:
    sizes = {**OVER_TOKENS, **OVER_VECTORS, **OVER_IMAGES}
    needed = _scaled(str(value)) if name == "rotary_scaling" else needs(name, option.area)
    beside = {n: v for n, v in needed.items() if n not in sizes}
    settings = SIZES | _around(option, value) | beside | WITH.get(name, {}) | {name: value}
    tokens = MANY_TOKENS if option.scores else TOKENS
    return Sample(f"{name}={value}", TEXTS.get(name, _text(name, option)), settings, tokens)


def _scaled(scaling: str) -> dict[str, Any]:
    """What this scaling of rotary positions needs."""
    known = {"rotary_factor": 4, "rotary_original_len": 64}
    known |= {"rotary_short_factors": (1, 2), "rotary_long_factors": (2, 4)}
    features = {"rotary_emb_dim": 4} if scaling == "longrope" else {}
    return {"rotary_pos_emb": True, **features, **{name: known[name] for name in NEEDED_BY_SCALING[scaling]}}


def _around(option: Option, value: Value) -> dict[str, Any]:
    """What the model reads that has this option."""
    named = {reads: {one.name for one in options} for reads, options in MODELS.items()}
    if option.name in named["tokens"] and value != "first_mean":
        return OVER_TOKENS
    if option.name in named["vectors"]:
        return OVER_VECTORS
    return OVER_IMAGES if option.name in named["images"] else {}


def _text(name: str, option: Option) -> str:
    """Blocks of the first kind that reads a setting, between feedforwards."""
    readers = [kind for kind in BUILT_IN if any(o.setting == name for o in kinds()[kind].options)]
    if option in BLOCK_OPTIONS or not readers or len(readers) > 3:
        return "(a f)*2"
    said = {n: v for n, v in SMALL.get(readers[0], {}).items() if n != option.name}
    said = {n: v for n, v in said.items() if not (name in WITH and _setting(readers[0], n) in WITH[name])}
    return "f*3" if readers[0] == "f" else f"({_written(readers[0], said)} f)*2"


def _setting(kind: str, option: str) -> str | None:
    return next(o.setting for o in kinds()[kind].options if o.name == option)


def _of_block(kind: str, option: Option) -> Iterator[Sample]:
    if option.reads:
        giver = kind if option.reads in kinds()[kind].gives else "a"
        text = (
            f"{_written(giver, SMALL.get(giver, {}))} ^u f {_written(kind, SMALL.get(kind, {}) | {option.name: 'u'})} f"
        )
        yield Sample(f"{kind}({option.name})", text, SIZES)
        return
    for value in _values(option):
        if option.name == "value_mix":
            text = f"a ^u f a(values=u, value_mix={value}) f"
        else:
            text = f"({_written(kind, SMALL.get(kind, {}) | {option.name: value})} f)*2"
        yield Sample(f"{kind}({option.name}={value})", text, SIZES)


def _written(kind: str, said: dict[str, Any]) -> str:
    return f"{kind}({', '.join(f'{name}={spell(value)}' for name, value in said.items())})" if said else kind


TOGETHER = (
    Sample("values by a label", "a ^u f <u(pop, cat) f", SIZES),
    Sample("a gate", "^u a f <u(gate) f", SIZES),
    Sample("a gain", "^u a f <u(gain) f", SIZES),
    Sample("a linear layer", "^u a f <u(linear) f", SIZES),
    Sample("a mean", "^u a ^u f <u(all, soft) f", SIZES),
    Sample("a mean by token", "^u a ^u f <u(all, route) f", SIZES),
    Sample("shifts and scales", "(a>>2 f>>1/2)*2", SIZES),
    Sample("parallel branches", "(a & f)*2", SIZES),
    Sample("ties", "(a@x f@y)*3", SIZES),
    Sample(
        "shared heads, normed and rotated",
        "(a f)*2",
        SIZES | {"rotary_pos_emb": True, "attn_kv_heads": 2, "attn_qk_rmsnorm": "head"},
    ),
    Sample("distances of rotated queries", "(a f)*2", SIZES | {"rotary_pos_emb": True, "attn_l2_distance": True}),
    Sample(
        "laser in gated heads",
        "(a f)*2",
        SIZES | {"attn_laser": True, "attn_gate_values": True, "attn_head_scale": True},
    ),
    Sample("capped scores in hand", "(a f)*2", SIZES | {"attn_softcap": 5.0, "attn_flash": False}),
    Sample("a sink with heads of 24", "(a f)*2", SIZES | {"attn_sink": True, "attn_dim_head": 24}, MANY_TOKENS),
    Sample(
        "memory key-values, shared and normed",
        "(a f)*2",
        SIZES | {"attn_num_mem_kv": 16, "attn_kv_heads": 2, "attn_qk_norm": True},
    ),
    Sample("several streams, normed after", "(a f)*2", SIZES | {"num_residual_streams": 2, "sandwich_norm": True}),
    Sample(
        "an encoder and a decoder",
        "(a f)*2 => (a c f)*2",
        {n: v for n, v in SIZES.items() if n != "causal"} | OVER_TOKENS,
    ),
    Sample("classes of images", "(a f)*2", SIZES | OVER_IMAGES | {"num_classes": 10}),
)
"""What options do not show, and some that meet in one formula."""
