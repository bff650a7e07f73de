"""SigLIP's text encoder (Zhai et al., arXiv:2303.15343): its vector is a linear layer of the last token."""

from __future__ import annotations

from .clip_text import TOWER, text_rows, text_settings
from .config import Config
from .family import Component, Family, Weight
from .images import tower_settings


def siglip_text(config: Config) -> Component:
    """The text encoder."""
    layers = config.integer("num_hidden_layers", 12)
    settings = text_settings(config, tower_settings(config, "gelu_pytorch_tanh", 1e-6), 3072, 64, 32000)
    settings |= {"pool": "last", "logits_dim": config.integer("projection_size", settings["dim"])}
    return Component(f"(a f)*{layers}", settings, [*text_rows(), Weight("to_logits", TOWER + "head")], layers)


FAMILY = Family(
    model_types=("siglip_text_model",),
    architectures=("SiglipTextModel",),
    base="SiglipTextModel",
    prefix=TOWER,
    source="arXiv:2303.15343",
    read=lambda config: {"": siglip_text(config)},
    ignored=("embeddings.position_ids",),
)
