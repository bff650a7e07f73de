"""Random patterns, written by this file's own rules beside the list of blocks that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Model:
    """A pattern's text, the kind of each of its blocks left to right, and settings that fit it."""

    text: str
    blocks: tuple[str, ...]
    settings: dict[str, Any]


# Every block with a label has the same text but for its shift and scale, so that no tie is between unlike blocks.
_TIED = {"t": "a", "u": "f(mult=2, glu)", "v": "f"}
_OPTIONS = {
    "a": ("causal", "qkv_bias", "out_bias", "qk_scale=0.5", "dim_head=6", "pre_norm=false", "layer_dropout=0.1"),
    "c": ("dim_head=2", "qkv_bias", "norm_eps=0.1"),
    "f": ("mult=3", "glu", "activation=relu", "swish", "no_bias", "relu_squared", "pre_norm=false"),
}
_MOST = 40  # blocks


@st.composite
def _block(draw: st.DrawFn, kinds: str, heads: bool, inside_tie: bool = False) -> tuple[str, tuple[str, ...]]:
    suffix = draw(st.sampled_from(["", "", ">>1", ">>2"])) + draw(st.sampled_from(["", "", "/2", "/1.5"]))
    if not inside_tie and draw(st.integers(0, 4)) == 0:
        label = draw(st.sampled_from([label for label, text in _TIED.items() if text[0] in kinds]))
        return f"{_TIED[label]}{suffix}@{label}", (_TIED[label][0],)
    kind = draw(st.sampled_from(kinds))
    known = _OPTIONS[kind] + (("heads=1",) if heads and kind != "f" else ())
    options = draw(st.lists(st.sampled_from(known), max_size=2, unique=True))
    activations = [option for option in options if option.startswith(("swish", "relu_squared", "activation"))]
    options = [option for option in options if option not in activations[1:]]
    return kind + (f"({', '.join(options)})" if options else "") + suffix, (kind,)


@st.composite
def _items(draw: st.DrawFn, kinds: str, heads: bool, depth: int) -> tuple[str, tuple[str, ...]]:
    texts: list[str] = []
    blocks: tuple[str, ...] = ()
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.sampled_from(["block", "block", "repeat", "group", "parallel"] if depth else ["block"]))
        if shape == "block":
            text, inside = draw(_block(kinds, heads))
        elif shape == "repeat":
            inner, inside = draw(_block(kinds, heads))
            times = draw(st.integers(1, 4))
            text, inside = f"{inner}*{times}", inside * times
        elif shape == "group":
            inner, inside = draw(_items(kinds, heads, depth - 1))
            times = draw(st.integers(1, 3))
            suffix = draw(st.sampled_from(["", "", ">>1", "/2"]))
            text, inside = f"({inner}){suffix}*{times}", inside * times
        else:
            branches = [draw(_items(kinds, heads, depth - 1)) for _ in range(draw(st.integers(2, 3)))]
            text = " & ".join(f"({inner})" for inner, _ in branches)
            inside = tuple(kind for _, part in branches for kind in part)
        if len(blocks) + len(inside) > _MOST:
            break
        texts.append(text)
        blocks += inside
    if not texts:
        return "f", ("f",)
    return " ".join(texts), blocks


@st.composite
def models(draw: st.DrawFn, kinds: str = "acf", tokens: bool = True) -> Model:
    """A pattern of up to some hundred blocks of these kinds, with settings."""
    heads = draw(st.booleans())  # else residual attention: its blocks have the same number of heads
    stages = [draw(_items(kinds, heads, 2)) for _ in range(draw(st.integers(1, 3)))]
    named = draw(st.booleans())
    text = " | ".join((f"s{i}: " if named else "") + stage for i, (stage, _) in enumerate(stages))
    blocks = tuple(kind for _, stage in stages for kind in stage)
    settings: dict[str, Any] = {
        "dim": draw(st.sampled_from([12, 16])),
        "heads": draw(st.sampled_from([2, 3])),
        "attn_dim_head": draw(st.sampled_from([2, 4, 5])),
        "causal": draw(st.booleans()),
        "pre_norm": draw(st.booleans()),
        **{f"use_{name}": True for name in draw(st.sampled_from([(), ("rmsnorm",), ("adaptive_rmsnorm",)]))},
        **draw(st.sampled_from([{}, {"layer_scale": 0.1}, {"use_adaptive_layerscale": True}])),
        "scale_residual": draw(st.booleans()),
        "gate_residual": draw(st.booleans()),
        "shift_tokens": draw(st.integers(0, 1)),
        "ff_mult": draw(st.sampled_from([1, 2, 2.5])),
        "ff_glu": "f" in blocks and draw(st.booleans()),
        "ff_no_bias": "f" in blocks and draw(st.booleans()),
        "residual_attn": "a" in blocks and not heads and draw(st.booleans()),
        "cross_residual_attn": "c" in blocks and not heads and draw(st.booleans()),
        "rotary_pos_emb": "a" in blocks and draw(st.booleans()),
    }
    if tokens and draw(st.booleans()):
        settings |= {
            "num_tokens": draw(st.sampled_from([7, 30])),
            "max_seq_len": 11,
            "use_abs_pos_emb": draw(st.booleans()),
            "tie_embedding": draw(st.booleans()),
            "num_memory_tokens": draw(st.integers(0, 2)),
            "post_emb_norm": draw(st.booleans()),
            "l2norm_embed": draw(st.booleans()),
            "pos_offset": 0,
            "embed_scale": draw(st.sampled_from([1, 0.5])),
            "num_token_types": draw(st.integers(0, 2)),
            "logits_softcap": draw(st.sampled_from([None, 2, 0.5])),
            "logits_transform": draw(st.sampled_from([None, "gelu", "tanh"])),
            "logits_scale": draw(st.sampled_from([None, 1, 0.5])),
            "logits_bias": draw(st.sampled_from([None, True, False])),
        }
        if not settings["tie_embedding"]:
            settings |= {
                "emb_dim": draw(st.sampled_from([None, 6, 12])),
                "logits_dim": draw(st.sampled_from([None, 3, 7])),
            }
        if settings["use_abs_pos_emb"] and not settings["rotary_pos_emb"]:
            settings["scaled_sinu_pos_emb"] = draw(st.booleans())
    return Model(text, blocks, settings)


# The attributes of an input that embeds no tokens, written out.
PLAIN_INPUT = {
    "type": "input",
    "num_tokens": None,
    "max_seq_len": None,
    "emb_dim": None,
    "pos_offset": 0,
    "embed_scale": 1.0,
    "num_token_types": 0,
    "l2norm_embed": False,
    "post_emb_norm": False,
    "emb_frac_gradient": 1.0,
    "emb_dropout": 0.0,
    "num_memory_tokens": 0,
    "max_mem_len": 0,
    "shift_mem_down": 0,
    "dim_in": None,
    "conv_stem": False,
    "image_size": None,
    "patch_size": None,
    "channels": 3,
    "crop": False,
    "patch_norm": True,
    "patch_bias": True,
    "class_token": False,
    "mask_token": False,
    "pos_antialias": False,
    "num_register_tokens": 0,
}
PLAIN_OUTPUT = {
    "type": "output",
    "softcap": None,
    "norm": "layernorm",
    "norm_eps": None,
    "norm_bias": True,
    "norm_gain": True,
    "norm_unit_offset": False,
    "logits_dim": None,
    "tied": False,
    "logits_scale": None,
    "logits_bias": None,
    "logits_softcap": None,
    "logits_transform": None,
    "logits_transform_bias": True,
    "squeeze_out_last_dim": False,
    "num_classes": None,
    "dim_out": None,
    "dim_out_bias": True,
    "pool": None,
    "end_token": None,
    "num_cls_tokens": 1,
    "pooler": False,
    "num_pooled_tokens": 1,
    "pool_heads": 8,
    "pool_dim_head": None,
    "pool_bias": True,
    "pool_inner": None,
    "pool_activation": "gelu",
}

# The options of every block, of attention blocks and of feedforwards when nobody sets any, written out.
PLAIN_BLOCK = {
    "pre_norm": True,
    "norm": True,
    "output_norm": False,
    "shared_norm": False,
    "use_rmsnorm": False,
    "use_scalenorm": False,
    "use_simple_rmsnorm": False,
    "use_adaptive_layernorm": False,
    "use_adaptive_rmsnorm": False,
    "use_adaptive_layerscale": False,
    "pre_and_post_norm": False,
    "norm_eps": None,
    "norm_bias": True,
    "norm_gain": True,
    "norm_unit_offset": False,
    "sandwich_norm": False,
    "layer_scale": None,
    "layer_dropout": 0.0,
    "scale_residual": False,
    "scale_residual_constant": 1.0,
    "branch_scale": 1.0,
    "gate_residual": False,
    "orthog_residual": False,
    "num_residual_streams": 1,
    "hyper_conn_mix": "sinkhorn",
    "hyper_conn_sinkhorn_iters": 5,
    "reinject_input": False,
    "learned_reinject_input_gate": False,
    "init_gain": None,
    "checkpoint": None,
}
PLAIN_ATTENTION = {
    "heads": 8,
    "dim_head": 64,
    "kv_heads": None,
    "one_kv_head": False,
    "value_dim_head": None,
    "dropout": 0.0,
    "sublayer_dropout": 0.0,
    "shared_kv": False,
    "num_mem_kv": 0,
    "qk_norm": False,
    "qk_scale": None,
    "qkv_bias": False,
    "k_bias": True,
    "out_bias": False,
    "qk_norm_groups": 1,
    "qk_norm_scale": 10,
    "qk_norm_dim_scale": False,
    "qk_rmsnorm": None,
    "qk_rmsnorm_eps": 1e-6,
    "qk_layernorm": None,
    "qk_layernorm_eps": 1e-5,
    "talking_heads": False,
    "softcap": None,
    "sink": False,
    "k_rmsnorm": False,
    "value_rmsnorm": False,
    "add_zero_kv": False,
    "sigmoid": False,
    "l2_distance": False,
    "laser": False,
    "laser_softcap": 15.0,
    "gate_values_headwise": False,
    "gate_values_rank": None,
    "output_gate": False,
    "output_gate_headwise": False,
    "output_gate_rank": None,
    "low_rank_silu_gates": True,
    "swiglu_values": False,
    "gate_value_heads": False,
    "sparse_topk_straight_through": False,
    "cog_signed": False,
    "sparse_topk": None,
    "head_scale": False,
    "gate_values": False,
    "gate_bias": True,
    "on_attn": False,
    "tensor_product": False,
    "zero_init_branch_output": False,
    "flash": True,
    "residual_attn": False,
    "scores": False,
}
PLAIN_FEEDFORWARD = {
    "mult": 4,
    "inner": None,
    "activation": None,
    "glu": False,
    "gate_first": False,
    "gate_scale": 1.0,
    "glu_mult_bias": False,
    "swish": False,
    "relu_squared": False,
    "post_act_ln": False,
    "no_bias": False,
    "lora_rank": None,
    "dropout": 0.0,
    "sublayer_dropout": 0.0,
    "zero_init_branch_output": False,
}
