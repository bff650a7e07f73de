"""Granite 4 (IBM, 2025): Mamba-2 or attention in each layer, then a gated feedforward, which Tiny and Small have beside
experts; factors as in Granite 3."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, logits_rows, logits_settings, rotary_settings
from .experts import gated_experts
from .family import Component, Family, Row, Weight
from .layers import layer_types, repeated
from .state_space import bamba_settings, state_space_rows

_MIXER = {"linear_attention": "m", "full_attention": "a"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    eps, bias = config.number("rms_norm_eps", 1e-6), config.flag("attention_bias", False)
    types = layer_types(config, ("linear_attention",) * layers, _MIXER)
    kind, feedforward, feedforward_rows = _feedforward(config)
    config.only("router_jitter_noise", 0.0, "the router's input is scaled at random in training")
    config.ignore("rope_parameters", "rope_scaling", "rope_theta", "init_method", "normalization_function")
    positions = config.word("position_embedding_type", "nope")
    if positions not in ("rope", "nope"):
        raise config.lacks(f"position_embedding_type={positions!r}", "positions are other than rotary ones or none")
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_scale": config.number("attention_multiplier", 1.0),
        **bamba_settings(config, eps=eps),
        "use_rmsnorm": True,
        "norm_eps": eps,
        "branch_scale": config.number("residual_multiplier", 1.0),
        **(
            rotary_settings(config, sizes["attn_dim_head"])
            if positions == "rope" and "full_attention" in types
            else {"use_abs_pos_emb": False}
        ),
        **feedforward,
        "embed_scale": config.number("embedding_multiplier", 1.0),
        **logits_settings(config),
        **({} if config.base else {"logits_scale": 1 / config.number("logits_scaling", 1.0)}),
    }
    rows = [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{mixer}.norm", LAYER + "input_layernorm") for mixer in "ma"),
        *state_space_rows(LAYER + "mamba"),
        *attention_rows(sizes),
        Weight(f"{kind}.norm", LAYER + "post_attention_layernorm"),
        *feedforward_rows,
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    blocks = [f"{_MIXER[each]} {kind}" for each in types]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _feedforward(config: Config) -> tuple[str, dict[str, Any], list[Row]]:
    """Its kind, its settings and its weights: a feedforward, or experts of which this one is what every token reads."""
    inner, of_experts = config.integer("shared_intermediate_size", 1024), LAYER + "block_sparse_moe"
    if config.integer("num_local_experts", 8, least=0) == 0:
        config.ignore("num_experts_per_tok", "router_aux_loss_coef", "intermediate_size")
        activation = config.activation("hidden_act", "silu")
        settings = {"ff_inner": inner, "ff_glu": True, "ff_gate_first": True, "ff_activation": activation}
        return "f", {**settings, "ff_no_bias": True}, _linear("f.layer", LAYER + "shared_mlp")
    experts = gated_experts(config, config.integer("intermediate_size", 11008), (8, 2))
    rows = [
        Weight("e.layer.router", of_experts + ".router.layer"),
        *_linear("e.layer", of_experts),
        *_linear("e.layer.shared", LAYER + "shared_mlp"),
    ]
    return "e", {**experts, "moe_gate_first": True, "moe_shared_inner": inner}, rows


def _linear(ours: str, theirs: str) -> list[Row]:
    names = {"to_hidden": "input_linear", "to_out": "output_linear"}
    return [Weight(f"{ours}.{own}", f"{theirs}.{name}") for own, name in names.items()]


FAMILY = Family(
    model_types=("granitemoehybrid",),
    architectures=("GraniteMoeHybridForCausalLM",),
    base="GraniteMoeHybridModel",
    prefix="model.",
    source="IBM, 2025",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
