"""Patterns with labels and reads that tests run in every way there is: a stack's name → its text and settings."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {"dim": 16, "heads": 2, "attn_dim_head": 8, "causal": True}
ROTARY: dict[str, Any] = {"rotary_pos_emb": True, "rotary_emb_dim": 4}
LEARNED_KEYS: dict[str, Any] = {
    **{"attn_kv_heads": 1, "attn_num_mem_kv": 2, "attn_qk_norm": True, "attn_qk_norm_dim_scale": True},
    **ROTARY,
}

LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "u-net": ("(^u a f)*2 (<u(pop, cat) a f)*2", {}),
    "input injected": ("^x (<x(gain) a f)*2", {}),
    "value residual": ("a ^v f (a(values=v) f)*2", {}),
    "shared keys": ("(a ^k f a(kv=k) f)*2", ROTARY),
    "yoco": ("a(max_attend_past=2) f | a ^g f (a(kv=g) f)*2", ROTARY),
    "denseformer": ("^h (a f <h(all, gain) ^h)*2", {}),
    "integrated layers": ("^h (<h(all, soft) a ^h <h(all, soft) f ^h)*2", {}),
    "realformer": ("a ^s f (a(scores=s) ^s f)*2", {}),
    "recurrent depth": ("a f ^e (<e(cat) (a f)@core)*3 a f", {}),
    "backout": ("a f ^b a f <b(gain, init=-0.5)", {}),
    "earlier layer": ("a f ^mid | a c(context=mid) f", {}),
}
"""Those of the README, small."""

FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "branches": ("^u a f (a & <u/2 & (f <u(cat)/2) & <u(soft)) f <u(gate)/3 a", {}),
    "windows": ("a(max_attend_past=2) ^k f a(kv=k, max_attend_past=4) a(kv=k, max_attend_past=1)", ROTARY),
    "learned mix": ("a ^v f a(values=v, value_mix=learned) ^w f a(values=w)", {"attn_kv_heads": 1}),
    "gains": ("a ^v f a(values=v, value_mix=gains)", {}),
    "routed": (
        "^h <h(all, route) a(scale_residual_constant=0) <h ^h <h(all, route) f(scale_residual_constant=0) <h",
        {},
    ),
    "learned keys": ("(a ^k f a(kv=k) ^j f)*2 a(kv=j)", LEARNED_KEYS),
    "ties": ("^u a f (<u(gain))@r (a f <u(gain)@r)*2", {}),
    "together": (
        "^u a ^k f (a(kv=k) & <u(gate)) a(scores=k) ^v | <u(cat) a(values=v, value_mix=learned) c(context=u) <u(gain)",
        {},
    ),
    "shared block": (
        "^e f (^x a(concat=e, lora_rank=3, scale_residual_constant=0)@a f(lora_rank=2, scale_residual_constant=0)@f "
        "<x(linear) f(scale_residual_constant=0) <x)*2",
        ROTARY,
    ),
    "beside": ("^u a f (a(concat=u, lora_rank=3)>>1 f(lora_rank=2, glu))@s*2 <u(linear)/2 a(concat=u)", LEARNED_KEYS),
    "shifted": ("a>>1 ^k f a(kv=k)>>2 f <k", {"rotary_xpos": True}),
}
