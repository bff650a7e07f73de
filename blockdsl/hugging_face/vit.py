"""ViT (Dosovitskiy et al., arXiv:2010.11929): a class token, pre-norm, biases everywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .config import Config
from .family import Component, Family, Reordered, Row, Weight
from .images import image_rows, image_settings, labels, tower_settings

LAYER = "vit.encoder.layer.{i}."


def _read(config: Config) -> dict[str, Component]:
    layers = config.integer("num_hidden_layers", 12)
    settings = tower_settings(config, "gelu", 1e-12) | image_settings(config, 16)
    dim = settings["dim"]
    pooler = config.flag("add_pooling_layer", True) and config.base
    config.only("pooler_act", "tanh", "the pooler has another activation")
    config.only("pooler_output_size", dim, "the pooler has features of its own")
    config.ignore("encoder_stride")  # of a head that reconstructs masked images
    settings |= {
        "attn_qkv_bias": config.flag("qkv_bias", True),
        "ff_inner": config.integer("intermediate_size", 3072),
        "class_token": True,
        "pool": None if config.base and not pooler else "first",
        "pooler": pooler,
        "num_classes": None if config.base else labels(config),
    }
    embeddings = "vit.embeddings."
    weights: list[Row] = [
        Weight("class_token", embeddings + "cls_token", Reordered((1, 1, dim))),
        *image_rows(settings, embeddings, "patch_embeddings.projection"),
        Weight("a.norm", LAYER + "layernorm_before"),
        Weight("a.layer.to_qkv", tuple(f"{LAYER}attention.attention.{name}" for name in ("query", "key", "value"))),
        Weight("a.layer.output.to_out", LAYER + "attention.output.dense"),
        Weight("f.norm", LAYER + "layernorm_after"),
        Weight("f.layer.to_hidden", LAYER + "intermediate.dense"),
        Weight("f.layer.to_out", LAYER + "output.dense"),
        Weight("attn_layers.norm", "vit.layernorm"),
        *([Weight("pooler", "vit.pooler.dense")] if pooler else []),
        Weight("to_classes", "classifier"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


def _amended(config: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """A class without a head may have been made without a pooler, which no configuration says."""
    if any(name.endswith("pooler.dense.weight") for name in names):
        return config
    return {**config, "add_pooling_layer": False}


FAMILY = Family(
    model_types=("vit",),
    architectures=("ViTForImageClassification",),
    base="ViTModel",
    prefix="vit.",
    source="arXiv:2010.11929",
    read=_read,
    amended=_amended,
)
