"""Latent attention (MLA) of a configuration: its ranks, what is rotated, the scale of its scores, and its weights."""

from __future__ import annotations

import math
from typing import Any

from .config import Config
from .decoder import LAYER
from .family import Row, Weight


def latent_settings(config: Config, q_rank: int | None) -> dict[str, Any]:
    """Heads, and the vectors that queries, keys and values are made of.

    Args:
        q_rank: of the family, where the configuration does not say; null is a value: full queries.
    """
    heads = config.integer("num_attention_heads")
    config.only("num_key_value_heads", heads, "heads share keys and values")
    config.ignore("head_dim", "qk_head_dim")  # they follow from the next two
    shared = config.integer("qk_rope_head_dim", 64)
    q_rank = config.optional("q_lora_rank", q_rank)
    bias = config.flag("attention_bias", False)
    if bias and q_rank is None:
        raise config.lacks("attention_bias=True", "with q_lora_rank=None, latents have a bias and queries have none")
    return {
        "dim": config.integer("hidden_size"),
        "heads": heads,
        "attn_dim_head": config.integer("qk_nope_head_dim", 128) + shared,
        "attn_value_dim_head": config.integer("v_head_dim", 128),
        "attn_kv_rank": config.integer("kv_lora_rank", 512),
        "attn_q_rank": q_rank,
        "attn_shared_key_dim": shared,
        "attn_qkv_bias": bias,
        "attn_out_bias": bias,
        "causal": True,
    }


def score_scale(config: Config, dim_head: int) -> dict[str, float]:
    """The factor of the scores, which grows with the longer texts that a scaling of rotary positions is for."""
    rope = config.nested("rope_scaling") if config.get("rope_scaling", {}) else config.nested("rope_parameters")
    scaled = rope.word("rope_type", rope.word("type", "default")) != "default"
    of_all = rope.number("mscale_all_dim", 0.0, least=0)
    if not scaled or not of_all or (factor := rope.number("factor")) <= 1:
        return {}
    return {"attn_qk_scale": dim_head**-0.5 * (0.1 * of_all * math.log(factor) + 1) ** 2}


def latent_rows(settings: dict[str, Any]) -> list[Row]:
    """Of `latent_settings`; rows of each head have its rotated features last there too."""
    low = settings["attn_q_rank"] is not None
    queries = settings["attn_q_rank"] or settings["heads"] * settings["attn_dim_head"]
    rest = settings["attn_kv_rank"] + settings["attn_shared_key_dim"]
    attention = LAYER + "self_attn."
    first = (attention + ("q_a_proj" if low else "q_proj"), attention + "kv_a_proj_with_mqa")
    return [
        Weight("a.layer.to_qkv", first, sizes=(queries, rest)),
        Weight("a.layer.latent.q_norm", attention + "q_a_layernorm"),
        Weight("a.layer.latent.to_q", attention + "q_b_proj"),
        Weight("a.layer.latent.kv_norm", attention + "kv_a_layernorm"),
        Weight("a.layer.latent.to_kv", attention + "kv_b_proj"),
        Weight("a.layer.output.to_out", attention + "o_proj"),
    ]
