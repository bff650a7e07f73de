"""Kimi Linear (arXiv:2510.26692): Kimi delta attention beside latent attention, and DeepSeek-V3's experts."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import LAYER, gated_settings, logits_rows, logits_settings
from .family import Component, Family, Reordered, Row, Weight
from .latent import latent_rows, latent_settings
from .layers import expert_layers, layer_types, listed, named, repeated

_MIXER = {"linear_attention": "kda", "full_attention": "a"}
_ATTENTION, _FEEDFORWARD = LAYER + "self_attn.", LAYER + "block_sparse_moe."


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 27)
    linear = config.nested("linear_attn_config")
    attends = listed(linear, layers, "full_attn_layers", range(5, layers + 1, 4), start=1)
    linear.ignore("kda_layers")  # the others
    types = layer_types(config, named("full_attention", "linear_attention", attends), _MIXER)
    dense = config.integer("first_k_dense_replace", 1, least=0)
    sparse = expert_layers(config, [i >= dense for i in range(layers)])
    config.only("hidden_act", "silu", "convolutions have the activation of the feedforwards")
    config.only("mla_use_nope", True, "attention rotates queries and keys")
    config.ignore("rope_theta", "rope_scaling", "rope_parameters")  # there are no positions
    config.only("num_nextn_predict_layers", 0, "there are layers that predict further tokens")
    latent, eps = latent_settings(config, None), config.number("rms_norm_eps", 1e-5)
    heads = config.integer("linear_num_heads", linear.integer("num_heads", 32))
    settings = {
        **latent,
        "num_tokens": config.integer("vocab_size"),
        "max_seq_len": config.integer("max_position_embeddings", config.integer("model_max_length", 1048576)),
        "use_abs_pos_emb": False,
        "kda_heads": heads,
        "kda_dim_head": config.integer("linear_head_dim", linear.integer("head_dim", 128)),
        "kda_kernel": config.integer("linear_conv_kernel_dim", linear.integer("short_conv_kernel_size", 4)),
        "kda_out_norm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **gated_settings(config),
        **_experts(config),
        **logits_settings(config),
    }
    blocks = [f"{_MIXER[kind]} {'e' if experts else 'f'}" for kind, experts in zip(types, sparse, strict=True)]
    rows = _rows(config, settings, latent, heads)
    return {"": Component(repeated(blocks), settings, rows, blocks)}


def _experts(config: Config) -> dict[str, Any]:
    """Under the names of DeepSeek's configurations and of Kimi's."""
    config.only("moe_router_activation_func", "sigmoid", "experts have other scores")
    config.only("moe_layer_freq", 1, "experts are in some of the layers after the first")
    config.only("use_grouped_topk", True, "experts are chosen in another way")
    inner = config.integer("moe_intermediate_size", 1024)
    return {
        "moe_router": "sigmoid",
        "moe_experts": config.integer("num_experts", config.integer("num_local_experts", 256)),
        "moe_top": config.integer("num_experts_per_token", config.integer("num_experts_per_tok", 8)),
        "moe_inner": inner,
        "moe_glu": True,
        "moe_activation": "silu",
        "moe_no_bias": True,
        "moe_renormalise": config.flag("moe_renormalize", config.flag("norm_topk_prob", True)),
        "moe_weight_scale": config.number("routed_scaling_factor", 2.446),
        "moe_correction_rate": 0.0,
        "moe_balance_loss": 0.0,
        "moe_groups": config.integer("num_expert_group", config.integer("n_group", 1)),
        "moe_top_groups": config.integer("topk_group", 1),
        "moe_shared_inner": inner * config.integer("num_shared_experts", config.integer("n_shared_experts", 1)),
    }


def _rows(config: Config, settings: dict[str, Any], latent: dict[str, Any], heads: int) -> list[Row]:
    experts, shared = _FEEDFORWARD + "experts.{e}.", _FEEDFORWARD + "shared_experts."
    return [
        Weight("token_emb", "model.embed_tokens"),
        *(Weight(f"{kind}.norm", LAYER + "input_layernorm") for kind in ("a", "kda")),
        *latent_rows(latent),
        Weight("kda.layer.A_log", _ATTENTION + "A_log", Reordered((1, 1, heads, 1))),
        Weight("kda.layer.dt_bias", _ATTENTION + "dt_bias"),
        Weight("kda.layer.to_qkv", tuple(f"{_ATTENTION}{part}_proj" for part in "qkv")),
        Weight("kda.layer.conv", tuple(f"{_ATTENTION}{part}_conv1d" for part in "qkv")),
        Weight("kda.layer.to_low_rank", (_ATTENTION + "f_a_proj", _ATTENTION + "g_a_proj")),
        Weight("kda.layer.to_decay", _ATTENTION + "f_b_proj"),
        Weight("kda.layer.to_gate", _ATTENTION + "g_b_proj"),
        Weight("kda.layer.to_beta", _ATTENTION + "b_proj"),
        Weight("kda.layer.norm", _ATTENTION + "o_norm"),
        Weight("kda.layer.to_out", _ATTENTION + "o_proj"),
        *(Weight(f"{kind}.norm", LAYER + "post_attention_layernorm") for kind in "fe"),
        Weight("f.layer.to_hidden", (_FEEDFORWARD + "up_proj", _FEEDFORWARD + "gate_proj")),  # see `other_names`
        Weight("f.layer.to_out", _FEEDFORWARD + "down_proj"),
        Weight("e.layer.router", _FEEDFORWARD + "gate"),
        Weight("e.layer.router.correction", _FEEDFORWARD + "gate.e_score_correction_bias"),
        Weight("e.layer.to_hidden", (experts + "w3", experts + "w1"), experts=settings["moe_experts"]),
        Weight("e.layer.to_out", experts + "w2", experts=settings["moe_experts"]),
        Weight("e.layer.shared.to_hidden", (shared + "up_proj", shared + "gate_proj")),
        Weight("e.layer.shared.to_out", shared + "down_proj"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]


FAMILY = Family(
    model_types=("kimi_linear",),
    architectures=("KimiLinearForCausalLM",),
    base="KimiLinearModel",
    prefix="model.",
    source="arXiv:2510.26692",
    read=_read,
    other_names=(("block_sparse_moe.", "mlp."),),  # of dense layers, as released; transformers writes the former
)
