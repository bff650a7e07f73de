"""Small stacks with each option, alone and in pairs that meet in one piece of code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import blockdsl
import xt_blocks

SIZES = {"dim": 24, "heads": 3, "attn_dim_head": 8}

# name → (pattern, settings); every one is causal and can be decoded stepwise unless the test says otherwise
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "heads": ("a(heads=2, dim_head=5) f a", {}),
    "rotary": ("(a f)*2", {"rotary_pos_emb": True}),
    "rotary small": ("(a f)*2", {"rotary_pos_emb": True, "rotary_emb_dim": 2}),
    "rotary of two sizes": ("a a(dim_head=16) f", {"rotary_pos_emb": True}),
    "rms": ("(a f)*2", {"use_rmsnorm": True}),
    "post-norm": ("(a f)*2", {"pre_norm": False}),
    "one post-norm": ("a(pre_norm=false) f a", {}),
    "glu": ("(a f)*2", {"ff_glu": True, "ff_mult": 2}),
    "swish": ("a f(swish) f(relu_squared) f(glu, swish, no_bias)", {}),
    "no bias": ("(a f)*2", {"ff_no_bias": True}),
    "shift 1": ("(a f)*2", {"shift_tokens": 1}),
    "shift 2": ("a>>2 f>>1 a f>>3", {}),
    "shift, post-norm": ("a>>2 f>>1", {"pre_norm": False}),
    "half steps": ("macaron(2)", {}),
    "sandwich": ("sandwich(2, 3)", {}),
    "parallel": ("(a & f)*2", {}),
    "parallel chains": ("f a & (f a f) & (a & f f) a", {"rotary_pos_emb": True}),
    "parallel post-norm": ("(a & f a)*2", {"pre_norm": False}),
    "ties": ("(a@x f@y)*3", {"rotary_pos_emb": True}),
    "ties that differ in use": ("a@x f a@x>>1/2 f", {}),
    "tied group": ("(a f)@g*2 (a f)@g", {}),
    "residual attention": ("(a f)*3", {"residual_attn": True}),
    "residual attention, parallel": ("a (a & f a) a", {"residual_attn": True, "rotary_pos_emb": True}),
    "residual attention, post-norm": ("(a f)*3", {"residual_attn": True, "pre_norm": False}),
    "cross": ("(a c f)*2", {}),
    "cross, rotary": ("(a c f)*2", {"rotary_pos_emb": True}),
    "cross residual attention": ("(a c f)*3", {"cross_residual_attn": True}),
    "cross, parallel": ("a & c f c@t f c@t", {}),
    "feedforwards only": ("f>>1 f", {}),
}


def stack(name: str, causal: bool = True, **settings: Any) -> xt_blocks.Stack:
    pattern, own = VARIANTS[name]
    built = xt_blocks.lower(blockdsl.compile(pattern, **(SIZES | {"causal": causal} | own | settings)))
    assert isinstance(built, xt_blocks.Stack)
    return built.eval()


def inputs(model: xt_blocks.Stack, batch: int = 2, seq: int = 7, context: int = 5) -> tuple[Tensor, dict[str, Tensor]]:
    """x and, where the stack reads one, a context of another length."""
    x = torch.randn(batch, seq, SIZES["dim"])
    return x, {"context": torch.randn(batch, context, SIZES["dim"])} if model.reads_context else {}
