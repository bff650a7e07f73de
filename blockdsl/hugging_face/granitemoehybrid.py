"""Granite 4 (IBM, 2025): Mamba-2 or attention in each layer, and a gated feedforward; factors as in Granite 3."""

from __future__ import annotations

from .config import Config
from .decoder import LAYER, attention_rows, decoder_sizes, logits_rows, logits_settings, rotary_settings
from .family import Component, Family, Weight
from .layers import layer_types, repeated
from .state_space import bamba_settings, state_space_rows

_BLOCKS = {"linear_attention": "m f", "full_attention": "a f"}


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    eps, bias = config.number("rms_norm_eps", 1e-6), config.flag("attention_bias", False)
    types = layer_types(config, ("linear_attention",) * layers, _BLOCKS)
    config.only("num_local_experts", 0, "each layer has experts beside its feedforward")
    config.ignore("num_experts_per_tok", "router_aux_loss_coef", "intermediate_size", "router_jitter_noise")
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
        "ff_inner": config.integer("shared_intermediate_size", 1024),
        "ff_glu": True,
        "ff_gate_first": True,
        "ff_activation": config.activation("hidden_act", "silu"),
        "ff_no_bias": True,
        "embed_scale": config.number("embedding_multiplier", 1.0),
        **logits_settings(config),
        **({} if config.base else {"logits_scale": 1 / config.number("logits_scaling", 1.0)}),
    }
    rows = [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "input_layernorm") for kind in "ma"),
        *state_space_rows(LAYER + "mamba"),
        *attention_rows(sizes),
        Weight("f.norm", LAYER + "post_attention_layernorm"),
        Weight("f.layer.to_hidden", LAYER + "shared_mlp.input_linear"),
        Weight("f.layer.to_out", LAYER + "shared_mlp.output_linear"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    blocks = [_BLOCKS[each] for each in types]
    return {"": Component(repeated(blocks), settings, rows, blocks)}


FAMILY = Family(
    model_types=("granitemoehybrid",),
    architectures=("GraniteMoeHybridForCausalLM",),
    base="GraniteMoeHybridModel",
    prefix="model.",
    source="IBM, 2025",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
