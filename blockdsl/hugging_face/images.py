"""What vision transformers share: patches, blocks with biases, and the names of what embeds an image."""

from __future__ import annotations

from typing import Any

from ..errors import UserError, shortened
from ..registry.options import Value
from ..registry.tokens import not_tiled, pair
from .config import Config
from .family import Reordered, Row, Weight


def image_settings(config: Config, patch: int) -> dict[str, Any]:
    """Sizes of images and of their patches, which a convolution embeds: pixels that fill no patch are left out.

    Args:
        patch: the usual size of one.
    """
    image_size, patch_size = (_size(config, name, size) for name, size in (("image_size", 224), ("patch_size", patch)))
    return {
        "image_size": image_size,
        "patch_size": patch_size,
        "channels": config.integer("num_channels", 3),
        "crop": not_tiled(image_size, patch_size) is not None,
        "patch_norm": False,
    }


def tower_settings(config: Config, activation: str, eps: float, dim: int = 768, heads: int = 12) -> dict[str, Any]:
    """Width, heads and norms of blocks whose linear layers have biases.

    Args:
        activation, eps, dim, heads: what a configuration that leaves them out means.
    """
    dim, heads = config.integer("hidden_size", dim), config.integer("num_attention_heads", heads)
    return {
        "dim": dim,
        "heads": heads,
        "attn_dim_head": config.per_head(dim, heads, "hidden_size", "num_attention_heads"),
        "attn_qkv_bias": True,
        "attn_out_bias": True,
        "ff_activation": config.activation("hidden_act", activation),
        "norm_eps": config.number("layer_norm_eps", eps),
    }


def labels(config: Config) -> int:
    """How many classes there are."""
    names = config.get("id2label", None)
    return config.integer("num_labels", 2) if names is None else len(names)


def image_rows(settings: dict[str, Any], theirs: str, convolution: str) -> list[Row]:
    """The kernel that embeds patches, and the positions, of a table without a name for its weight.

    Args:
        theirs: what the names start with.
        convolution: the name of the convolution.
    """
    return [patch_row(settings, theirs + convolution), positions_row(settings, theirs + "position_embeddings")]


def patch_row(settings: dict[str, Any], theirs: str) -> Weight:
    """The kernel that embeds patches."""
    kernel = (settings["dim"], settings["channels"], *pair(settings["patch_size"]))
    return Weight("patch_emb.project", theirs, Reordered(kernel, (0, 2, 3, 1)))


def positions_row(settings: dict[str, Any], theirs: str) -> Weight:
    """Positions of the class token and of the patches, as one parameter."""
    (rows, columns), (high, wide) = pair(settings["image_size"]), pair(settings["patch_size"])
    places = (rows // high) * (columns // wide) + settings["class_token"]
    return Weight("pos_emb.weight", theirs, Reordered((1, places, settings["dim"])))


def _size(config: Config, name: str, default: int) -> Value:
    size = config.get(name, default)
    if not isinstance(size, list | tuple):
        return config.integer(name, default)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"{config.within}{name} must be one size or two, not {shortened(repr(size))}")
    return size[0] if size[0] == size[1] else tuple(size)
