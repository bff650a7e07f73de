"""OLMo 1 (Groeneveld et al., arXiv:2402.00838): LayerNorm without gain and bias, rotary positions, SwiGLU."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    bias = config.flag("attention_bias", False)
    config.only("clip_qkv", None, "queries, keys and values are clipped")
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "norm_gain": False,
        "norm_bias": False,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config),
        **logits_settings(config),
    }
    return {"": Component(f"(a f)*{layers}", settings, decoder_rows(config, sizes), layers)}


FAMILY = Family(
    model_types=("olmo",),
    architectures=("OlmoForCausalLM",),
    base="OlmoModel",
    prefix="model.",
    source="arXiv:2402.00838",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
