"""DINOv2 (Oquab et al., arXiv:2304.07193): ViT with layer scale, and classes of its class token and mean patch."""

from __future__ import annotations

from .config import Config
from .family import Component, Family, Reordered, Row, Weight
from .images import image_rows, image_settings, labels, tower_settings


def read_dinov2(config: Config, prefix: str, registers: int = 0) -> dict[str, Component]:
    """What both families say.

    Args:
        prefix: of the names.
        registers: the usual number of register tokens; 0: there are none.
    """
    layers = config.integer("num_hidden_layers", 12)
    settings = tower_settings(config, "gelu", 1e-6) | image_settings(config, 16 if registers else 14)
    dim = settings["dim"]
    inner = int(dim * config.number("mlp_ratio", 4))
    config.ignore("stage_names", "out_features", "out_indices", "apply_layernorm", "reshape_hidden_states")
    config.ignore("drop_path_rate")
    if config.flag("use_swiglu_ffn", False):
        inner = (int(inner * 2 / 3) + 7) // 8 * 8
        settings |= {"ff_glu": True, "ff_gate_first": True, "ff_activation": "silu"}
    settings |= {
        "attn_qkv_bias": config.flag("qkv_bias", True),
        "ff_inner": inner,
        "layer_scale": config.number("layerscale_value", 1.0),
        "class_token": True,
        "mask_token": registers > 0 or config.flag("use_mask_token", True),
        "num_register_tokens": config.integer("num_register_tokens", registers, least=0) if registers else 0,
        "pos_antialias": registers > 0,
        "pool": "first" if config.base else "first_mean",
        "num_classes": None if config.base else labels(config),
    }
    embeddings, layer = f"{prefix}embeddings.", prefix + "encoder.layer.{i}."
    hidden, out = ("weights_in", "weights_out") if settings.get("ff_glu") else ("fc1", "fc2")
    weights: list[Row] = [
        Weight("class_token", embeddings + "cls_token", Reordered((1, 1, dim))),
        Weight("mask_token", embeddings + "mask_token"),
        Weight("registers", embeddings + "register_tokens", Reordered((1, settings["num_register_tokens"], dim))),
        *image_rows(settings, embeddings, "patch_embeddings.projection"),
        Weight("a.norm", layer + "norm1"),
        Weight("a.layer.to_qkv", tuple(f"{layer}attention.attention.{name}" for name in ("query", "key", "value"))),
        Weight("a.layer.output.to_out", layer + "attention.output.dense"),
        Weight("a.layer_scale", layer + "layer_scale1.lambda1"),
        Weight("f.norm", layer + "norm2"),
        Weight("f.layer.to_hidden", f"{layer}mlp.{hidden}"),
        Weight("f.layer.to_out", f"{layer}mlp.{out}"),
        Weight("f.layer_scale", layer + "layer_scale2.lambda1"),
        Weight("attn_layers.norm", f"{prefix}layernorm"),
        Weight("to_classes", "classifier"),
    ]
    return {"": Component(f"(a f)*{layers}", settings, weights, layers)}


FAMILY = Family(
    model_types=("dinov2",),
    architectures=("Dinov2ForImageClassification",),
    base="Dinov2Model",
    prefix="dinov2.",
    source="arXiv:2304.07193",
    read=lambda config: read_dinov2(config, "dinov2."),
)
