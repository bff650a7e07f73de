"""Whole models with each option: logits and gradients as `flash=False` gives them in float64."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blockdsl.reference import telling
from xt_blocks import AttentionLayers, TransformerWrapper

from ..benchmarks.case import Options
from .check import Check
from .kernels import OPTIONS as SCORE_OPTIONS
from .precision import PRECISIONS, Precision, held_to

# name → pattern, and settings of the stack
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("(a f)*2", {}),
    "alibi": ("(a f)*2", {"alibi_pos_bias": True}),
    "t5": ("(a f)*2", {"rel_pos_bias": True}),
    "dynamic": ("(a f)*2", {"dynamic_pos_bias": True}),
    "window": ("(a f)*2", {"attn_max_attend_past": 100, "rotary_pos_emb": True}),
    "window both ways": ("(a(causal=false) f)*2", {"attn_max_attend_past": 100, "attn_max_attend_future": 64}),
    "rotary": ("(a f)*2", {"rotary_pos_emb": True}),
    "rotary, interleaved": ("(a f)*2", {"rotary_pos_emb": True, "rotary_interleaved": True, "rotary_theta": 1e6}),
    "rotary, dynamic": (
        "(a f)*2",
        {"rotary_pos_emb": True, "rotary_scaling": "dynamic", "rotary_factor": 2, "rotary_original_len": 100},
    ),
    "xpos": ("(a f)*2", {"rotary_pos_emb": True, "rotary_xpos": True}),
    "memory-kv": ("(a f)*2", {"attn_num_mem_kv": 16}),
    "qk-norm": ("(a f)*2", {"attn_qk_norm": True, "rotary_pos_emb": True}),
    "qk-rmsnorm": ("(a f)*2", {"attn_qk_rmsnorm": "head", "rotary_pos_emb": True, "norm_unit_offset": True}),
    "qk-rmsnorm, all heads": ("(a f)*2", {"attn_qk_rmsnorm": "all", "attn_kv_heads": 2, "output_norm": True}),
    "shared norm": ("(a & f)*2", {"shared_norm": True, "use_rmsnorm": True, "norm_eps": 1e-5}),
    "norms on both sides": (
        "(a f)*2",
        {"pre_and_post_norm": True, "use_simple_rmsnorm": True, "orthog_residual": True},
    ),
    "grouped-heads": ("(a f)*2", {"attn_kv_heads": 2, "rotary_pos_emb": True}),
    "latent": ("(a f)*2", {"attn_kv_rank": 32, "attn_q_rank": 24, "rotary_pos_emb": True}),
    "glu": ("(a f)*2", {"ff_glu": True, "use_rmsnorm": True}),
    "token-shift": ("(a>>1 f>>1)*2", {"rotary_pos_emb": True}),
    "residual-attention": ("(a f)*2", {"residual_attn": True}),
    "parallel": ("(a & f)*2", {"rotary_pos_emb": True}),
    "shared keys": ("(a ^k f a(kv=k) f)*2", {"rotary_pos_emb": True, "attn_max_attend_past": 100}),
    "value embeddings": ("(a(value_embed=0) f a(value_embed=0, value_mix=gains) f)", {"attn_kv_heads": 2}),
    "reads": ("^u a ^v f <u(gate, init=1) a(values=v, value_mix=learned) <u(cat) f", {"rotary_pos_emb": True}),
    "alibi, memory-kv, window": (
        "(a f)*2",
        {"alibi_pos_bias": True, "attn_num_mem_kv": 16, "attn_max_attend_past": 100},
    ),
    "t5, learned alibi": ("(a f)*2", {"rel_pos_bias": True, "alibi_pos_bias": True, "alibi_learned": True}),
}

# kind with a state, or of experts → what its blocks say
KINDS = {
    "m": "state=32, dim_head=32",
    "gdn": "heads=4, dim_head=32",
    "kda": "heads=4, dim_head=32",
    "gla": "heads=4, dim_head=32",
    "conv": "kernel=4",
    "e": "experts=4, inner=64",
}
OPTIONS |= {name: (f"{name}({said}) a f {name}({said})>>1", {"rotary_pos_emb": True}) for name, said in KINDS.items()}
OPTIONS |= {name: ("(a f)*2", {row.setting: telling(row)}) for name, row in SCORE_OPTIONS.items() if row.setting}

COMPILED = {name for name, (_, own) in OPTIONS.items() if any("bias" in key or "past" in key for key in own)}
COMPILED |= SCORE_OPTIONS.keys()
"""Those whose kernel may be compiled; the kernels' own checks have every number format."""
CHOOSING = {"e"}
"""Those in which rounding decides what is computed: in float32 alone."""


class Sizes(NamedTuple):
    """Enough queries for every kernel, and no multiple of a block of them."""

    batch: int = 2
    seq: int = 700
    dim: int = 256
    heads: int = 4
    vocabulary: int = 64

    @classmethod
    def of(cls, options: Options) -> Sizes:
        return cls(2, 24, 32, 2, 16) if options.quick else cls()


def checks() -> list[Check]:
    return [Check(f"options/{name}", partial(check, name), 150 if name in COMPILED else 60) for name in OPTIONS]


def check(name: str, options: Options) -> dict[str, Any]:
    """Of the option in each number format: as near to the exact results as `flash=False` is."""
    sizes = Sizes.of(options)
    model = built(name, sizes, options.device)
    plain = built(name, sizes, options.device, attn_flash=False)
    plain.load_state_dict(model.state_dict())
    tokens = drawn(sizes, options.device)
    names = ("float32", "autocast") if name in COMPILED else PRECISIONS  # each that is compiled takes its time
    names = ("float32",) if name in CHOOSING else names
    return {
        own.name: held_to(
            passed(copy.deepcopy(plain).to(own.weights).double(), tokens),
            passed(copy.deepcopy(model).to(own.weights), tokens, own),
            passed(copy.deepcopy(plain).to(own.weights), tokens, own),
            own.arithmetic,
        )
        for own in map(PRECISIONS.__getitem__, names)
    }


def built(name: str, sizes: Sizes, device: str, **settings: Any) -> TransformerWrapper:
    """A causal model with the option; nothing learned is a zero or a one that hides what it does."""
    torch.manual_seed(0)
    pattern, own = OPTIONS[name]
    stack = AttentionLayers(
        pattern=pattern,
        dim=sizes.dim,
        heads=sizes.heads,
        attn_dim_head=sizes.dim // sizes.heads,
        causal=True,
        **own,
        **settings,
    )
    model = TransformerWrapper(num_tokens=sizes.vocabulary, max_seq_len=sizes.seq, attn_layers=stack)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.to(device)


def drawn(sizes: Sizes, device: str) -> Tensor:
    """(batch, seq) random tokens."""
    return torch.randint(sizes.vocabulary, (sizes.batch, sizes.seq)).to(device)


def passed(net: nn.Module, tokens: Tensor, precision: Precision | None = None) -> dict[str, Tensor]:
    """Logits, and the gradient of each parameter by a fixed weighted sum of them."""
    autocast = (precision or PRECISIONS["float32"]).autocast(tokens.device.type)
    with autocast:
        logits = net(tokens)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits.backward(weights.to(logits.device, logits.dtype))
    gradients = {name: own.grad for name, own in net.named_parameters() if own.grad is not None}
    return {"logits": logits.detach(), **gradients}
