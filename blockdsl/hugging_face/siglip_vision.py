"""SigLIP's image encoder (Zhai et al., arXiv:2303.15343): no class token, and a learned query that pools."""

from __future__ import annotations

from typing import Any

from .clip_vision import clip_blocks
from .config import Config
from .family import Component, Family, PartOf, Reordered, Row, Weight
from .images import image_settings, patch_row, tower_settings

TOWER = "vision_model."


def siglip_image(config: Config) -> Component:
    """The image encoder."""
    layers = config.integer("num_hidden_layers", 12)
    settings: dict[str, Any] = tower_settings(config, "gelu_pytorch_tanh", 1e-6) | image_settings(config, 16)
    settings |= {"ff_inner": config.integer("intermediate_size", 3072)}
    if config.flag("vision_use_head", True):
        settings |= {
            "pool": "attention",
            "pool_heads": settings["heads"],
            "pool_inner": settings["ff_inner"],
            "pool_activation": settings["ff_activation"],
        }
    weights: list[Row] = [
        patch_row(settings, TOWER + "embeddings.patch_embedding"),
        Weight("pos_emb", TOWER + "embeddings.position_embedding"),
        *clip_blocks(TOWER),
        Weight("attn_layers.norm", TOWER + "post_layernorm"),
        *(_pool(settings["dim"]) if "pool" in settings else []),
    ]
    return Component(f"(a f)*{layers}", settings, weights, layers)


def _pool(dim: int) -> list[Row]:
    ours, theirs = "pool.attention.", TOWER + "head."
    joint = [
        Weight(f"{ours}attention.{part}.{name}", f"{theirs}attention.in_proj_{name}", rows)
        for name in ("weight", "bias")
        for part, rows in (("to_q", PartOf(0, dim)), ("to_kv", PartOf(dim, 3 * dim)))
    ]
    return [
        Weight(ours + "query", theirs + "probe", Reordered((1, 1, dim))),
        *joint,
        Weight(ours + "attention.output.to_out", theirs + "attention.out_proj"),
        Weight(ours + "norm", theirs + "layernorm"),
        Weight(ours + "feedforward.to_hidden", theirs + "mlp.fc1"),
        Weight(ours + "feedforward.to_out", theirs + "mlp.fc2"),
    ]


FAMILY = Family(
    model_types=("siglip_vision_model",),
    architectures=("SiglipVisionModel",),
    base="SiglipVisionModel",
    prefix=TOWER,
    source="arXiv:2303.15343",
    read=lambda config: {"": siglip_image(config)},
    ignored=("embeddings.position_ids",),
)
