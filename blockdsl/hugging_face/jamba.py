"""Jamba (arXiv:2403.19887): Mamba with attention in each eighth layer, and experts in each second one."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import (
    LAYER,
    attention_rows,
    decoder_sizes,
    gated_settings,
    logits_rows,
    logits_settings,
)
from .family import Component, Family, Row, Weight
from .layers import expert_layers, layer_types, named, periodic, repeated
from .mamba import scan_rows

_MIXER = {"linear_attention": "mamba", "full_attention": "a"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers", 32), decoder_sizes(config, kv_heads=8, length=262_144)
    attends = named("full_attention", "linear_attention", periodic(config, layers, "attn_layer", 8, 4))
    experts = config.integer("num_experts", config.integer("num_local_experts", 16))
    sparse = expert_layers(config, periodic(config, layers, "expert_layer", 2, 1))
    mixers = [_MIXER[each] for each in layer_types(config, attends, _MIXER)]
    config.ignore(
        "use_mamba_kernels",
        "use_mambapy",
        "n_ctx",
        "use_associative_scan",
        "num_logits_to_keep",
        "calc_logits_for_entire_prompt",
    )
    config.ignore("sliding_window")  # nothing reads it
    blocks = [f"{mixer} {'e' if each and experts > 1 else 'f'}" for mixer, each in zip(mixers, sparse, strict=True)]
    used = {block for layer in blocks for block in layer.split()}
    eps = config.number("rms_norm_eps", 1e-6)
    settings = {
        **sizes,
        "use_abs_pos_emb": False,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **_scan_settings(config, sizes["dim"], eps),
        **{name: value for name, value in gated_settings(config).items() if "f" in used},
        **_expert_settings(config, experts, "e" in used),
        **logits_settings(config),
    }
    rows = _rows(config, sizes, experts)
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _scan_settings(config: Config, dim: int, eps: float) -> dict[str, Any]:
    expand, rank = config.integer("mamba_expand", 2), config.get("mamba_dt_rank", "auto")
    return {
        "mamba_state": config.integer("mamba_d_state", 16),
        "mamba_kernel": config.integer("mamba_d_conv", 4),
        "mamba_expand": expand,
        **({} if rank in ("auto", -(-dim // 16)) else {"mamba_dt_rank": config.integer("mamba_dt_rank")}),
        "mamba_conv_bias": config.flag("mamba_conv_bias", True),
        "mamba_bias": config.flag("mamba_proj_bias", False),
        "mamba_rmsnorm": "gain",
        "mamba_rmsnorm_eps": eps,
    }


def _expert_settings(config: Config, experts: int, used: bool) -> dict[str, Any]:
    settings = {
        "moe_experts": experts,
        "moe_top": config.integer("num_experts_per_tok", 2),
        "moe_router": "softmax",
        "moe_renormalise": False,
        "moe_inner": config.integer("intermediate_size", 14336),
        "moe_glu": True,
        "moe_activation": config.activation("hidden_act", "silu"),
        "moe_no_bias": True,
        "moe_balance_loss": config.number("router_aux_loss_coef", 0.001, least=0),
    }
    return settings if used else {}


def _rows(config: Config, sizes: dict[str, Any], experts: int) -> list[Row]:
    ff, expert = LAYER + "feed_forward.", LAYER + "feed_forward.experts.{e}."
    return [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "input_layernorm") for kind in _MIXER.values()),
        *attention_rows(sizes),
        *scan_rows(LAYER + "mamba."),
        *(Weight(f"mamba.layer.{part}_norm", f"{LAYER}mamba.{part}_layernorm") for part in ("dt", "b", "c")),
        *(Weight(f"{kind}.norm", LAYER + "pre_ff_layernorm") for kind in "fe"),
        Weight("f.layer.to_hidden", (ff + "up_proj", ff + "gate_proj")),
        Weight("f.layer.to_out", ff + "down_proj"),
        Weight("e.layer.router", ff + "router"),
        Weight("e.layer.to_hidden", (expert + "up_proj", expert + "gate_proj"), experts=experts),
        Weight("e.layer.to_out", expert + "down_proj", experts=experts),
        Weight("attn_layers.norm", "model.final_layernorm"),
        *logits_rows(config),
    ]


FAMILY = Family(
    model_types=("jamba",),
    architectures=("JambaForCausalLM",),
    base="JambaModel",
    prefix="model.",
    source="arXiv:2403.19887",
    read=_read,
)
