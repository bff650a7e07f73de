"""Gemma 2 (arXiv:2408.00118): norms on both sides of a branch, softcaps, a window in every other layer."""

from __future__ import annotations

from .config import Config
from .decoder import layers_of, rotary_settings
from .family import Component, Family
from .gemma import gemma_settings, gemma_sizes, optional_number, sandwich_rows


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), gemma_sizes(config)
    config.ignore("cache_implementation", "hidden_act")  # the latter is not read by theirs either
    cap = optional_number(config, "final_logit_softcapping", 30.0)
    window = config.integer("sliding_window", 4096)
    text, windows = layers_of(config, window, [i % 2 == 0 for i in range(layers)])
    settings = {
        **sizes,
        **gemma_settings(config, sizes),
        "sandwich_norm": True,
        "attn_qk_scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
        "attn_softcap": optional_number(config, "attn_logit_softcapping", 50.0),
        "ff_activation": config.activation("hidden_activation", "gelu_pytorch_tanh"),
        **windows,
        **rotary_settings(config, sizes["attn_dim_head"]),
        **({} if config.base or cap is None else {"logits_softcap": cap}),
    }
    return {"": Component(text, settings, sandwich_rows(config, sizes), layers)}


FAMILY = Family(
    model_types=("gemma2",),
    architectures=("Gemma2ForCausalLM",),
    base="Gemma2Model",
    prefix="model.",
    source="arXiv:2408.00118",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
