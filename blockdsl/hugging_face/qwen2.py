"""Qwen 2 and 2.5 (Yang et al., arXiv:2407.10671): biases of queries, keys and values, windows in the upper layers."""

from __future__ import annotations

from .config import Config
from .decoder import decoder_rows, decoder_sizes, gated_settings, layers_of, logits_settings, rotary_settings
from .family import Component, Family


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 32)
    sizes = decoder_sizes(config, kv_heads=32, length=32768)
    config.only("use_mrope", False, "positions have several axes")
    pattern, window = upper_windows(config, layers)
    settings = {
        **sizes,
        **window,
        "attn_qkv_bias": True,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        **rotary_settings(config, sizes["attn_dim_head"]),
        **gated_settings(config),
        **logits_settings(config),
    }
    return {"": Component(pattern, settings, decoder_rows(config, sizes), layers)}


def upper_windows(config: Config, layers: int) -> tuple[str, dict[str, int]]:
    """The pattern where layers from `max_window_layers` on have a window, if any has."""
    window = config.optional("sliding_window", 4096)
    first = config.integer("max_window_layers", 28, least=0)
    used = config.flag("use_sliding_window", False)
    return layers_of(config, window if used else None, [i >= first for i in range(layers)])


FAMILY = Family(
    model_types=("qwen2",),
    architectures=("Qwen2ForCausalLM",),
    base="Qwen2Model",
    prefix="model.",
    source="arXiv:2407.10671",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
