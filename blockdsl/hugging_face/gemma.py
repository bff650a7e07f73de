"""Gemma 1 (arXiv:2403.08295): gains kept as offsets from one, GeGLU, scaled embedding; what 2 and 3 share with it."""

from __future__ import annotations

from math import sqrt
from typing import Any

from .config import Config
from .decoder import (
    LAYER,
    attention_rows,
    decoder_rows,
    decoder_sizes,
    gated_rows,
    gated_settings,
    logits_rows,
    logits_settings,
    rotary_settings,
)
from .family import Component, Family, Row, Weight


def gemma_sizes(config: Config, length: int = 8192) -> dict[str, Any]:
    """Width, heads, vocabulary and length; heads have a size of their own."""
    return decoder_sizes(config, dim_head=256, length=length)


def gemma_settings(config: Config, sizes: dict[str, Any]) -> dict[str, Any]:
    """All but sizes, the activation, and what is about scores and positions."""
    bias = config.flag("attention_bias", False)
    config.only("use_bidirectional_attention", False, "tokens see later ones")
    return {
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "use_rmsnorm": True,
        "norm_eps": config.number("rms_norm_eps", 1e-6),
        "norm_unit_offset": True,
        **gated_settings(config),
        "embed_scale": sqrt(sizes["dim"]),
        **logits_settings(config, tied=True),
    }


def sandwich_rows(config: Config, sizes: dict[str, Any]) -> list[Row]:
    """The weights of Gemma 2 and 3: norms before and after each branch, and of 3 those of queries and keys."""
    return [
        Weight("token_emb", "model.embed_tokens"),
        Weight("a.norm", LAYER + "input_layernorm"),
        *attention_rows(sizes),
        *(Weight(f"a.layer.qk_norm.{part}", f"{LAYER}self_attn.{part}_norm") for part in "qk"),
        Weight("a.sandwich_norm", LAYER + "post_attention_layernorm"),
        Weight("f.norm", LAYER + "pre_feedforward_layernorm"),
        *gated_rows(),
        Weight("f.sandwich_norm", LAYER + "post_feedforward_layernorm"),
        Weight("attn_layers.norm", "model.norm"),
        *logits_rows(config, tied=True),
    ]


def optional_number(config: Config, name: str, default: float | None) -> float | None:
    """A number, none where the configuration says null."""
    config.ignore(name)
    return None if config.values.get(name, default) is None else config.number(name, default)


def _read(config: Config) -> dict[str, Component]:
    layers, sizes = config.integer("num_hidden_layers"), gemma_sizes(config)
    said = config.word("hidden_act", config.word("hidden_activation", "gelu_pytorch_tanh"))
    if said != "gelu":
        config.only("hidden_activation", said, f"hidden_act={said!r} says otherwise")
    settings = {
        **sizes,
        **gemma_settings(config, sizes),
        # the first files say gelu and mean this
        "ff_activation": "gelu_tanh" if said == "gelu" else config.activation_of("hidden_act", said),
        **rotary_settings(config, sizes["attn_dim_head"]),
    }
    return {"": Component(f"(a f)*{layers}", settings, decoder_rows(config, sizes, tied=True), layers)}


FAMILY = Family(
    model_types=("gemma",),
    architectures=("GemmaForCausalLM",),
    base="GemmaModel",
    prefix="model.",
    source="arXiv:2403.08295",
    read=_read,
    ignored=("rotary_emb.inv_freq",),
)
