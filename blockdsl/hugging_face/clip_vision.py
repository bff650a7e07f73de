"""CLIP's image encoder (Radford et al., arXiv:2103.00020): a norm before the blocks, and a linear layer to the space
that it shares with the text encoder."""

from __future__ import annotations

from typing import Any

from .config import Config
from .family import Component, Family, Reordered, Row, Weight
from .images import image_settings, patch_row, tower_settings

TOWER = "vision_model."


def clip_blocks(theirs: str) -> list[Row]:
    """The blocks of CLIP's and SigLIP's encoders, whose names start with `theirs`."""
    layer = theirs + "encoder.layers.{i}."
    return [
        Weight("a.norm", layer + "layer_norm1"),
        Weight("a.layer.to_qkv", tuple(f"{layer}self_attn.{name}_proj" for name in "qkv")),
        Weight("a.layer.output.to_out", layer + "self_attn.out_proj"),
        Weight("f.norm", layer + "layer_norm2"),
        Weight("f.layer.to_hidden", layer + "mlp.fc1"),
        Weight("f.layer.to_out", layer + "mlp.fc2"),
    ]


def clip_image(config: Config, projection: int | None) -> Component:
    """The image encoder.

    Args:
        projection: features of the space shared with texts; None: there is no linear layer to it.
    """
    layers = config.integer("num_hidden_layers", 12)
    settings: dict[str, Any] = tower_settings(config, "quick_gelu", 1e-5) | image_settings(config, 32)
    settings |= {
        "ff_inner": config.integer("intermediate_size", 3072),
        "patch_bias": False,
        "class_token": True,
        "post_emb_norm": True,
        "pool": "first",
        "dim_out": projection,
        "dim_out_bias": projection is None,
    }
    weights: list[Row] = [
        Weight("class_token", TOWER + "embeddings.class_embedding", Reordered((settings["dim"],))),
        patch_row(settings, TOWER + "embeddings.patch_embedding"),
        Weight("pos_emb", TOWER + "embeddings.position_embedding"),
        Weight("post_emb_norm", TOWER + "pre_layrnorm"),
        *clip_blocks(TOWER),
        Weight("attn_layers.norm", TOWER + "post_layernorm"),
        Weight("project_out", "visual_projection"),
    ]
    return Component(f"(a f)*{layers}", settings, weights, layers)


def _read(config: Config) -> dict[str, Component]:
    projection = config.integer("projection_dim", 512)
    return {"": clip_image(config, None if config.base else projection)}


FAMILY = Family(
    model_types=("clip_vision_model",),
    architectures=("CLIPVisionModelWithProjection",),
    base="CLIPVisionModel",
    prefix=TOWER,
    source="arXiv:2103.00020",
    read=_read,
    ignored=("embeddings.position_ids",),
)
