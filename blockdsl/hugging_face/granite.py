"""Granite 3 (IBM, 2024): LLaMA with factors of embedding, scores, branches and logits (as in arXiv:2408.13359)."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    bias = config.flag("attention_bias", False)
    scale = 1 / config.number("logits_scaling", 1.0)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_scale": config.number("attention_multiplier", 1.0),
        "use_rmsnorm": True,
        "branch_scale": config.number("residual_multiplier", 1.0),
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config, config.flag("mlp_bias", False)),
        "embed_scale": config.number("embedding_multiplier", 1.0),
        **logits_settings(config),
        **({} if config.base else {"logits_scale": scale}),
    }
    return {"": Component(f"(a f)*{layers}", settings, decoder_rows(config, sizes), layers)}


FAMILY = Family(
    model_types=("granite",),
    architectures=("GraniteForCausalLM",),
    base="GraniteModel",
    prefix="model.",
    source="arXiv:2408.13359",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
