"""Gemma 3 on text (arXiv:2503.19786): norms of queries and keys, windows in five of six layers, two rotary bases."""

from __future__ import annotations

from typing import Any

from ..registry.options import spell
from .config import Config
from .family import Component, Family
from .gemma import gemma_settings, gemma_sizes, optional_number, sandwich_rows
from .layers import each_last, layer_types, named, repeated
from .rope import scaling


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), gemma_sizes(config, length=131072)
    config.ignore("cache_implementation", "hidden_act")
    config.only("attn_logit_softcapping", None, "scores are capped")
    cap, eps = optional_number(config, "final_logit_softcapping", None), config.number("rms_norm_eps", 1e-6)
    settings = {
        **sizes,
        **gemma_settings(config, sizes),
        "sandwich_norm": True,
        "attn_qk_rmsnorm": "head",
        "attn_qk_rmsnorm_eps": eps,
        "attn_qk_scale": config.number("query_pre_attn_scalar", 256) ** -0.5,
        "ff_activation": config.activation("hidden_activation", "gelu_pytorch_tanh"),
        "rotary_pos_emb": True,
        "rotary_emb_dim": sizes["attn_dim_head"],
        **({} if config.base or cap is None else {"logits_softcap": cap}),
    }
    every_last = each_last(config, layers, "sliding_window_pattern", config.integer("_sliding_window_pattern", 6))
    blocks = _attention(config)
    types = layer_types(config, named("full_attention", "sliding_attention", every_last), blocks)
    text = repeated([f"{blocks[each]} f" for each in types])
    return {"": Component(text, settings, sandwich_rows(config, sizes), layers)}


def _attention(config: Config) -> dict[str, str]:
    """The block of each kind of layer: those without a window have another base, and may have a scaling."""
    ropes = config.nested("rope_parameters")
    local, everywhere = ropes.nested("sliding_attention"), ropes.nested("full_attention")
    older = config.nested("rope_scaling")
    window = {"max_attend_past": config.integer("sliding_window", 4096) - 1}  # theirs counts the token itself
    near = _rotary(config, local, local.number("rope_theta", config.number("rope_local_base_freq", 1e4)))
    far = _rotary(config, older if older.values else everywhere, config.number("rope_theta", 1e6))
    far["rotary_theta"] = everywhere.number("rope_theta", far["rotary_theta"])
    return {"sliding_attention": _block(window | near), "full_attention": _block(far)}


def _rotary(config: Config, rope: Config, theta: float) -> dict[str, Any]:
    scaled = {f"rotary_{name}": value for name, value in scaling(config, rope).items() if value is not None}
    return {"rotary_theta": theta, **scaled}


def _block(options: dict[str, Any]) -> str:
    said = [f"{name}={spell(value)}" for name, value in options.items() if (name, value) != ("rotary_theta", 1e4)]
    return f"a({', '.join(said)})" if said else "a"


FAMILY = Family(
    model_types=("gemma3_text",),
    architectures=("Gemma3ForCausalLM",),
    base="Gemma3TextModel",
    prefix="model.",
    source="arXiv:2503.19786",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
