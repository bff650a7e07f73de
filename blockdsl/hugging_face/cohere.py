"""Command R (Cohere, 2024): attention and feedforward in parallel share a norm without bias; logits tied and scaled."""

from __future__ import annotations

from .config import Config
from .decoder import (
    LAYER,
    attention_rows,
    decoder_sizes,
    gated_rows,
    gated_settings,
    logits_rows,
    logits_settings,
    rotary_settings,
)
from .family import Component, Family, Row, Weight


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config, length=8192)
    bias, eps = config.flag("attention_bias", False), config.number("layer_norm_eps", 1e-5)
    qk_norm = config.flag("use_qk_norm", False)  # Command R+
    scale = config.number("logit_scale", 0.0625)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        **({"attn_qk_layernorm": "each", "attn_qk_layernorm_eps": eps} if qk_norm else {}),
        "norm_eps": eps,
        "norm_bias": False,
        "shared_norm": True,
        **rotary_settings(config, sizes["attn_dim_head"], 500000.0),
        "rotary_interleaved": True,
        **gated_settings(config),
        **logits_settings(config, tied=True),
        **({} if config.base else {"logits_scale": scale}),
    }
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_norm") for part in "qk"),
        *gated_rows(),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config, tied=True),
    ]
    return {"": Component(f"(a & f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("cohere",),
    architectures=("CohereForCausalLM",),
    base="CohereModel",
    prefix="model.",
    source="Cohere, 2024",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
