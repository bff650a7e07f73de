"""The gated delta nets of Hugging Face's families: their sizes and the names of their weights."""

from __future__ import annotations

from typing import Any

from .config import Config
from .decoder import LAYER
from .family import Row, Weight

MIXER = LAYER + "linear_attn."


def delta_settings(
    config: Config, key_heads: int, value_heads: int, dim_head: int, value_dim_head: int
) -> dict[str, Any]:
    """Sizes; the arguments are of the family, where the configuration does not say."""
    heads = config.integer("linear_num_key_heads", key_heads)
    features = config.integer("linear_key_head_dim", dim_head)
    settings: dict[str, Any] = {
        "gdn_heads": heads,
        "gdn_dim_head": features,
        "gdn_kernel": config.integer("linear_conv_kernel_dim", 4),
    }
    values = config.integer("linear_num_value_heads", value_heads)
    value_features = config.integer("linear_value_head_dim", value_dim_head)
    settings["gdn_value_heads"] = None if values == heads else values
    settings["gdn_value_dim_head"] = None if value_features == features else value_features
    return settings


def key_and_value_features(settings: dict[str, Any]) -> tuple[int, int]:
    """Of all heads of keys, and of all heads of values."""
    heads, features = settings["gdn_heads"], settings["gdn_dim_head"]
    values, value_features = settings["gdn_value_heads"] or heads, settings["gdn_value_dim_head"] or features
    return heads * features, values * value_features


def delta_rows(out: str, norm: str) -> list[Row]:
    """What is called alike in all of them but for the output and its norm."""
    return [
        Weight("gdn.layer.A_log", MIXER + "A_log"),
        Weight("gdn.layer.dt_bias", MIXER + "dt_bias"),
        Weight("gdn.layer.norm", MIXER + norm),
        Weight("gdn.layer.to_out", MIXER + out),
    ]
