"""Qwen 3 (Yang et al., arXiv:2505.09388): RMSNorm of each head's queries and keys in place of Qwen 2's biases."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, logits_settings, rotary_settings
from .family import Component, Family, Weight
from .qwen2 import upper_windows


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 32)
    sizes = decoder_sizes(config, kv_heads=32, dim_head=128, length=32768)
    pattern, window = upper_windows(config, layers)
    bias, eps = config.flag("attention_bias", False), config.number("rms_norm_eps", 1e-6)
    settings = {
        **sizes,
        **window,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "use_rmsnorm": True,
        "norm_eps": eps,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config),
        **logits_settings(config),
    }
    norms = [Weight(f"a.layer.qk_norm.{part}", f"model.layers.{{i}}.self_attn.{part}_norm") for part in "qk"]
    return {"": Component(pattern, settings, [*decoder_rows(config, sizes), *norms], layers)}


FAMILY = Family(
    model_types=("qwen3",),
    architectures=("Qwen3ForCausalLM",),
    base="Qwen3Model",
    prefix="model.",
    source="arXiv:2505.09388",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
