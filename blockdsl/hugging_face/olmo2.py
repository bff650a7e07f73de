"""OLMo 2 (OLMo et al., arXiv:2501.00656): RMSNorm of each branch's output, and of queries and keys over all heads."""

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
    layers, sizes = config.integer("num_hidden_layers"), decoder_sizes(config)
    bias, eps = config.flag("attention_bias", False), config.number("rms_norm_eps", 1e-5)
    settings = {
        **sizes,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_rmsnorm": "all",
        "attn_qk_rmsnorm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        "output_norm": True,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config),
        **logits_settings(config),
    }
    weights: list[Row] = [
        Weight("token_emb", "model.embed_tokens"),
        *attention_rows(sizes),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_norm") for part in "qk"),
        Weight("a.sandwich_norm", LAYER + "post_attention_layernorm"),
        *gated_rows(),
        Weight("f.sandwich_norm", LAYER + "post_feedforward_layernorm"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("olmo2",),
    architectures=("Olmo2ForCausalLM",),
    base="Olmo2Model",
    prefix="model.",
    source="arXiv:2501.00656",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
