"""Mistral 7B (Jiang et al., arXiv:2310.06825): LLaMA with grouped heads and, in its first release, a window."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, layers_of, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 32)
    sizes = decoder_sizes(config, kv_heads=8, length=4096 * 32)
    config.only("layer_types", None, "layers differ")
    pattern, window = layers_of(config, config.optional("sliding_window", 4096), [True] * layers)
    settings = {
        **sizes,
        **window,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config),
        **logits_settings(config),
    }
    return {"": Component(pattern, settings, decoder_rows(config, sizes), layers)}


FAMILY = Family(
    model_types=("mistral",),
    architectures=("MistralForCausalLM",),
    base="MistralModel",
    prefix="model.",
    source="arXiv:2310.06825",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
